//! Three regions of two nodes each in a storm: their links are cut and slow, and their Redis restart, forget, fill up
//! and have clocks that jump.
//!
//! `SKYWAVE_STORM_SEED` says which storms there are, and `SKYWAVE_STORM_SECONDS` how long each lasts.

mod blows;
mod failovers;
mod fleet;
mod reader;
mod servers;

use failovers::Failovers;
use futures_util::{SinkExt, StreamExt};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use reader::Reader;
use serde_json::{Value, json};
use servers::Storm;
use skywave::{
    broker::{Accepted, PageLimit, PageOf, ReadFrom},
    node::Node,
};
use skywave_protocol::{Channel, position::Origin};
use skywave_testing::{environment, node::broker::message};
use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{client_async, tungstenite::Message};

const REGIONS: [&str; 3] = ["eu", "us", "ap"];
/// With a long history, with a short one, and without; one that a region orders for all; and one on which little is
/// published, and nothing last of all.
const CHANNELS: [&str; 6] = ["chat:1", "chat:2", "small:1", "bench:1", ORDERED, QUIET];
const ORDERED: &str = "vote:1";
const QUIET: &str = "chat:quiet";
/// Which region orders.
const HOME: &str = "eu";
const CHANGES: &str = "
    [channels.small]
    history = 1
    presence = false
    [channels.vote]
    history = 10000
    presence = false
    order = \"home\"
    home = \"eu\"
    [failover]
    broker_away = \"60s\"
";
const READERS: usize = 6;
/// How long after the last blow everything must have arrived. Who saw a life that is over is refused for twelve seconds
/// in each partition, one after the other, as readers here leave with the first refusal; a slow machine needs more than
/// that.
const SETTLING: Duration = Duration::from_secs(80);
/// How long a publisher insists.
const INSISTING: Duration = Duration::from_secs(20);

/// What a storm may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Force {
    /// Nothing that loses what was accepted: everyone gets all.
    Gentle,
    /// What is lost is told.
    Full,
}

