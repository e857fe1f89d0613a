//! Many sessions with a node in virtual time: one that falls silent is left within two and a half seconds, and one that is
//! merely slow is not stormed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use skywave_client_session::{
    Backoff, ChannelEvent, ConnectionId, Dialed, Full, Output, Publish, Reader, RequestError, RouteOptions,
    Session, SessionOptions, Surroundings, Ticket, Time, Tokens, TrafficOptions, TransportChoice,
    TransportKind,
};
use skywave_protocol::{Channel, Encoding, Json, Text, frame::Network};
use std::{collections::VecDeque, time::Duration};

const CLIENTS: usize = 2_000;
const STEP: Duration = Duration::from_millis(20);
/// What a handshake costs a node, in requests.
const HANDSHAKE: f64 = 50.0;
/// What a node does in a second when it is well: a third of it is asked for.
const WELL: f64 = 12_000.0;
const INTERVAL: Duration = Duration::from_secs(10);

struct Nobody;

impl Reader for Nobody {
    fn offer(&mut self, _: ChannelEvent) -> Result<(), Full> {
        Ok(())
    }

    fn end(self, _: Option<u16>, _: &RequestError) {}
}

struct Client {
    session: Session<Nobody>,
    published: u64,
    /// When it went on elsewhere.
    moved_at: Option<Time>,
}

/// What a node has to do for a client, in its order.
enum Job {
    Answer(usize, ConnectionId, Value),
    Handshake(usize, ConnectionId),
}

struct World {
    now: Time,
    clients: Vec<Client>,
    jobs: VecDeque<Job>,
    /// What the node does in a second; 0: it is silent, and another one has its clients' handshakes.
    rate: f64,
    budget: f64,
    handshakes: usize,
}

impl World {
    /// All clients are connected, and nobody has asked for anything.
    fn new(urls: &[&str]) -> Self {
        let now = Time::from_begin(Duration::from_secs(1_000));
        let clients = (0..CLIENTS).map(|number| client(urls, number as u64)).collect();
        let mut world = Self { now, clients, jobs: VecDeque::new(), rate: WELL, budget: 0.0, handshakes: 0 };
        for number in 0..CLIENTS {
            world.clients[number].session.begin(now);
            world.look(number);
        }
        world.rate = f64::INFINITY;
        world.serve();
        world.rate = WELL;
        world.handshakes = 0;
        world
    }

    /// Lets time pass, in which each client publishes twice a second, if clients do.
    fn pass(&mut self, span: Duration, publishes: bool) {
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + STEP;
            let step = self.now.since(Time::BEGIN).as_millis() / STEP.as_millis();
            for number in 0..CLIENTS {
                if publishes && (step + number as u128).is_multiple_of(25) {
                    self.publish(number);
                }
                let session = &mut self.clients[number].session;
                if session.deadline().is_some_and(|at| at <= self.now) {
                    session.tick(self.now);
                }
                self.look(number);
            }
            self.serve();
        }
    }

    fn publish(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.published += 1;
        let publish = Publish {
            ticket: Ticket(client.published),
            channel: Channel::new("chat:1").unwrap(),
            data: Json::of(&1).unwrap().into(),
            key: Text::new(client.published.to_string()).unwrap(),
        };
        client.session.traffic().publish(publish, self.now);
    }

    /// Takes to the node what a client does.
    fn look(&mut self, number: usize) {
        while let Some(output) = self.clients[number].session.poll_output() {
            match output {
                Output::Dial(dial) => {
                    self.handshakes += 1;
                    self.jobs.push_back(Job::Handshake(number, dial.connection));
                }
                Output::Send { connection, frame, .. } => {
                    let frame: Value = serde_json::from_slice(&frame.bare()).unwrap();
                    self.jobs.push_back(Job::Answer(number, connection, frame));
                }
                Output::Carry(Some(_)) => self.clients[number].moved_at = Some(self.now),
                _ => {}
            }
        }
    }

    /// The node does what it can do in a step.
    fn serve(&mut self) {
        let share = self.rate * STEP.as_secs_f64();
        self.budget = (self.budget + share).min(share);
        while self.rate == 0.0 || self.budget > 0.0 {
            match self.jobs.pop_front() {
                Some(Job::Answer(number, connection, frame)) => self.answer(number, connection, &frame),
                Some(Job::Handshake(number, connection)) => {
                    self.budget -= HANDSHAKE;
                    let (kind, encoding, took) = (TransportKind::WebSocket, Encoding::Json, Some(STEP));
                    let dialed = Dialed { index: 0, kind, encoding, took, failed: Vec::new(), token: None };
                    self.clients[number].session.dialed(connection, Ok(dialed), self.now);
                    self.look(number);
                }
                None => break,
            }
        }
    }

    fn answer(&mut self, number: usize, connection: ConnectionId, frame: &Value) {
        let (name, body) = frame.as_object().unwrap().iter().next().unwrap();
        let is_silent = self.rate == 0.0 && connection == ConnectionId(1);
        self.budget -= 1.0;
        let (interval, limits) = (
            u64::try_from(INTERVAL.as_millis()).unwrap(),
            json!({ "frame_bytes": 65_536,
            "channels_per_session": 0, "requests_per_second": 0, "publishes_per_second": 0 }),
        );
        let id = &body["id"];
        let answer = match name.as_str() {
            _ if is_silent => return,
            "connect" => {
                json!({ "connected": { "id": id, "session": "s", "resume": "r", "node": "n", "region": "eu",
                "resumed": false, "regions": [], "limits": limits,
                "heartbeat": { "interval_ms": interval, "timeout_ms": 4_000 } } })
            }
            "publish" => {
                json!({ "published": { "id": id, "channel": "chat:1", "origin": "eu", "epoch": "e", "offset": 1 } })
            }
            "unsubscribe" => {
                json!({ "error": { "id": id, "code": 104, "reason": "not_subscribed", "message": "no", "transient": false } })
            }
            _ => return,
        };
        let answer = serde_json::to_vec(&answer).unwrap();
        self.clients[number].session.received(connection, &answer, None, self.now);
        self.look(number);
    }

    /// How long after `begin` clients went on, 99 of 100 of them.
    fn moved_within(&self, begin: Time) -> Duration {
        let moved = self.clients.iter().map(|client| client.moved_at.expect("it has not moved").since(begin));
        let mut took: Vec<Duration> = moved.collect();
        took.sort();
        took[CLIENTS * 99 / 100]
    }
}

