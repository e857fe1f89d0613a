//! The scripted sessions of `protocol/vectors/sessions/`, which every client runs: what happens when, and what it does then.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod script;

use script::{Script, Step};
use serde_json::{Value, json};
use skywave_client_session::{
    Backoff, ChannelEvent, ConnectError, ConnectionId, Dial, DialFailure, Dialed, Full, Output, Publish,
    Reader, RequestError, RouteOptions, Session, SessionOptions, SubscriptionId, Surroundings, Ticket, Time,
    TokenError, Tokens, TrafficOptions, TransportChoice, TransportKind,
};
use skywave_protocol::{
    Channel, ClientFrame, Encoding, Json, Payload, RequestId,
    frame::{Call, HistoryRequest, Network, PresenceRequest, SubscribeOptions},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long a handshake takes.
const HANDSHAKE: Duration = Duration::from_millis(20);

/// What the readers of a session's channels were told, and how much room each of them has left.
#[derive(Default)]
struct Told {
    events: Vec<Value>,
    room: HashMap<Channel, usize>,
}

struct Listener {
    channel: Channel,
    told: Arc<Mutex<Told>>,
}

impl Listener {
    fn tell(&self, name: &str, what: Value) {
        self.told.lock().unwrap().events.push(json!({ "told": [self.channel, { name: what }] }));
    }

    /// Takes room for one more, where there is.
    fn has_room(&self) -> bool {
        let mut told = self.told.lock().unwrap();
        let Some(room) = told.room.get_mut(&self.channel) else { return true };
        let is_left = *room > 0;
        *room = room.saturating_sub(1);
        is_left
    }
}

impl Reader for Listener {
    fn offer(&mut self, event: ChannelEvent) -> Result<(), Full> {
        match event {
            ChannelEvent::Subscribed(subscribed) => self.tell("subscribed", json!(subscribed.position)),
            ChannelEvent::Event(event) => self.tell("event", value(&event.data)),
            _ if !self.has_room() => return Err(Full),
            ChannelEvent::Publication(publication) => self.tell("publication", json!(publication.offset)),
            ChannelEvent::Gap(gap) => self.tell("gap", json!(gap.offset)),
            ChannelEvent::PresenceChanged(changed) => self.tell("presence", json!(changed.count)),
            ChannelEvent::Unsubscribed { .. } => {}
        }
        Ok(())
    }

    fn end(self, _code: Option<u16>, error: &RequestError) {
        self.tell("ended", json!(error.code));
    }
}

/// A session in virtual time, and the names that a script has for its connections, requests and ids.
struct Play {
    session: Session<Listener>,
    told: Arc<Mutex<Told>>,
    now: Time,
    /// The same, for whoever asks what day it is.
    today: Arc<Mutex<Duration>>,
    /// Whether the script tells all about connections.
    is_full: bool,
    has_begun: bool,
    dialing: Option<Dial>,
    connections: HashMap<ConnectionId, String>,
    /// Of each connection the id of its `connect`.
    greetings: HashMap<ConnectionId, Value>,
    /// Those that have ended by themselves.
    ended: HashSet<ConnectionId>,
    tickets: Vec<String>,
    /// The subscriptions by their numbers, and the readers that are waited for.
    subscriptions: Vec<Channel>,
    awaited: HashSet<SubscriptionId>,
    request_timeout: Duration,
    /// What it did since the last look.
    done: Vec<(u64, Value)>,
}

impl Play {
    fn new(script: &Script) -> Self {
        let script::Options { publish_queue, request_timeout_ms, urls, token, fetches_tokens } =
            &script.options;
        let today = Arc::new(Mutex::new(script::today(script::moment(0))));
        let asked = today.clone();
        let usual = ["https://a.example".to_owned()];
        let given = if urls.is_empty() { &usual[..] } else { urls };
        let backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(20) };
        let options = SessionOptions {
            route: RouteOptions {
                urls: given.iter().map(|url| url.parse().unwrap()).collect(),
                transport: TransportChoice::Auto,
                head_start: Duration::from_millis(250),
            },
            traffic: TrafficOptions { backoff, publish_queue: *publish_queue },
            connect_timeout: Duration::from_secs(5),
            tokens: match token {
                _ if *fetches_tokens => Tokens::Fetched,
                Some(token) => Tokens::Fixed(token.as_str().into()),
                None => Tokens::None,
            },
            client: None,
            network: Network::default(),
        };
        let surroundings = Surroundings {
            chance: Box::new(|| 0.5),
            today: Box::new(move || *asked.lock().unwrap()),
            permits: Box::new(|_| true),
        };
        Self {
            session: Session::new(options, surroundings),
            told: Arc::default(),
            now: script::moment(0),
            today,
            is_full: !urls.is_empty(),
            has_begun: false,
            dialing: None,
            connections: HashMap::new(),
            greetings: HashMap::new(),
            ended: HashSet::new(),
            tickets: Vec::new(),
            subscriptions: Vec::new(),
            awaited: HashSet::new(),
            request_timeout: Duration::from_millis(*request_timeout_ms),
            done: Vec::new(),
        }
    }

    fn at(&mut self, now: Time) {
        self.now = now;
        *self.today.lock().unwrap() = script::today(now);
    }

    /// Lets time pass; each timer is on time.
    fn run_until(&mut self, at: Time) {
        let mut ticks = 0;
        while let Some(due) = self.session.deadline().filter(|due| *due <= at) {
            self.at(self.now.max(due));
            self.session.tick(self.now);
            self.look();
            ticks += 1;
            assert!(ticks < 10_000, "timers without end");
        }
        self.at(at);
    }

    fn input(&mut self, name: &str, body: &Value) {
        let now = self.now;
        match name {
            "connect" => self.session.begin(now),
            "dialed" => self.dialed(body),
            "unreached" => {
                let dial = self.dialing.take().expect("nobody is dialled");
                let failure = DialFailure { error: Arc::new(Unreached), is_transient: true };
                self.session.dialed(dial.connection, Err(ConnectError::Dial(failure)), now);
            }
            "no_token" if self.dialing.is_some() => {
                let dial = self.dialing.take().unwrap();
                let error = TokenError::Unavailable("not now".to_owned());
                self.session.dialed(dial.connection, Err(ConnectError::Token(error)), now);
            }
            "no_token" => self.session.fetched(Err(TokenError::Unavailable("not now".to_owned())), now),
            "token" => self.session.fetched(Ok(Some(body.as_str().unwrap().into())), now),
            "switch" => {
                let kind = kind(&body["to"]);
                self.session.switch(kind, now).unwrap();
            }
            "connecting" => self.connecting(body),
            "connected" => self.connected(body),
            "lost" => {
                let connection = self.connection(&body["on"]);
                self.ended.insert(connection);
                let code = body.get("code").map(parsed);
                self.session.ended(connection, code, "broken", now);
            }
            "publish" => {
                let publish = Publish {
                    ticket: self.ticket(body),
                    channel: parsed(&body["channel"]),
                    data: payload(&body["data"]),
                    key: parsed(&body["as"]),
                };
                self.session.traffic().publish(publish, now);
            }
            "history" | "presence" | "call" => {
                let (ticket, make) = (self.ticket(body), question(name, body.clone()));
                self.session.traffic().ask(ticket, make, self.request_timeout, now);
            }
            "check" => self.session.check(now),
            "woke" => self.session.woke(now),
            "received" => self.received(body),
            "subscribe" => self.subscribe(body),
            "unsubscribe" => {
                let (channel, id) = self.subscription(body);
                self.session.traffic().unsubscribe(&channel, id, now);
            }
            "room" => {
                let (channel, id) = self.subscription(body);
                let more: usize = parsed(&body["more"]);
                *self.told.lock().unwrap().room.entry(channel.clone()).or_default() += more;
                if self.awaited.remove(&id) {
                    self.session.traffic().resume(&channel, id, now);
                }
            }
            _ => panic!("`{name}` is no input"),
        }
        self.look();
        self.run_until(self.now);
    }

    /// A connection is there, and the node has got `connect`.
    fn connecting(&mut self, body: &Value) {
        if self.dialing.is_some() {
        } else if self.session.live().is_some() {
            self.session.switch(TransportKind::WebTransport, self.now).unwrap();
        } else if self.has_begun {
            self.session.check(self.now);
            self.session.tick(self.now);
        } else {
            self.session.begin(self.now);
        }
        self.look();
        self.dialed(body);
    }

    /// A handshake has completed.
    fn dialed(&mut self, body: &Value) {
        let Dial { connection, targets, .. } = self.dialing.take().expect("nobody is dialled");
        let index = |host: &Value| {
            let is_it = |host: &str| targets.iter().position(|target| target.url.host() == host);
            is_it(host.as_str().unwrap()).expect("nobody is tried there")
        };
        let failed = body.get("failed").and_then(Value::as_array).into_iter().flatten().map(index).collect();
        // Over UDP a path is nudged as well, which is no matter of scripts that tell nothing of connections.
        let usual = if self.is_full { TransportKind::WebTransport } else { TransportKind::WebSocket };
        self.connections.insert(connection, body["on"].as_str().unwrap().to_owned());
        let dialed = Dialed {
            index: body.get("at").map_or(0, index),
            kind: body.get("over").map_or(usual, kind),
            encoding: Encoding::Json,
            took: Some(HANDSHAKE),
            failed,
            token: body.get("token").map(|token| token.as_str().unwrap().into()),
        };
        self.session.dialed(connection, Ok(dialed), self.now);
        self.look();
    }

    fn connected(&mut self, body: &Value) {
        if !self.connections.values().any(|name| *name == body["on"]) {
            let before = self.done.len();
            self.connecting(body);
            // What it asked for is told where `connecting` is.
            self.done.truncate(before);
        }
        let connection = self.connection(&body["on"]);
        let connected = json!({ "connected": script::connected(body, &self.greetings[&connection]) });
        self.session.received(connection, &serde_json::to_vec(&connected).unwrap(), None, self.now);
    }

    fn subscribe(&mut self, body: &Value) {
        let channel: Channel = parsed(&body["channel"]);
        let id = SubscriptionId(self.subscriptions.len() as u64);
        self.subscriptions.push(channel.clone());
        if let Some(room) = body.get("room") {
            self.told.lock().unwrap().room.insert(channel.clone(), parsed(room));
        }
        let options = SubscribeOptions {
            position: body.get("position").map(parsed),
            history: body.get("history").map(parsed),
            presence: false,
        };
        let reader = Listener { channel: channel.clone(), told: self.told.clone() };
        // What a reader is told says it.
        self.tickets.push(String::new());
        let waiter = Ticket(self.tickets.len() as u64 - 1);
        self.session.traffic().subscribe(channel, id, options, reader, waiter, self.now);
    }

    /// The last subscription to a channel.
    fn subscription(&self, body: &Value) -> (Channel, SubscriptionId) {
        let channel: Channel = parsed(&body["channel"]);
        let number =
            self.subscriptions.iter().rposition(|one| *one == channel).expect("no such subscription");
        (channel, SubscriptionId(number as u64))
    }

    /// A frame on a connection, perhaps on the stream of a subscription.
    fn received(&mut self, body: &Value) {
        let connection = self.connection(&body[0]);
        let (name, fields) = script::entry(&body[1]);
        let mut fields = script::dated(fields.clone());
        if fields["id"] == "connect" {
            fields["id"] = self.greetings[&connection].clone();
        }
        let stream: Option<u64> = body.get(2).map(parsed);
        if let Some(subscription) = stream {
            let begin = json!({ "stream": { "channel": fields["channel"], "subscription": subscription } });
            self.session.received(connection, &serde_json::to_vec(&begin).unwrap(), stream, self.now);
        }
        let frame = serde_json::to_vec(&json!({ name: fields })).unwrap();
        self.session.received(connection, &frame, stream, self.now);
    }

    fn connection(&self, name: &Value) -> ConnectionId {
        let named = self.connections.iter().filter(|(_, one)| *one == name).map(|(id, _)| *id);
        named.max().expect("no such connection")
    }

    fn ticket(&mut self, body: &Value) -> Ticket {
        self.tickets.push(body["as"].as_str().unwrap().to_owned());
        Ticket(self.tickets.len() as u64 - 1)
    }

    fn did(&mut self, what: Value) {
        self.done.push((script::ms(self.now), what));
    }

    fn look(&mut self) {
        let events = std::mem::take(&mut self.told.lock().unwrap().events);
        for event in events {
            self.did(event);
        }
        while let Some(output) = self.session.poll_output() {
            if let Some(done) = self.told_of(output) {
                self.did(done);
            }
        }
    }

    /// What a script tells of what is to be done.
    fn told_of(&mut self, output: Output) -> Option<Value> {
        Some(match output {
            Output::Send { connection, frame, .. } => self.sent(connection, &frame.bare())?,
            Output::Dial(dial) => {
                self.has_begun = true;
                let over = |kinds: &[TransportKind]| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>();
                let to = dial
                    .targets
                    .iter()
                    .map(|one| json!({ "host": one.url.host(), "over": over(&one.plan.kinds) }));
                let done = json!({ "dial": to.collect::<Vec<_>>() });
                self.dialing = Some(dial);
                return self.is_full.then_some(done);
            }
            Output::Close { connection } => return self.closed(connection),
            Output::FetchToken => json!({ "fetch_token": {} }),
            Output::Switched(outcome) if self.is_full => json!({ "switched": outcome.is_ok() }),
            Output::End { code, .. } if self.is_full => json!({ "over": code }),
            Output::AwaitRoom { id, .. } => {
                self.awaited.insert(id);
                return None;
            }
            Output::Answer { ticket, answer } => {
                let name = &self.tickets[ticket.0 as usize];
                match answer {
                    _ if name.is_empty() => return None,
                    Ok(_) => json!({ "answered": name }),
                    Err(error) => json!({ "failed": [name, script::error(&error)] }),
                }
            }
            _ => return None,
        })
    }

    fn sent(&mut self, connection: ConnectionId, frame: &[u8]) -> Option<Value> {
        let mut frame: Value = serde_json::from_slice(frame).unwrap();
        if let Some(connect) = frame.get_mut("connect").and_then(Value::as_object_mut) {
            self.greetings.insert(connection, connect.remove("id").unwrap());
            connect.retain(|name, _| self.is_full || name == "subscriptions");
            connect.entry("subscriptions").or_insert_with(|| json!({}));
        }
        Some(json!({ "sent": [self.connections.get(&connection)?, frame] }))
    }

    /// A connection is closed, or the attempt that was to lead to it is given up.
    fn closed(&mut self, connection: ConnectionId) -> Option<Value> {
        if self.dialing.take_if(|dial| dial.connection == connection).is_some() {
            return self.is_full.then(|| json!({ "given_up": {} }));
        }
        let name = self.connections.get(&connection).filter(|_| !self.ended.contains(&connection))?.clone();
        self.ended.insert(connection);
        // One that is left for another is no news.
        (self.is_full || self.session.live().is_none()).then(|| json!({ "gone": name }))
    }
}

