//! A node in virtual time: what takes it hours takes these tests moments, and goes the same way again by the same seed.
//!
//! Its runtime has no driver for sockets: whatever opened one would panic.

use crate::{
    peer::{channel, connect, connect_to, id},
    pipe,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use skywave::{
    auth::mint::{Claims, Minter},
    config::{Config, Secret},
    server::Server,
};
use skywave_client::SubscribeOptions;
use skywave_protocol::{
    ClientFrame, CloseCode, Encoding, Json, ServerFrame,
    frame::{Connect, HistoryRequest, Network, Pong, Publish, Unsubscribe},
};
use skywave_testing::{
    machine::{Cables, Machine},
    node::{self, HMAC_SECRET},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, timeout, timeout_at};

const MOMENT: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const GRACE: Duration = Duration::from_secs(90);
const SETTINGS: [(&str, &str); 8] = [
    ("AUTH__ANONYMOUS", "true"),
    ("NODE__ID", "one"),
    ("AUTH__SESSION_SECRET", "a secret that is the same in each run"),
    ("AUTH__HMAC_SECRET", HMAC_SECRET),
    ("CHANNELS__CHAT__HISTORY", "100"),
    ("CHANNELS__CHAT__HISTORY_AGE", "1h"),
    ("CHANNELS__CHAT__PRESENCE", "true"),
    ("CHANNELS__CHAT__PRESENCE_GRACE", "90s"),
];

/// Runs what is to take no time.
fn run<T>(scenario: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(scenario)
}

struct World {
    server: Server,
    machine: Machine,
    begun: Instant,
    /// What each client got, and when.
    trace: Mutex<Vec<String>>,
}

impl World {
    async fn new(seed: u64) -> Arc<Self> {
        let mut config: Config = node::config(&SETTINGS);
        (config.listen.public, config.listen.plain, config.listen.admin) = (None, None, None);
        let machine = Machine::new(seed, &Cables::default());
        let server = Server::start_on(machine.host.clone(), config).await.unwrap();
        Arc::new(Self { server, machine, begun: Instant::now(), trace: Mutex::default() })
    }

    async fn guest(self: &Arc<Self>, name: &'static str, connect: Connect) -> Guest {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let pipe = pipe::open(self.server.node(), Encoding::Json, address);
        let guest = Guest { world: self.clone(), name, pipe };
        guest.send(ClientFrame::Connect(connect)).await;
        guest
    }

    fn token(&self, user: &str, lifetime: Duration) -> Arc<str> {
        let claims = Claims {
            user: Some(user.to_owned()),
            channels: Vec::new(),
            info: None,
            audience: None,
            issuer: None,
            lifetime,
        };
        let minter = Minter::from_secret(&Secret::new(HMAC_SECRET));
        minter.mint(&claims, self.machine.host.clock.now()).unwrap().into()
    }
}

/// A client that does no more than it is told to.
struct Guest {
    world: Arc<World>,
    name: &'static str,
    pipe: pipe::End,
}

impl Guest {
    async fn send(&self, frame: ClientFrame) {
        let written = Encoding::Json.encode(&frame).unwrap().into_bare();
        // Where the node has ended the session, what it said of that is to be read.
        drop(self.pipe.to_node.send(written).await);
    }

    /// What comes next, until some time.
    async fn next(&mut self, until: Instant) -> Option<ServerFrame> {
        let frame = timeout_at(until, self.pipe.from_node.recv()).await.ok()??;
        let line =
            format!("{:?} {} {}", self.world.begun.elapsed(), self.name, String::from_utf8_lossy(&frame));
        self.world.trace.lock().unwrap().push(line);
        Some(Encoding::Json.decode_server(&frame).unwrap())
    }

    /// Answers for some time whether it is there; what else came, and when.
    async fn stay(&mut self, time: Duration) -> Vec<(Duration, ServerFrame)> {
        let (until, mut came) = (Instant::now() + time, Vec::new());
        while let Some(frame) = self.next(until).await {
            match frame {
                ServerFrame::Ping(ping) => self.send(ClientFrame::Pong(Pong { seq: ping.seq })).await,
                frame => came.push((self.world.begun.elapsed(), frame)),
            }
        }
        came
    }

    /// Hears until the session is over, and answers nothing; how it ends, and when.
    async fn fall_silent(mut self) -> (Duration, u16) {
        let until = Instant::now() + HOUR;
        loop {
            match self.next(until).await {
                Some(ServerFrame::Disconnect(end)) => return (self.world.begun.elapsed(), end.code),
                Some(_) => {}
                None => panic!("{} is not missed", self.name),
            }
        }
    }

    /// Asks until the node reads no more, since the answers wait.
    async fn ask_until_held(&self) {
        for number in 2.. {
            let request = Unsubscribe { id: id(number), channel: channel("chat:1") };
            if timeout(MOMENT, self.send(ClientFrame::Unsubscribe(request))).await.is_err() {
                return;
            }
        }
    }

    async fn publish(&self, number: u32) {
        let data = Json::parse(number.to_string()).unwrap().into();
        let publish = Publish { id: id(number), channel: channel("chat:1"), data, key: None };
        self.send(ClientFrame::Publish(publish)).await;
    }
}

fn watching() -> Connect {
    connect_to([("chat:1", SubscribeOptions { presence: true, ..SubscribeOptions::default() })])
}

/// A day of a node: one who stays, one who talks at odd times, one whose token ends, and one who falls silent.
async fn day(seed: u64) -> Vec<String> {
    let world = World::new(seed).await;
    let stays = async {
        let came = world.guest("stays", watching()).await.stay(24 * HOUR).await;
        assert!(came.iter().any(|(_, frame)| matches!(frame, ServerFrame::Drain(_))), "asked to come again");
    };
    let talks = async {
        let mut times = SmallRng::seed_from_u64(seed);
        let mut guest = world.guest("talks", connect()).await;
        for number in 2..200 {
            guest.stay(MINUTE.mul_f64(times.random_range(0.0..14.0))).await;
            guest.publish(number).await;
        }
    };
    let expires = async {
        let token = Some(world.token("alice", 8 * HOUR));
        let mut guest = world.guest("expires", Connect { token, ..watching() }).await;
        let came = guest.stay(24 * HOUR).await;
        let (at, ServerFrame::Disconnect(end)) = came.last().unwrap() else { panic!("{came:?}") };
        assert_eq!((at.as_secs(), end.code), (8 * HOUR.as_secs(), CloseCode::TokenExpired.code()));
    };
    let falls_silent = async {
        let mut guest = world.guest("falls silent", watching()).await;
        guest.stay(3 * HOUR).await;
        guest.fall_silent().await
    };
    tokio::join!(stays, talks, expires, falls_silent);
    std::mem::take(&mut *world.trace.lock().unwrap())
}

#[test]
fn a_day_goes_the_same_way_again_by_the_same_seed() {
    // Each in a thread of its own: nothing that one has may be in the way of another.
    let day_of = |seed| std::thread::spawn(move || run(day(seed)));
    let [one, again, another] = [1, 1, 2].map(day_of).map(|day| day.join().unwrap());
    assert!(one.len() > 1_000, "{one:#?}");
    let differ = one.iter().zip(&again).find(|(one, again)| one != again);
    assert_eq!((differ, one.len()), (None, again.len()));
    assert_ne!(one, another);
}

#[test]
fn who_falls_silent_is_missed_and_is_present_until_the_grace_is_over() {
    run(async {
        let world = World::new(1).await;
        let mut watcher = world.guest("watcher", watching()).await;
        let silent = async {
            let mut silent = world.guest("silent", watching()).await;
            silent.stay(2 * HOUR).await;
            silent.fall_silent().await
        };
        let (came, (missed_at, code)) = tokio::join!(watcher.stay(4 * HOUR), silent);
        assert_eq!(code, CloseCode::HeartbeatTimeout.code());
        let left = came.into_iter().find_map(|(at, frame)| match frame {
            ServerFrame::PresenceChanged(change) if !change.left.is_empty() => Some(at),
            _ => None,
        });
        // Changes are told in batches.
        let told_after = left.unwrap() - missed_at;
        assert!((GRACE..GRACE + 3 * MINUTE / 60).contains(&told_after), "{told_after:?}");
    });
}

#[test]
fn who_is_not_read_is_not_taken_for_dead() {
    run(async {
        let world = World::new(1).await;
        // One in the foreground would be missed after 11 s.
        let network = Some(Network { kind: None, background: Some(false) });
        let mut guest = world.guest("guest", Connect { network, ..connect() }).await;
        guest.ask_until_held().await;
        tokio::time::sleep(MINUTE / 3).await;
        guest.stay(HOUR).await;
        guest.publish(1).await;
        let came = guest.stay(MOMENT).await;
        assert!(matches!(came[..], [(_, ServerFrame::Published(_))]), "{came:?}");
    });
}

#[test]
fn who_takes_an_answer_now_and_then_and_asks_for_more_is_a_slow_consumer() {
    run(async {
        let world = World::new(1).await;
        let mut guest = world.guest("guest", connect()).await;
        let closed = &world.server.node().metrics.sessions_closed;
        let slow = closed.with_label_values(&["3003"]);
        while slow.get() == 0 {
            assert!(world.begun.elapsed() < MINUTE * 5, "it is held for ever");
            guest.ask_until_held().await;
            tokio::time::sleep(MINUTE / 3).await;
            guest.next(Instant::now() + MOMENT).await;
        }
        assert!(world.begun.elapsed() > MINUTE / 2);
    });
}

#[test]
fn a_session_ends_with_its_token_when_the_date_jumps_past_it() {
    run(async {
        let world = World::new(1).await;
        let token = Some(world.token("alice", 8 * HOUR));
        let mut guest = world.guest("guest", Connect { token, ..connect() }).await;
        let is_over = |came: &[(Duration, ServerFrame)]| matches!(came.last(), Some((_, ServerFrame::Disconnect(end))) if end.code == CloseCode::TokenExpired.code());
        assert!(!is_over(&guest.stay(HOUR).await));
        world.machine.set_date(world.machine.host.clock.now() + 8 * HOUR);
        // It looks at the date whenever it is awake, and at the latest after half a minute.
        assert!(is_over(&guest.stay(MINUTE).await));
    });
}

#[test]
fn history_is_kept_for_its_time() {
    run(async {
        let world = World::new(1).await;
        let mut guest = world.guest("guest", connect()).await;
        guest.publish(2).await;
        guest.stay(HOUR / 2).await;
        guest.publish(3).await;
        for (number, kept) in [(4, 2), (5, 1), (6, 0)] {
            let channel = channel("chat:1");
            let request = HistoryRequest { id: id(number), channel, limit: 10, after: None, before: None };
            guest.send(ClientFrame::History(request)).await;
            let came = guest.stay(HOUR * 2 / 3).await;
            let found = came.iter().find_map(|(_, frame)| match frame {
                ServerFrame::History(history) => Some(history.publications.len()),
                _ => None,
            });
            assert_eq!(found, Some(kept), "{number}");
        }
    });
}
