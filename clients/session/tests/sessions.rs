//! The scripted sessions of `protocol/vectors/sessions/`, which every client runs: what happens when, and what it does then.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod script;

use script::{Script, Step};
use serde_json::{Value, json};
use skywave_client_session::{
    Arrival, Backoff, ChannelEvent, ConnectionId, Full, Link, Output, Publish, Reader, RequestError,
    SubscriptionId, Ticket, Time, Traffic, TrafficOptions, Wanted,
};
use skywave_protocol::{
    Channel, ClientFrame, Encoding, Json, Payload, RequestId, ServerFrame,
    frame::{Call, Connected, HistoryRequest, PresenceRequest, Stream, SubscribeOptions},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

/// The limit on frames until a node has told its own.
const FRAME_LIMIT: u64 = 65_536;

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
struct Session {
    traffic: Traffic<Listener>,
    told: Arc<Mutex<Told>>,
    now: Time,
    connections: Vec<String>,
    tickets: Vec<String>,
    /// The subscriptions by their numbers, and the readers that are waited for.
    subscriptions: Vec<Channel>,
    awaited: HashSet<SubscriptionId>,
    /// What the `connect` asks for that is under way.
    wanted: Option<Wanted>,
    request_timeout: Duration,
    /// What it did since the last look.
    done: Vec<(u64, Value)>,
}

impl Session {
    fn new(script: &Script) -> Self {
        let options = TrafficOptions {
            backoff: Backoff { first: Duration::from_millis(200), max: Duration::from_secs(20) },
            publish_queue: script.options.publish_queue,
        };
        Self {
            traffic: Traffic::new(options, Box::new(|| 0.5)),
            told: Arc::default(),
            now: script::moment(0),
            connections: Vec::new(),
            tickets: Vec::new(),
            subscriptions: Vec::new(),
            awaited: HashSet::new(),
            wanted: None,
            request_timeout: Duration::from_millis(script.options.request_timeout_ms),
            done: Vec::new(),
        }
    }

    /// Lets time pass; each timer is on time.
    fn run_until(&mut self, at: Time) {
        let mut ticks = 0;
        while let Some(due) = self.traffic.deadline().filter(|due| *due <= at) {
            self.now = self.now.max(due);
            self.traffic.tick(self.now);
            self.look();
            ticks += 1;
            assert!(ticks < 10_000, "timers without end");
        }
        self.now = at;
    }

    fn input(&mut self, name: &str, body: &Value) {
        match name {
            "connecting" => self.connecting(body),
            "connected" => self.connected(body),
            "lost" => self.traffic.lost(self.connection(&body["on"]), self.now),
            "publish" => {
                let publish = Publish {
                    ticket: self.ticket(body),
                    channel: parsed(&body["channel"]),
                    data: payload(&body["data"]),
                    key: parsed(&body["as"]),
                };
                self.traffic.publish(publish, self.now);
            }
            "history" | "presence" | "call" => {
                let (ticket, make) = (self.ticket(body), question(name, body.clone()));
                self.traffic.ask(ticket, make, self.request_timeout, self.now);
            }
            "check" => self.traffic.check(self.now),
            "woke" => self.traffic.woke(self.now),
            "received" => self.received(body),
            "subscribe" => self.subscribe(body),
            "unsubscribe" => {
                let (channel, id) = self.subscription(body);
                self.traffic.unsubscribe(&channel, id, self.now);
            }
            "room" => {
                let (channel, id) = self.subscription(body);
                let more: usize = parsed(&body["more"]);
                *self.told.lock().unwrap().room.entry(channel.clone()).or_default() += more;
                if self.awaited.remove(&id) {
                    self.traffic.resume(&channel, id, self.now);
                }
            }
            _ => panic!("`{name}` is no input"),
        }
        self.look();
        self.run_until(self.now);
    }

    /// A connection is there, and the node has got `connect`.
    fn connecting(&mut self, body: &Value) {
        let wanted = self.traffic.wanted(FRAME_LIMIT);
        let connect = json!({ "connect": { "subscriptions": wanted.subscriptions } });
        self.done.push((script::ms(self.now), json!({ "sent": [body["on"], connect] })));
        self.wanted = Some(wanted);
    }

    fn connected(&mut self, body: &Value) {
        let connected: Connected = parsed(&script::connected(body));
        self.connections.push(body["on"].as_str().unwrap().to_owned());
        let connection = ConnectionId(self.connections.len() as u64 - 1);
        let frame_limit = connected.limits.frame_bytes;
        let before = self.live_before(connection);
        let wanted = self.wanted.take().unwrap_or_else(|| self.traffic.wanted(FRAME_LIMIT));
        let link = Link { connection, encoding: Encoding::Json, frame_limit, over_udp: false };
        self.traffic.connected(link, &connected, wanted, self.now);
        if let Some(old) = before.filter(|old| !self.traffic.needs(*old)) {
            self.traffic.lost(old, self.now);
        }
        self.traffic.catch_up(self.now);
    }

    fn live_before(&self, connection: ConnectionId) -> Option<ConnectionId> {
        connection.0.checked_sub(1).map(ConnectionId)
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
        self.traffic.subscribe(channel, id, options, reader, waiter, self.now);
    }

    /// The last subscription to a channel.
    fn subscription(&self, body: &Value) -> (Channel, SubscriptionId) {
        let channel: Channel = parsed(&body["channel"]);
        let number =
            self.subscriptions.iter().rposition(|one| *one == channel).expect("no such subscription");
        (channel, SubscriptionId(number as u64))
    }

    /// A frame on a connection, perhaps on the stream of a subscription; what comes on the one before is answers at most.
    fn received(&mut self, body: &Value) {
        let (connection, frame) = (self.connection(&body[0]), &body[1]);
        let bytes = serde_json::to_vec(frame).unwrap();
        let decoded = Encoding::Json.decode_server(&bytes).unwrap();
        let (_, fields) = script::entry(frame);
        let is_live = connection.0 as usize + 1 == self.connections.len();
        let stream: Option<u64> = body.get(2).map(parsed);
        if let Some(subscription) = stream {
            let begin = Stream { channel: parsed(&fields["channel"]), subscription };
            let arrival = Arrival { stream, bytes: 0 };
            self.traffic.channel_frame(ServerFrame::Stream(begin), arrival, self.now).unwrap();
        }
        if is_live {
            self.traffic.heard(self.now);
        }
        match decoded {
            ServerFrame::Ping(ping) => self.traffic.pinged(&ping),
            ServerFrame::Error(error) => {
                self.traffic.failed(error.id.unwrap(), error.into(), self.now);
            }
            frame @ (ServerFrame::Subscribed(_)
            | ServerFrame::Unsubscribed(_)
            | ServerFrame::Publication(_)
            | ServerFrame::Event(_)
            | ServerFrame::Gap(_)
            | ServerFrame::PresenceChanged(_)) => {
                if let Some(id) = fields.get("id") {
                    self.traffic.replied(parsed(id), self.now);
                }
                if is_live {
                    let arrival = Arrival { stream, bytes: bytes.len() };
                    self.traffic.channel_frame(frame, arrival, self.now).unwrap();
                }
            }
            answer => {
                self.traffic.answered(parsed(&fields["id"]), answer, self.now);
            }
        }
    }

    fn connection(&self, name: &Value) -> ConnectionId {
        let index = self.connections.iter().position(|one| *one == *name);
        ConnectionId(index.expect("no such connection") as u64)
    }

    fn ticket(&mut self, body: &Value) -> Ticket {
        self.tickets.push(body["as"].as_str().unwrap().to_owned());
        Ticket(self.tickets.len() as u64 - 1)
    }

    fn look(&mut self) {
        let events = std::mem::take(&mut self.told.lock().unwrap().events);
        self.done.extend(events.into_iter().map(|event| (script::ms(self.now), event)));
        while let Some(output) = self.traffic.poll_output() {
            let done = match output {
                Output::Send { connection, frame, .. } => {
                    let frame: Value = serde_json::from_slice(&frame.bare()).unwrap();
                    json!({ "sent": [self.connections[connection.0 as usize], frame] })
                }
                Output::Dead { connection } => {
                    self.traffic.lost(connection, self.now);
                    json!({ "gone": self.connections[connection.0 as usize] })
                }
                // Where to is not a matter of these scripts yet.
                Output::SeekAnother => continue,
                Output::AwaitRoom { id, .. } => {
                    self.awaited.insert(id);
                    continue;
                }
                Output::Answer { ticket, answer } => {
                    let name = &self.tickets[ticket.0 as usize];
                    if name.is_empty() {
                        continue;
                    }
                    match answer {
                        Ok(_) => json!({ "answered": name }),
                        Err(error) => json!({ "failed": [name, script::error(&error)] }),
                    }
                }
            };
            self.done.push((script::ms(self.now), done));
        }
    }
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
    let mut session = Session::new(script);
    let mut ids: HashMap<String, Value> = HashMap::new();
    let mut steps = script.steps.iter().peekable();
    while let Some(step) = steps.next() {
        let (Step::In(at, input), mut expected) = (step, Vec::new()) else {
            return Err(format!("{step:?} comes before any input"));
        };
        let (name, body) = script::entry(input);
        session.now = script::moment(*at);
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