/// Nobody answers.
#[derive(Debug, thiserror::Error)]
#[error("nobody answers")]
struct Unreached;

fn kind(name: &Value) -> TransportKind {
    *TransportKind::ALL.iter().find(|kind| *name == kind.name()).expect("no such transport")
}

fn parsed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

fn payload(data: &Value) -> Payload {
    Json::of(data).unwrap().into()
}

fn value(payload: &Payload) -> Value {
    let Payload::Json(json) = payload else { panic!("{payload:?} is no JSON") };
    serde_json::from_str(json.get()).unwrap()
}

fn question(name: &str, body: Value) -> impl FnOnce(RequestId) -> ClientFrame {
    let name = name.to_owned();
    move |id| match &*name {
        "history" => {
            let (limit, channel) = (parsed(&body["limit"]), parsed(&body["channel"]));
            ClientFrame::History(HistoryRequest { id, channel, limit, after: None, before: None })
        }
        "presence" => ClientFrame::Presence(PresenceRequest { id, channel: parsed(&body["channel"]) }),
        _ => ClientFrame::Call(Call {
            id,
            method: parsed(&body["method"]),
            data: payload(&body["data"]),
            deadline_ms: None,
        }),
    }
}

/// Runs a script, and answers what is wrong.
fn run(script: &Script) -> Result<(), String> {
    let mut session = Play::new(script);
    let mut ids: HashMap<String, Value> = HashMap::new();
    let mut steps = script.steps.iter().peekable();
    while let Some(step) = steps.next() {
        let (Step::In(at, input), mut expected) = (step, Vec::new()) else {
            return Err(format!("{step:?} comes before any input"));
        };
        let (name, body) = script::entry(input);
        session.at(script::moment(*at));
        session.input(name, &script::with_ids(body, &ids));
        while let Some(Step::Out(at, output)) = steps.next_if(|step| matches!(step, Step::Out(..))) {
            expected.push((*at, output));
        }
        match steps.peek() {
            // Nothing happens in a sleep.
            Some(Step::In(_, next)) if script::entry(next).0 == "woke" => {}
            next => session.run_until(script::moment(next.map_or(script.end(), |next| next.at()))),
        }
        let mut done = std::mem::take(&mut session.done).into_iter();
        for (at, output) in expected {
            let Some((done_at, done)) = done.next() else {
                return Err(format!("it did not {output} at {at}"));
            };
            if done_at != at || !script::is_same(output, &done, &mut ids) {
                return Err(format!("expected {output} at {at}, and it did {done} at {done_at}"));
            }
        }
        if let Some((at, done)) = done.next() {
            return Err(format!("it did {done} at {at} as well"));
        }
    }
    Ok(())
}

#[test]
fn every_scripted_session_goes_as_written() {
    let mut wrong = Vec::new();
    for (file, script) in script::all() {
        if let Err(problem) = run(&script) {
            wrong.push(format!("{file}: {}: {problem}", script.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