/// Where a channel ends for a region.
type End = (&'static str, Ending);

/// How it does.
#[derive(Debug, Clone)]
enum Ending {
    /// With this publication.
    At(Accepted),
    /// Nothing follows in this life: who was in another one is told.
    Quiet(Origin, String),
}

/// The nodes of each region, and where they listen.
type Places = Mutex<HashMap<&'static str, Vec<(SocketAddr, Arc<Node>)>>>;

/// What readers and publishers know of a storm.
struct World {
    seed: u64,
    begun: Instant,
    places: Places,
    /// How many numbers there are.
    count: AtomicU64,
    /// What was accepted, by channel, and where it stands.
    accepted: Mutex<HashMap<&'static str, Vec<(u64, Accepted)>>>,
}

/// A storm of some kind.
trait Sky {
    fn world(&self) -> &Arc<World>;
    /// What it did.
    fn told(&self) -> &[String];
    async fn blow(&mut self);
    /// Ends it.
    async fn calm(&mut self);
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_between_regions_lose_repeat_and_reorder_nothing() {
    let seed = seed();
    weather(Storm::start(Force::Gentle, seed).await, Force::Gentle, seed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_storms_take_from_regions_is_told_and_nothing_comes_twice() {
    let seed = seed();
    weather(Storm::start(Force::Full, seed).await, Force::Full, seed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_that_change_in_storms_lose_repeat_and_reorder_nothing() {
    let seed = seed();
    weather(Failovers::start(Force::Gentle, seed).await, Force::Gentle, seed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_masters_that_fail_in_storms_lose_is_told_and_nothing_comes_twice() {
    let seed = seed();
    weather(Failovers::start(Force::Full, seed).await, Force::Full, seed).await;
}

fn seed() -> u64 {
    environment::number("SKYWAVE_STORM_SEED").unwrap_or(1)
}

async fn weather(mut storm: impl Sky, force: Force, seed: u64) {
    let seconds = environment::number("SKYWAVE_STORM_SECONDS").unwrap_or(8);
    let world = storm.world().clone();
    let (ends, ended) = watch::channel(false);
    let (mut publishers, mut readers) = (JoinSet::new(), JoinSet::new());
    for (number, region) in (0..).zip(REGIONS) {
        publishers.spawn(publish(world.clone(), region, random(seed, number), ended.clone()));
    }
    let (goal, goals) = watch::channel(Vec::new());
    for number in 0..READERS {
        readers.spawn(read(world.clone(), number, goals.clone()));
    }
    let mut pauses = random(seed, 97);
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until && readers.len() == READERS {
        storm.blow().await;
        sleep(Duration::from_millis(pauses.random_range(20..1_500))).await;
        if let Some(ended) = readers.try_join_next() {
            panic!("seed {seed}: {:?}\n{}", ended.err(), storm.told().join("\n"));
        }
    }
    storm.calm().await;
    ends.send_replace(true);
    publishers.join_all().await;
    let told = || format!("seed {seed}\n{}", storm.told().join("\n"));
    goal.send_replace(world.ends(&told).await);
    let mut there = HashMap::new();
    while let Some(reader) = readers.join_next().await {
        let reader = reader.unwrap_or_else(|error| panic!("{error}\n{}", told()));
        world.hold_all_of(force, &reader, &goal.borrow(), &told);
        world.hold_content_of(&reader, &mut there, &told);
    }
    world.hold_histories(&told).await;
}

fn random(seed: u64, part: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003) + part)
}

impl World {
    fn new(seed: u64) -> Self {
        let (places, accepted) = (Mutex::default(), Mutex::default());
        Self { seed, begun: Instant::now(), places, count: AtomicU64::new(1), accepted }
    }

    /// Where the channels end.
    async fn ends(&self, told: &dyn Fn() -> String) -> Vec<End> {
        let mut ends = Vec::new();
        for region in REGIONS {
            let node = self.first_node(region);
            // Of what one region orders, one publication is the last; it comes from elsewhere.
            let ends_here = |channel: &&str| *channel != QUIET && (*channel != ORDERED || region == "ap");
            for channel in CHANNELS.into_iter().filter(ends_here) {
                let key = format!("last {region}");
                let last = async || node.publish(message(channel, 0, Some(&key))).await;
                ends.push((channel, Ending::At(insist(last, &format!("{region} {channel}"), told).await)));
            }
            let quiet = Channel::new(QUIET).unwrap();
            let head = insist(async || node.broker.read(&quiet, ReadFrom::Head).await, region, told).await;
            let (life, _) = head.start.get(region).unwrap().epoch.split_once('.').unwrap();
            ends.push((QUIET, Ending::Quiet(Origin::new(region).unwrap(), life.to_owned())));
        }
        ends
    }

    /// At each place stands what was accepted for it, and the same for everybody.
    fn hold_content_of(
        &self,
        reader: &Reader,
        there: &mut HashMap<reader::Place, u64>,
        told: &dyn Fn() -> String,
    ) {
        for (channel, accepted) in &*self.accepted.lock().unwrap() {
            for (number, Accepted { origin, epoch, offset, .. }) in accepted {
                let place = ((*channel).to_owned(), origin.to_string(), epoch.to_string(), *offset);
                there.insert(place, *number);
            }
        }
        for (place, number) in &reader.got {
            let stands = *there.entry(place.clone()).or_insert(*number);
            reader.hold(stands == *number, &format!("{place:?}: {number} for {stands}; {}", told()));
        }
    }

    /// No history tells anything twice.
    async fn hold_histories(&self, told: &dyn Fn() -> String) {
        let limit = PageLimit { publications: usize::MAX >> 1, bytes: usize::MAX >> 1 };
        for region in REGIONS {
            let node = self.first_node(region);
            for name in CHANNELS {
                let channel = Channel::new(name).unwrap();
                let page = async || node.broker.history(&channel, PageOf::Last, limit).await;
                let page = insist(page, region, told).await;
                let mut places = BTreeSet::new();
                for publication in &page.publications {
                    let frame = publication.frame();
                    let place = (frame.origin.to_string(), frame.epoch.to_string(), frame.offset);
                    let is_new = places.insert(place.clone());
                    assert!(is_new, "{region} tells {place:?} of {name} twice\n{}", told());
                }
            }
        }
    }

    fn first_node(&self, region: &str) -> Arc<Node> {
        self.places.lock().unwrap()[region][0].1.clone()
    }

    /// One of a region's nodes, if it has any.
    fn node(&self, region: &str, random: &mut SmallRng) -> Option<Arc<Node>> {
        self.places.lock().unwrap()[region].get(random.random_range(0..2)).map(|place| place.1.clone())
    }

    fn place(&self, region: &str, random: &mut SmallRng) -> Option<SocketAddr> {
        self.places.lock().unwrap()[region].get(random.random_range(0..2)).map(|place| place.0)
    }

    /// The reader got to the end, and everything that was accepted, but for what was lost.
    fn hold_all_of(&self, force: Force, reader: &Reader, ends: &[End], told: &dyn Fn() -> String) {
        for (channel, end) in ends {
            reader.hold(reader.ended(channel, end), &format!("{channel}: not at {end:?}; {}", told()));
        }
        if force == Force::Full {
            return;
        }
        for channel in ["chat:1", "chat:2", ORDERED, QUIET] {
            let (numbers, accepted) = (reader.numbers(channel), self.accepted.lock().unwrap());
            let accepted = accepted.get(channel).into_iter().flatten();
            let missing: Vec<_> = accepted.filter(|(number, _)| !numbers.contains(number)).collect();
            reader.hold(missing.is_empty(), &format!("{channel}: {missing:?} are missing; {}", told()));
        }
    }
}

/// Asks until it is answered, as a client does.
async fn insist<T, E: Debug>(
    mut ask: impl AsyncFnMut() -> Result<T, E>,
    what: &str,
    told: &dyn Fn() -> String,
) -> T {
    let until = Instant::now() + SETTLING / 2;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < until, "{what}: {error:?} for too long; {}", told()),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Publishes numbers until it is told to stop, each of them until it is accepted.
async fn publish(
    world: Arc<World>,
    region: &'static str,
    mut random: SmallRng,
    ended: watch::Receiver<bool>,
) {
    while !*ended.borrow() {
        let often = random.random_range(0..CHANNELS.len() - 1);
        let channel = if random.random_bool(0.03) { QUIET } else { CHANNELS[often] };
        for _ in 0..if random.random_bool(0.1) { 20 } else { 1 } {
            let number = world.count.fetch_add(1, Ordering::Relaxed);
            let until = Instant::now() + INSISTING;
            while Instant::now() < until {
                let key = format!("key {number}");
                let message = message(channel, number, Some(&key));
                if let Some(node) = world.node(region, &mut random)
                    && let Ok(Ok(accepted)) = timeout(INSISTING, node.publish(message)).await
                {
                    let accepted = (number, accepted);
                    world.accepted.lock().unwrap().entry(channel).or_default().push(accepted);
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        sleep(Duration::from_millis(random.random_range(1..60))).await;
    }
}

/// Reads now here, now there, until the storm is over and it has all.
async fn read(world: Arc<World>, number: usize, mut goal: watch::Receiver<Vec<End>>) -> Reader {
    let mut random = random(world.seed, 100 + number as u64);
    let mut reader = Reader::new(number.to_string(), world.begun);
    // Some stay in their region.
    let home = number.is_multiple_of(2).then(|| REGIONS[number / 2]);
    while goal.borrow_and_update().is_empty() {
        let region = home.unwrap_or_else(|| REGIONS[random.random_range(0..3)]);
        let longest = if home.is_some() { 15_000 } else { 3_000 };
        let stay = Duration::from_millis(random.random_range(5..longest));
        let place = world.place(region, &mut random);
        tokio::select! {
            _ = timeout(stay, visit(&mut reader, region, place, &[])) => {}
            changed = goal.changed() => changed.unwrap(),
        }
        sleep(Duration::from_millis(20)).await;
    }
    let region = home.unwrap_or_else(|| REGIONS[random.random_range(0..3)]);
    let (ends, until) = (goal.borrow().clone(), Instant::now() + SETTLING);
    while Instant::now() < until && !is_at_the_end(&reader, &ends) {
        let place = world.place(region, &mut random);
        let _ = timeout(until - Instant::now(), visit(&mut reader, region, place, &ends)).await;
        sleep(Duration::from_millis(20)).await;
    }
    reader
}

fn is_at_the_end(reader: &Reader, ends: &[End]) -> bool {
    !ends.is_empty() && ends.iter().all(|(channel, end)| reader.ended(channel, end))
}

/// Reads at one node until that ends it, or all came.
async fn visit(reader: &mut Reader, region: &str, place: Option<SocketAddr>, ends: &[End]) -> Option<()> {
    let place = place?;
    let stream = TcpStream::connect(place).await.ok()?;
    let (mut socket, _) = client_async(format!("ws://{place}/v1/connect"), stream).await.ok()?;
    socket.send(Message::text(reader.connect(&CHANNELS))).await.ok()?;
    while !is_at_the_end(reader, ends) {
        let Message::Text(text) = socket.next().await?.ok()? else { return None };
        let frames = match serde_json::from_str(&text).unwrap() {
            Value::Array(frames) => frames,
            frame => vec![frame],
        };
        for frame in frames {
            if let Some(ping) = frame.get("ping") {
                let pong = json!({"pong": {"seq": ping["seq"]}});
                socket.send(Message::text(pong.to_string())).await.ok()?;
            } else if frame.get("unsubscribed").is_some() {
                // It asks again.
                return None;
            } else {
                reader.take(region, &frame);
            }
        }
    }
    Some(())
}
