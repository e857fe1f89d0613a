//! Three regions of two nodes each in a storm: their links are cut and slow, and their Redis restart, forget, fill up and
//! have clocks that jump.
//!
//! `SKYWAVE_STORM_SEED` says which storms there are, and `SKYWAVE_STORM_SECONDS` how long each lasts.

mod blows;
mod failovers;
mod fleet;
mod reader;

use crate::{
    deployment::Deployment, environment, patience::soon, relay::Relay, server::RedisServer, world::message,
};
use failovers::Failovers;
use futures_util::{SinkExt, StreamExt};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use reader::Reader;
use serde_json::{Value, json};
use skywave::{broker::Accepted, node::Node, server::Server};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
/// With a long history, with a short one, and without.
const CHANNELS: [&str; 4] = ["chat:1", "chat:2", "small:1", "bench:1"];
const CHANGES: &str = "
    [channels.small]
    history = 1
    presence = false
    [failover]
    broker_away = \"60s\"
";
const READERS: usize = 6;
/// How long after the last blow everything must have arrived.
const SETTLING: Duration = Duration::from_secs(40);
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
type End = (&'static str, Accepted);

/// The nodes of each region, and where they listen.
type Places = Mutex<HashMap<&'static str, Vec<(SocketAddr, Arc<Node>)>>>;

/// What readers and publishers know of a storm.
struct World {
    seed: u64,
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
    let mut ends = Vec::new();
    for region in REGIONS {
        for channel in CHANNELS {
            ends.push((channel, world.insist(region, channel).await));
        }
    }
    goal.send_replace(ends);
    let mut there = HashMap::new();
    while let Some(reader) = readers.join_next().await {
        let told = || format!("seed {seed}\n{}", storm.told().join("\n"));
        let reader = reader.unwrap_or_else(|error| panic!("{error}\n{}", told()));
        world.hold_all_of(force, &reader, &goal.borrow(), &told);
        world.hold_content_of(&reader, &mut there, &told);
    }
}

fn random(seed: u64, part: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003) + part)
}

impl World {
    fn new(seed: u64) -> Self {
        Self { seed, places: Mutex::default(), count: AtomicU64::new(1), accepted: Mutex::default() }
    }