fn client(urls: &[&str], seed: u64) -> Client {
    let backoff = Backoff::default();
    let options = SessionOptions {
        route: RouteOptions {
            urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
            transport: TransportChoice::Auto,
            head_start: Duration::from_millis(250),
        },
        traffic: TrafficOptions { backoff, publish_queue: 100_000 },
        connect_timeout: Duration::from_secs(5),
        tokens: Tokens::None,
        client: None,
        network: Network::default(),
    };
    // Knuth's multiplicative congruence: what a run shows, each run shows.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let chance = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let surroundings = Surroundings {
        chance: Box::new(chance),
        today: Box::new(|| Duration::ZERO),
        permits: Box::new(|_| true),
    };
    Client { session: Session::new(options, surroundings), published: 0, moved_at: None }
}

#[test]
fn clients_that_publish_go_on_within_two_and_a_half_seconds_of_their_hosts_silence() {
    let mut world = World::new(&["https://a.example", "https://b.example"]);
    world.pass(Duration::from_secs(3), true);
    world.clients.iter_mut().for_each(|client| client.moved_at = None);
    let begin = world.now;
    world.rate = 0.0;
    world.pass(Duration::from_secs(4), true);
    let took = world.moved_within(begin);
    println!("p99: {took:?}");
    assert!(took <= Duration::from_millis(2_500), "{took:?}");
}

#[test]
fn clients_that_listen_go_on_soon_after_the_beat_that_they_missed() {
    let mut world = World::new(&["https://a.example", "https://b.example"]);
    world.clients.iter_mut().for_each(|client| client.moved_at = None);
    let begin = world.now;
    world.rate = 0.0;
    world.pass(INTERVAL + Duration::from_secs(3), false);
    let took = world.moved_within(begin);
    println!("p99: {took:?}");
    assert!(took <= INTERVAL + Duration::from_millis(1_850), "{took:?}");
}

#[test]
fn a_node_that_is_slowed_to_a_tenth_has_at_most_a_tenth_more_handshakes() {
    let mut world = World::new(&["https://a.example"]);
    world.pass(Duration::from_secs(3), true);
    world.rate = WELL / 10.0;
    world.pass(Duration::from_secs(30), true);
    println!("{} more handshakes of {CLIENTS} clients", world.handshakes);
    assert!(world.handshakes <= CLIENTS / 10, "{}", world.handshakes);
}
