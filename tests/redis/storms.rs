//! Clients behind paths that are cut, frozen, slow and broken in the middle of a frame, of two nodes that share a
//! Redis.
//!
//! `SKYWAVE_STORM_SEED` says which storms there are, and `SKYWAVE_STORM_BLOWS` how many blows each client gets.

use crate::nodes::config_with;
use futures_util::{StreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use skywave::{
    auth::mint::{Claims, Minter},
    config::{Config, Secret},
    server::{Server, StartError},
};
use skywave_client::{
    Backoff, CertificateCheck, ChannelEvent, Client, ClientOptions, HistoryRange, Json, Payload,
    SubscribeOptions, Subscription, TokenSource, TransportChoice, TransportKind,
};
use skywave_protocol::{
    Position, Text,
    frame::{Network, Published},
};
use skywave_testing::{Port, RedisServer, Relay, Weather, environment, eventually, node, soon};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const CHANNELS: [&str; 2] = ["chat:1", "chat:2"];
const CLIENTS: [TransportChoice; 4] = [
    TransportChoice::WebTransport,
    TransportChoice::WebSocket,
    TransportChoice::Auto,
    TransportChoice::WebSocket,
];
/// What tokens are signed with.
const TOKEN_SECRET: &str = "a secret of these storms, long enough";
/// A subscription's queue of every other client, which reads slowly.
const SMALL_QUEUE: usize = 32;
/// Publishes of one client on one channel that wait for their answer at once.
const IN_FLIGHT: usize = 3;
/// How long after the last blow everything must have been answered and have arrived.
const SETTLING: Duration = Duration::from_secs(40);

/// What is published: by whom, and which one of that publisher's on that channel.
type Number = (usize, u64);
/// A publication as somebody got it.
type Got = (u64, Number);
/// How many there are on each channel.
type Counts = HashMap<&'static str, u64>;

#[tokio::test(flavor = "multi_thread")]
async fn storms_lose_repeat_and_reorder_nothing_and_every_publish_is_answered_with_the_truth() {
    weather(Trouble::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_in_which_nodes_die_drain_and_lose_redis_lose_repeat_and_reorder_nothing() {
    weather(Trouble::OfNodes).await;
}

async fn weather(trouble: Trouble) {
    let seed = environment::number("SKYWAVE_STORM_SEED").unwrap_or(1);
    let blows = environment::number("SKYWAVE_STORM_BLOWS").unwrap_or(12);
    let redis = RedisServer::start().await;
    let hosts = [Host::start(&redis).await, Host::start(&redis).await];
    let ports = hosts.each_ref().map(|host| host.port.number());
    let witness = connect(ports.map(|port| format!("https://127.0.0.1:{port}")), CLIENTS[0], 1024).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (goal, goals) = watch::channel(None);
    let (mut readers, mut publishers, mut storms) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let mut askers = JoinSet::new();
    let mut clients = Vec::new();
    for (who, choice) in CLIENTS.into_iter().enumerate() {
        let paths = [Relay::tcp_and_udp(ports[0]).await, Relay::tcp_and_udp(ports[1]).await];
        let mut urls = paths.each_ref().map(|path| path.url("https"));
        urls.rotate_left(who % 2);
        let queue = if who < 2 { 1024 } else { SMALL_QUEUE };
        let client = connect(urls, choice, queue).await;
        let random =
            |part: u64| SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003) + 10 * who as u64 + part);
        for (part, channel) in (1..).zip(CHANNELS) {
            let reader = Reader::new(client.clone(), channel, random(part), queue == SMALL_QUEUE).await;
            readers.spawn(reader.read(goals.clone()));
            publishers.spawn(publish(client.clone(), who, channel, stop.clone()));
            askers.spawn(ask(client.clone(), channel, random(2 + part), stop.clone()));
        }
        storms.spawn(storm(client.clone(), paths, random(0), blows));
        clients.push(client);
    }
    let troubled = tokio::spawn(trouble.strike(hosts, SmallRng::seed_from_u64(seed), stop.clone()));
    let mut truths = Vec::new();
    for channel in CHANNELS {
        let reader = Reader::new(witness.clone(), channel, SmallRng::seed_from_u64(0), false).await;
        truths.push(tokio::spawn(reader.read(goals.clone())));
    }
    // The paths live on, in fair weather.
    let paths = storms.join_all().await;
    stop.store(true, Ordering::Release);
    let hosts = troubled.await.unwrap();
    let answers =
        timeout(SETTLING, publishers.join_all()).await.unwrap_or_else(|_| panic!("seed {seed}: no answers"));
    let asked = timeout(SETTLING, askers.join_all()).await;
    asked.unwrap_or_else(|_| panic!("seed {seed}: a question without an answer"));
    let mut counts = Counts::new();
    for (_, channel, published) in &answers {
        *counts.entry(channel).or_default() += published.len() as u64;
    }
    println!("storm {seed}: {counts:?}");
    goal.send_replace(Some(counts));
    // Whoever has read all stays where it is.
    let mut log = HashMap::new();
    for truth in truths {
        let truth = truth.await.unwrap();
        let offsets = truth.got.iter().map(|(offset, _)| *offset);
        assert!(offsets.eq(1..=truth.got.len() as u64), "seed {seed}: {}: {:?}", truth.channel, truth.got);
        log.insert(truth.channel, truth);
    }
    for (who, channel, published) in answers {
        for (number, place) in (1..).zip(published) {
            let there = log[channel].got.get(place.offset as usize - 1);
            assert_eq!(there, Some(&(place.offset, (who, number))), "seed {seed}: {channel}");
        }
    }
    let readers = readers.join_all().await;
    for Reader { channel, got, .. } in &readers {
        assert_eq!(*got, log[channel].got, "seed {seed}: {channel}");
    }
    for client in &clients {
        eventually("all are present", async || {
            let there = client.presence(CHANNELS[0]).await;
            there.is_ok_and(|there| there.count == 1 + CLIENTS.len() as u64)
        })
        .await;
    }
    drop((paths, hosts));
}

/// A node that comes back where it was, and its path to Redis.
struct Host {
    process: Option<Process>,
    port: Port,
    config: Config,
    path: Relay,
}

/// A node and all that runs for it: dropped, it ends at once, without a word to anybody.
struct Process {
    runtime: Ends,
    server: Server,
}

/// Ends all that runs on it, and waits for nothing: where a path broke in the middle of a handshake, QUIC may keep the
/// port for minutes after the node.
struct Ends(Option<Runtime>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Process {
    async fn start(config: &Config) -> Result<Self, StartError> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let starting = runtime.spawn(Server::start(config.clone()));
        let runtime = Ends(Some(runtime));
        Ok(Self { server: starting.await.unwrap()?, runtime })
    }

    async fn drain(self) {
        let Self { runtime, server } = self;
        let draining = runtime.0.as_ref().unwrap().spawn(server.drain());
        draining.await.unwrap();
    }
}

impl Host {
    async fn start(redis: &RedisServer) -> Self {
        let path = Relay::tcp(redis.port()).await;
        let url = path.url("redis");
        let port = Port::free();
        let public = format!("127.0.0.1:{}", port.number());
        let settings = [
            ("CHANNELS__CHAT__PRESENCE", "true"),
            ("HEARTBEAT__FOREGROUND_MAX", "1s"),
            ("AUTH__HMAC_SECRET", TOKEN_SECRET),
            ("LISTEN__PUBLIC", &public),
        ];
        let config = config_with(&url, &settings);
        let process = Process::start(&config).await.unwrap();
        Self { process: Some(process), port, config, path }
    }

    /// Takes its port again, which the one before has to let go of.
    async fn come_back(&mut self) {
        let begin = Instant::now();
        while self.process.is_none() {
            match Process::start(&self.config).await {
                Ok(process) => self.process = Some(process),
                Err(error) => assert!(begin.elapsed() < SETTLING, "no node: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What happens to nodes while their clients' paths break.
enum Trouble {
    None,
    OfNodes,
}

impl Trouble {
    async fn strike(self, mut hosts: [Host; 2], mut random: SmallRng, stop: Arc<AtomicBool>) -> [Host; 2] {
        while matches!(self, Self::OfNodes) && !stop.load(Ordering::Acquire) {
            let host = &mut hosts[random.random_range(0..2)];
            match random.random_range(0..4) {
                0 => {
                    host.path.set(|weather| weather.tcp = false);
                    sleep(Duration::from_millis(random.random_range(500..4000))).await;
                    host.path.set(|weather| weather.tcp = true);
                }
                1 => host.path.reset(),
                kind => {
                    match host.process.take() {
                        Some(process) if kind == 2 => process.drain().await,
                        killed => drop(killed),
                    }
                    sleep(Duration::from_millis(random.random_range(0..500))).await;
                    host.come_back().await;
                }
            }
            sleep(Duration::from_millis(random.random_range(0..1000))).await;
        }
        hosts
    }
}

async fn connect(urls: [String; 2], transport: TransportChoice, subscription_queue: usize) -> Client {
    let options = ClientOptions {
        urls: urls.to_vec(),
        token: TokenSource::fixed(token()),
        transport,
        subscription_queue,
        certificate: CertificateCheck::Insecure,
        // Somebody looks: a path that is gone is missed after a second or two.
        network: Network { background: Some(false), ..Network::default() },
        connect_timeout: Duration::from_secs(2),
        backoff: Backoff { first: Duration::from_millis(10), max: Duration::from_millis(200) },
        ..ClientOptions::new("")
    };
    soon(Client::connect(options)).await.unwrap()
}

/// Publishes numbers, some at once, until it is told to stop; gives where each of them stands.
async fn publish(
    client: Client,
    who: usize,
    channel: &'static str,
    stop: Arc<AtomicBool>,
) -> (usize, &'static str, Vec<Published>) {
    let numbers = stream::iter(1u64..).take_while(|_| {
        let stop = stop.clone();
        async move {
            sleep(Duration::from_millis(15)).await;
            !stop.load(Ordering::Acquire)
        }
    });
    let publishes = numbers.map(|number| {
        let data = Json::of(&(who, number)).unwrap();
        client.publish(channel, data)
    });
    let answers = publishes.buffered(IN_FLIGHT).map(|answer| answer.expect("a publish failed for good"));
    (who, channel, answers.collect().await)
}

/// Asks what is retained and who is there until it is told to stop; each answer is right as far as it goes.
async fn ask(client: Client, channel: &'static str, mut random: SmallRng, stop: Arc<AtomicBool>) {
    let mut after = None;
    while !stop.load(Ordering::Acquire) {
        sleep(Duration::from_millis(random.random_range(0..100))).await;
        let range = HistoryRange { limit: random.random_range(1..100), after: after.clone(), before: None };
        match client.history(channel, range).await {
            Ok(read) => {
                let offsets: Vec<u64> = read.publications.iter().map(|one| one.offset).collect();
                assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{channel}: {offsets:?}");
                let after_offset =
                    after.as_ref().map(|after: &Position| after.iter().map(|(_, at)| at.offset).sum::<u64>());
                if let (Some(after), Some(first)) = (after_offset, offsets.first()) {
                    assert_eq!(*first, after + 1, "{channel}");
                }
                after = read.publications.first().filter(|_| random.random_bool(0.5)).map(|one| {
                    let mut position = Position::default();
                    position.advance(&one.origin, &one.epoch, one.offset);
                    position
                });
            }
            Err(error) => assert!(error.transient, "{error:?}"),
        }
        match client.presence(channel).await {
            Ok(there) => {
                let sessions: HashSet<_> = there.members.iter().map(|one| &one.session).collect();
                assert_eq!(sessions.len() as u64, there.count, "{channel}: {:?}", there.members);
            }
            Err(error) => assert!(error.transient, "{error:?}"),
        }
    }
}

/// A newer token of the one user.
fn token() -> String {
    let claims = Claims {
        user: Some("storm".to_owned()),
        channels: Vec::new(),
        info: None,
        audience: None,
        issuer: None,
        lifetime: Duration::from_secs(600),
    };
    Minter::from_secret(&Secret::new(TOKEN_SECRET)).mint(&claims, SystemTime::now()).unwrap()
}

/// Breaks a client's paths again and again, and leaves them whole.
async fn storm(client: Client, paths: [Relay; 2], mut random: SmallRng, blows: u64) -> [Relay; 2] {
    let mut doings = JoinSet::new();
    for _ in 0..blows {
        sleep(Duration::from_millis(random.random_range(0..150))).await;
        let path = &paths[random.random_range(0..2)];
        match random.random_range(0..13) {
            0 | 1 => paths.iter().for_each(Relay::reset),
            2 => path.set(|weather| weather.breaks = 0.05),
            3 => path.cut(),
            4 => path.set(|weather| weather.udp_replies = false),
            5 => path.set(|weather| (weather.jitter, weather.loss) = (Duration::from_millis(40), 0.05)),
            6 => {
                if let Some(connected) = client.connected() {
                    // It may be cut in the middle.
                    let _ = client.switch(node::another(connected.transport)).await;
                }
            }
            7 => client.cut().await.unwrap(),
            // Meanwhile the next blow falls.
            9 => {
                let client = client.clone();
                doings.spawn(async move {
                    for kind in [TransportKind::WebSocket, TransportKind::WebTransport] {
                        let _ = client.switch(kind).await;
                    }
                });
            }
            10 => {
                for _ in 0..2 {
                    let client = client.clone();
                    doings.spawn(async move {
                        let brought = client.refresh(token()).await;
                        assert!(brought.as_ref().err().is_none_or(|error| error.transient), "{brought:?}");
                    });
                }
            }
            11 => {
                let kind = Text::new(["wifi", "cellular"][random.random_range(0..2)]).ok();
                client.network(Network { kind, background: Some(false) }).await.unwrap();
            }
            // About as long as a node may be silent before another one is sought.
            8 => {
                paths.iter().for_each(Relay::cut);
                sleep(Duration::from_millis(random.random_range(1_500..3_500))).await;
                paths.iter().for_each(Relay::heal);
            }
            _ => paths.iter().for_each(|path| path.set(|weather| *weather = Weather::default())),
        }
    }
    paths.iter().for_each(|path| path.set(|weather| *weather = Weather::default()));
    doings.join_all().await;
    paths
}

/// A channel that is read, left and come back to.
struct Reader {
    client: Client,
    channel: &'static str,
    random: SmallRng,
    is_slow: bool,
    room: Option<Subscription>,
    position: Position,
    got: Vec<Got>,
}

impl Reader {
    async fn new(client: Client, channel: &'static str, random: SmallRng, is_slow: bool) -> Self {
        // From the beginning, whatever was published meanwhile.
        let position = Position::default();
        let mut reader = Self { client, channel, random, is_slow, room: None, position, got: Vec::new() };
        reader.come().await;
        reader
    }

    /// Reads until it has as many as are told.
    async fn read(mut self, mut goal: watch::Receiver<Option<Counts>>) -> Self {
        let channel = self.channel;
        loop {
            let count = goal.borrow_and_update().as_ref().map(|counts| counts[channel]);
            if count.is_some_and(|count| self.got.len() as u64 >= count) {
                break;
            }
            // What is left is read as fast as it comes.
            self.is_slow &= count.is_none();
            tokio::select! {
                step = timeout(SETTLING, self.step()) => {
                    step.unwrap_or_else(|_| panic!("{channel}: {} of {count:?}", self.got.len()));
                }
                told = goal.changed() => told.unwrap(),
            }
        }
        // What is repeated late would come about now.
        while timeout(Duration::from_millis(300), self.step()).await.is_ok() {}
        self
    }

    async fn step(&mut self) {
        let Some(room) = &mut self.room else { return self.come().await };
        match room.next().await {
            Some(ChannelEvent::Publication(publication)) => {
                let Payload::Json(json) = &publication.data else { panic!("{publication:?}") };
                self.got.push((publication.offset, serde_json::from_str(json.get()).unwrap()));
                self.position.advance(&publication.origin, &publication.epoch, publication.offset);
            }
            Some(ChannelEvent::Subscribed(_) | ChannelEvent::PresenceChanged(_)) => {}
            other => panic!("{}: {other:?}", self.channel),
        }
        if self.random.random_bool(0.02) {
            self.room = None;
        }
        if self.is_slow && self.random.random_bool(0.2) {
            sleep(Duration::from_millis(self.random.random_range(0..30))).await;
        }
    }

    /// Subscribes, to go on from where it is.
    async fn come(&mut self) {
        while self.room.is_none() {
            let position = Some(self.position.clone());
            let options = SubscribeOptions { position, presence: true, ..SubscribeOptions::default() };
            match self.client.subscribe(self.channel, options).await {
                Ok(room) => self.room = Some(room),
                Err(error) => assert!(error.transient, "{error:?}"),
            }
        }
    }
}
