//! Random cuts and changes of transport under continuous publishing: every publication arrives once and in order.
//!
//! `SKYWAVE_CHAOS_CUTS` says how many cuts and switches there are (300 when absent) and `SKYWAVE_CHAOS_SEED` which
//! ones. The long form: `SKYWAVE_CHAOS_CUTS=10000 cargo test --release --test chaos -- --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

use futures_util::{StreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use skywave::server::Server;
use skywave_client::{
    Backoff, CertificateCheck, ChannelEvent, Client, ClientOptions, Json, Payload, Publication,
    SubscribeOptions, Subscription, TransportChoice, TransportKind,
};
use skywave_testing::{
    environment,
    node::{self, connect},
    soon,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

const CLIENTS: [TransportChoice; 6] = [
    TransportChoice::Auto,
    TransportChoice::Auto,
    TransportChoice::WebTransport,
    TransportChoice::WebTransport,
    TransportChoice::WebSocket,
    TransportChoice::WebSocket,
];
const CHANNELS: [&str; 3] = ["chat:1", "chat:2", "chat:3"];
/// Publishes of one client on one channel that wait for their answer at once.
const IN_FLIGHT: usize = 4;
const PUBLISH_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause of one client between two of its breaks.
const MAX_PAUSE_MS: u64 = 120;
/// A break that takes longer than this hangs.
const BREAK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after the last publish everything must have arrived.
const SETTLING: Duration = Duration::from_secs(30);

/// Who published, and which one of that publisher's on that channel, from 1.
type Number = (usize, u64);
/// How many each publisher has published on each channel.
type Counts = HashMap<(usize, &'static str), u64>;

#[derive(Debug, Default)]
struct Breaks {
    /// How many of both there may be.
    wanted: u64,
    begun: AtomicU64,
    cuts: AtomicU64,
    switches: AtomicU64,
    /// Switches that were cut in the middle, or refused.
    failed_switches: AtomicU64,
}

/// What a subscriber found wrong, and how far it got.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    received: u64,
    lost: u64,
    repeated: u64,
    reordered: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_and_switches_lose_repeat_and_reorder_nothing() {
    let wanted = environment::number("SKYWAVE_CHAOS_CUTS").unwrap_or(300);
    let seed = environment::number("SKYWAVE_CHAOS_SEED").unwrap_or(1);
    let history = [("CHANNELS__CHAT__HISTORY", "100000")];
    let server = node::start(&history).await;
    let breaks = Arc::new(Breaks { wanted, ..Breaks::default() });
    let begin = Instant::now();

    let mut clients = Vec::new();
    for choice in CLIENTS {
        clients.push(connect(options(&server, choice)).await);
    }
    let (published, goal) = watch::channel(None);
    let mut subscribers = JoinSet::new();
    for client in &clients {
        for channel in CHANNELS {
            let room = soon(client.subscribe(channel, SubscribeOptions::default())).await.unwrap();
            subscribers.spawn(subscribe(channel, room, goal.clone()));
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishers = JoinSet::new();
    let mut breakers = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        for channel in CHANNELS {
            publishers.spawn(publish(client.clone(), number, channel, stop.clone()));
        }
        let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        breakers.spawn(break_up(client.clone(), random, breaks.clone()));
    }
    let time = Duration::from_secs(60) + Duration::from_millis(100) * wanted as u32;
    timeout(time, breakers.join_all()).await.unwrap_or_else(|_| panic!("seed {seed}: {breaks:?}"));
    let breaking = begin.elapsed();
    stop.store(true, Ordering::Relaxed);
    let counts: Counts = soon(publishers.join_all()).await.into_iter().collect();
    published.send_replace(Some(Arc::new(counts.clone())));
    let findings = subscribers.join_all().await;
    let total = findings.iter().fold(Findings::default(), |sum, findings| Findings {
        received: sum.received + findings.received,
        lost: sum.lost + findings.lost,
        repeated: sum.repeated + findings.repeated,
        reordered: sum.reordered + findings.reordered,
    });
    let broken = breaks.cuts.load(Ordering::Relaxed) + breaks.switches.load(Ordering::Relaxed);
    println!(
        "chaos: seed {seed}: {} cuts and {} switches ({} failed) in {:.1} s, {:.0} per second; {} published, \
         {} received, {} lost, {} repeated, {} reordered",
        breaks.cuts.load(Ordering::Relaxed),
        breaks.switches.load(Ordering::Relaxed),
        breaks.failed_switches.load(Ordering::Relaxed),
        breaking.as_secs_f64(),
        broken as f64 / breaking.as_secs_f64(),
        counts.values().sum::<u64>(),
        total.received,
        total.lost,
        total.repeated,
        total.reordered,
    );
    assert!(broken >= wanted, "seed {seed}: {breaks:?}");
    let received = counts.values().sum::<u64>() * CLIENTS.len() as u64;
    assert_eq!(total, Findings { received, ..Findings::default() }, "seed {seed}");
}

fn options(server: &Server, choice: TransportChoice) -> ClientOptions {
    let mut options = ClientOptions::new(format!("https://127.0.0.1:{}", server.public().unwrap().port()));
    options.transport = choice;
    options.certificate = CertificateCheck::Insecure;
    options.backoff = Backoff { first: Duration::from_millis(10), max: Duration::from_millis(200) };
    options
}

/// Publishes numbers on a channel until it is told to stop; gives how many.
async fn publish(
    client: Client,
    publisher: usize,
    channel: &'static str,
    stop: Arc<AtomicBool>,
) -> ((usize, &'static str), u64) {
    let numbers = stream::unfold(0u64, |number| {
        let stop = stop.clone();
        async move {
            sleep(PUBLISH_PAUSE).await;
            (!stop.load(Ordering::Relaxed)).then_some((number + 1, number + 1))
        }
    });
    let publishes = numbers.map(|number| {
        let data = Json::of(&(publisher, number)).unwrap();
        let client = client.clone();
        async move { client.publish(channel, data).await.map(|_| number) }
    });
    let mut answers = Box::pin(publishes.buffered(IN_FLIGHT));
    let mut last = 0;
    while let Some(answer) = answers.next().await {
        last = answer.expect("a publish failed for good");
    }
    ((publisher, channel), last)
}

/// Cuts and switches a client's transport, until there have been enough of all clients'.
async fn break_up(client: Client, mut random: SmallRng, breaks: Arc<Breaks>) {
    while breaks.begun.fetch_add(1, Ordering::Relaxed) < breaks.wanted {
        sleep(Duration::from_millis(random.random_range(0..MAX_PAUSE_MS))).await;
        loop {
            let action = random.random_range(0..4);
            let delay = Duration::from_micros(random.random_range(0..10_000));
            let done = async {
                let kind = transport(&client).await;
                match action {
                    0 | 1 => cut(&client, &breaks).await,
                    2 => switch(&client, node::another(kind), &breaks).await,
                    // Cut in the middle of the switch.
                    _ => {
                        let cutting = async {
                            sleep(delay).await;
                            cut(&client, &breaks).await
                        };
                        let (switched, cut) =
                            tokio::join!(switch(&client, node::another(kind), &breaks), cutting);
                        switched || cut
                    }
                }
            };
            if timeout(BREAK_TIMEOUT, done).await.expect("a break hangs") {
                break;
            }
        }
    }
}

/// The transport of the client, once it has one.
async fn transport(client: &Client) -> TransportKind {
    let mut status = client.status();
    let status = status.wait_for(|status| status.connected().is_some()).await.unwrap();
    status.connected().unwrap().transport
}

async fn cut(client: &Client, breaks: &Breaks) -> bool {
    let connected = client.connected().is_some();
    client.cut().await.unwrap();
    breaks.cuts.fetch_add(u64::from(connected), Ordering::Relaxed);
    connected
}

async fn switch(client: &Client, kind: TransportKind, breaks: &Breaks) -> bool {
    let switched = client.switch(kind).await.is_ok();
    let counter = if switched { &breaks.switches } else { &breaks.failed_switches };
    counter.fetch_add(1, Ordering::Relaxed);
    switched
}

/// Reads a channel until everything that was published on it has arrived, or settling takes too long.
async fn subscribe(
    channel: &'static str,
    mut room: Subscription,
    mut goal: watch::Receiver<Option<Arc<Counts>>>,
) -> Findings {
    let mut findings = Findings::default();
    let mut seen = Seen::default();
    let mut settled_by = None;
    loop {
        if let Some(counts) = goal.borrow().as_deref() {
            let deadline = *settled_by.get_or_insert_with(|| tokio::time::Instant::now() + SETTLING);
            let late = deadline <= tokio::time::Instant::now();
            let missing =
                (0..CLIENTS.len()).map(|publisher| seen.missing(publisher, counts[&(publisher, channel)]));
            let missing: u64 = missing.sum();
            if missing == 0 || late {
                findings.lost = missing;
                break;
            }
        }
        tokio::select! {
            event = room.next() => match event {
                Some(ChannelEvent::Publication(publication)) => seen.take(number(&publication), &mut findings),
                Some(ChannelEvent::Subscribed(_)) => {}
                other => panic!("{channel}: {other:?}"),
            },
            changed = goal.changed(), if settled_by.is_none() => changed.unwrap(),
            () = sleep(Duration::from_millis(100)), if settled_by.is_some() => {}
        }
    }
    // Whatever is repeated late would come about now.
    while let Ok(Some(event)) = timeout(Duration::from_millis(300), room.next()).await {
        if let ChannelEvent::Publication(publication) = event {
            seen.take(number(&publication), &mut findings);
        }
    }
    findings
}

fn number(publication: &Publication) -> Number {
    match &publication.data {
        Payload::Json(json) => serde_json::from_str(json.get()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// What has arrived of each publisher.
#[derive(Debug, Default)]
struct Seen {
    last: HashMap<usize, u64>,
    /// Passed over, so far.
    skipped: BTreeSet<Number>,
}

impl Seen {
    fn take(&mut self, (publisher, number): Number, findings: &mut Findings) {
        findings.received += 1;
        let last = self.last.entry(publisher).or_default();
        if number > *last {
            self.skipped.extend((*last + 1..number).map(|skipped| (publisher, skipped)));
            *last = number;
        } else if self.skipped.remove(&(publisher, number)) {
            findings.reordered += 1;
        } else {
            findings.repeated += 1;
        }
    }

    /// How many of the publisher's first `count` have not arrived.
    fn missing(&self, publisher: usize, count: u64) -> u64 {
        let last = self.last.get(&publisher).copied().unwrap_or(0);
        let skipped = self.skipped.range((publisher, 0)..(publisher + 1, 0)).count() as u64;
        count.saturating_sub(last) + skipped
    }
}