    /// Publishes until it is accepted.
    async fn insist(&self, region: &str, channel: &str) -> Accepted {
        let node = self.places.lock().unwrap()[region][0].1.clone();
        let key = format!("last {region}");
        let insisting = async {
            loop {
                if let Ok(accepted) = node.publish(message(channel, 0, Some(&key))).await {
                    return accepted;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        soon(insisting).await
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

    /// One of a region's nodes.
    fn node(&self, region: &str, random: &mut SmallRng) -> Arc<Node> {
        self.places.lock().unwrap()[region][random.random_range(0..2)].1.clone()
    }

    fn place(&self, region: &str, random: &mut SmallRng) -> SocketAddr {
        self.places.lock().unwrap()[region][random.random_range(0..2)].0
    }

    /// The reader got to the end, and everything that was accepted, but for what was lost.
    fn hold_all_of(&self, force: Force, reader: &Reader, ends: &[End], told: &dyn Fn() -> String) {
        for (channel, last) in ends {
            reader.hold(reader.is_at(channel, last), &format!("{channel}: not at {last:?}; {}", told()));
        }
        if force == Force::Full {
            return;
        }
        for channel in ["chat:1", "chat:2"] {
            let (numbers, accepted) = (&reader.numbers[channel], self.accepted.lock().unwrap());
            let missing: Vec<_> =
                accepted[channel].iter().filter(|(number, _)| !numbers.contains(number)).collect();
            reader.hold(missing.is_empty(), &format!("{channel}: {missing:?} are missing; {}", told()));
        }
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
        let channel = CHANNELS[random.random_range(0..CHANNELS.len())];
        for _ in 0..if random.random_bool(0.1) { 20 } else { 1 } {
            let number = world.count.fetch_add(1, Ordering::Relaxed);
            let until = Instant::now() + INSISTING;
            while Instant::now() < until {
                let node = world.node(region, &mut random);
                let key = format!("key {number}");
                let message = message(channel, number, Some(&key));
                if let Ok(Ok(accepted)) = timeout(INSISTING, node.publish(message)).await {
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
    let mut reader = Reader::new(number.to_string());
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
    !ends.is_empty() && ends.iter().all(|(channel, last)| reader.is_at(channel, last))
}

/// Reads at one node until that ends it, or all came.
async fn visit(reader: &mut Reader, region: &str, place: SocketAddr, ends: &[End]) -> Option<()> {
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
            } else {
                reader.take(region, &frame);
            }
        }
    }
    Some(())
}

/// What blows.
struct Storm {
    force: Force,
    random: SmallRng,
    world: Arc<World>,
    deployment: Deployment,
    /// Regions of which another one is without for now.
    out: BTreeMap<(&'static str, &'static str), Relay>,
    begun: Instant,
    told: Vec<String>,
}

impl Storm {
    async fn start(force: Force, seed: u64) -> Self {
        let mut servers = Vec::new();
        for name in REGIONS {
            let server = match force {
                Force::Gentle => RedisServer::durable().await,
                Force::Full => RedisServer::with_clock().await,
            };
            servers.push((name, server));
        }
        let mut deployment = Deployment::on(servers, "", CHANGES).await;
        for name in REGIONS {
            deployment.add_node(name).await;
        }
        let world = Arc::new(World::new(seed));
        let (out, told) = (BTreeMap::new(), Vec::new());
        let storm =
            Self { force, random: random(seed, 99), world, deployment, out, begun: Instant::now(), told };
        storm.tell_places();
        storm
    }

    fn tell_places(&self) {
        for region in &self.deployment.regions {
            let place = |server: &Server| (server.plain().unwrap(), server.node().clone());
            let places = region.nodes.iter().map(place).collect();
            self.world.places.lock().unwrap().insert(region.name, places);
        }
    }

    fn redis(&self, region: &str) -> &RedisServer {
        &self.deployment.region(region).redis
    }

    /// Loses what was accepted, or what was brought.
    async fn lose(&mut self, what: u32, region: &'static str) {
        let partition = self.random.random_range(0..4);
        match what {
            10 => self.forget_cursor(region).await,
            11 => self.redis(region).run::<()>("SAVE").await,
            12 if self.random.random_bool(0.5) => self.redis(region).run::<()>("FLUSHALL").await,
            13 => {
                let kept = self.random.random_range(0..5);
                let trim = format!("XTRIM sky:{{{partition}}}:log MAXLEN = {kept}");
                self.redis(region).run::<u64>(&trim).await;
            }
            14 | 15 => {
                let mut keys: Vec<String> =
                    self.redis(region).run(&format!("KEYS sky:{{{partition}}}:*")).await;
                keys.sort();
                if !keys.is_empty() {
                    let key = &keys[self.random.random_range(0..keys.len())];
                    self.told.push(format!("without {key}"));
                    self.redis(region).run::<u64>(&format!("DEL {key}")).await;
                }
            }
            16 => {
                // As hours are: what is older is gone.
                let ahead = [-7_200, -300, -5, 0, 5, 300, 7_200][self.random.random_range(0..7)];
                self.told.push(format!("clock {ahead}"));
                self.redis(region).set_clock(ahead).await;
            }
            17 => {
                self.redis(region).run::<()>("CONFIG SET maxmemory 1").await;
                let pause = self.random.random_range(100..3_000);
                sleep(Duration::from_millis(pause)).await;
                self.redis(region).run::<()>("CONFIG SET maxmemory 0").await;
            }
            _ => {}
        }
    }

    fn path(&self, region: &'static str, other: &'static str, change: impl FnOnce(&Relay)) {
        if let Some(path) = self.deployment.paths.get(&(region, other)) {
            change(path);
        }
    }

    async fn forget_cursor(&mut self, region: &str) {
        let partition = self.random.random_range(0..4);
        self.redis(region).run::<u64>(&format!("DEL sky:{{{partition}}}:cursor")).await;
    }

    /// Another node takes the place of one that ends without a farewell.
    async fn replace_node(&mut self, region: &str) {
        let which = self.random.random_range(0..2);
        drop(self.deployment.region_mut(region).nodes.remove(which));
        self.deployment.add_node(region).await;
        self.tell_places();
    }

    /// Nodes that start from now on know nothing of the other region, or know of it again.
    async fn take_out_or_put_back(&mut self, region: &'static str, other: &'static str) {
        let pair = (region, other);
        match self.out.remove(&pair) {
            Some(path) => drop(self.deployment.paths.insert(pair, path)),
            None => self.out.extend(self.deployment.paths.remove_entry(&pair)),
        }
        self.renew(region).await;
    }

    /// Nodes that know what is so now take the place of all of a region, one after the other.
    async fn renew(&mut self, region: &str) {
        for _ in 0..2 {
            drop(self.deployment.region_mut(region).nodes.remove(0));
            self.deployment.add_node(region).await;
            self.tell_places();
        }
    }
}

impl Sky for Storm {
    fn world(&self) -> &Arc<World> {
        &self.world
    }

    fn told(&self) -> &[String] {
        &self.told
    }

    /// Does something to a region, or to its path to another one.
    async fn blow(&mut self) {
        let region = REGIONS[self.random.random_range(0..3)];
        let other =
            *REGIONS.iter().filter(|name| **name != region).nth(self.random.random_range(0..2)).unwrap();
        let what = self.random.random_range(
            0..match self.force {
                Force::Gentle => 10,
                Force::Full => 18,
            },
        );
        self.told.push(format!("{:?} {what} {region} {other}", self.begun.elapsed()));
        match what {
            0 | 1 => self.path(region, other, Relay::cut),
            2 | 3 => self.deployment.paths.values().for_each(Relay::heal),
            4 => {
                let delay = Duration::from_millis(self.random.random_range(0..120));
                self.path(region, other, |path| path.delay(delay));
            }
            5 => self.redis(region).cut_connections().await,
            6 => {
                self.redis(region).freeze();
                let pause = self.random.random_range(100..1_500);
                sleep(Duration::from_millis(pause)).await;
                self.redis(region).thaw();
            }
            7 => self.deployment.region_mut(region).redis.restart().await,
            8 => self.replace_node(region).await,
            9 => self.take_out_or_put_back(region, other).await,
            _ => self.lose(what, region).await,
        }
    }

    async fn calm(&mut self) {
        self.told.push(format!("{:?} calm", self.begun.elapsed()));
        let changed: BTreeSet<_> = self.out.keys().map(|(region, _)| *region).collect();
        self.deployment.paths.append(&mut self.out);
        for path in self.deployment.paths.values() {
            path.heal();
            path.delay(Duration::ZERO);
        }
        for region in changed {
            self.renew(region).await;
        }
        for region in REGIONS {
            self.deployment.bridged(region).await;
        }
    }
}
