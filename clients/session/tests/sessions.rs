//! The scripted sessions of `protocol/vectors/sessions/`, which every client runs: what happens when, and what it does then.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod script;

use script::{Script, Step};
use serde_json::{Value, json};
use skywave_client_session::{
    Backoff, ConnectionId, Link, Output, Publish, Ticket, Time, Traffic, TrafficOptions,
};
use skywave_protocol::{
    ClientFrame, Encoding, Json, Payload, RequestId, ServerFrame,
    frame::{Call, Connected, HistoryRequest, PresenceRequest},
};
use std::{collections::HashMap, time::Duration};

/// A session in virtual time, and the names that a script has for its connections, requests and ids.
struct Session {
    traffic: Traffic,
    now: Time,
    connections: Vec<String>,
    tickets: Vec<String>,
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
            now: script::moment(0),
            connections: Vec::new(),
            tickets: Vec::new(),
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
            "received" => self.received(&body[1]),
            _ => panic!("`{name}` is no input"),
        }
        self.look();
        self.run_until(self.now);
    }

    fn connected(&mut self, body: &Value) {
        let connected: Connected = parsed(&script::connected(body));
        self.connections.push(body["on"].as_str().unwrap().to_owned());
        let connection = ConnectionId(self.connections.len() as u64 - 1);
        let frame_limit = connected.limits.frame_bytes;
        let before = self.live_before(connection);
        self.traffic.connected(Link { connection, encoding: Encoding::Json, frame_limit }, &connected);
        if let Some(old) = before.filter(|old| !self.traffic.needs(*old)) {
            self.traffic.lost(old, self.now);
        }
        self.traffic.catch_up(self.now);
    }

    fn live_before(&self, connection: ConnectionId) -> Option<ConnectionId> {
        connection.0.checked_sub(1).map(ConnectionId)
    }

    fn received(&mut self, frame: &Value) {
        let bytes = serde_json::to_vec(frame).unwrap();
        match Encoding::Json.decode_server(&bytes).unwrap() {
            ServerFrame::Error(error) => {
                self.traffic.failed(error.id.unwrap(), error.into(), self.now);
            }
            ServerFrame::Subscribed(_) | ServerFrame::Unsubscribed(_) => {
                let (_, body) = script::entry(frame);
                self.traffic.replied(parsed(&body["id"]), self.now);
            }
            answer => {
                let (_, body) = script::entry(frame);
                self.traffic.answered(parsed(&body["id"]), answer, self.now);
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
        while let Some(output) = self.traffic.poll_output() {
            let done = match output {
                Output::Send { connection, frame, .. } => {
                    let frame: Value = serde_json::from_slice(&frame.bare()).unwrap();
                    json!({ "sent": [self.connections[connection.0 as usize], frame] })
                }
                Output::Answer { ticket, answer } => {
                    let name = &self.tickets[ticket.0 as usize];
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
        session.run_until(script::moment(*at));
        // What it did on the way was expected behind the input before.
        if let Some(done) = session.done.first() {
            return Err(format!("it did too much: {done:?}"));
        }
        let (name, body) = script::entry(input);
        session.input(name, &script::with_ids(body, &ids));
        while let Some(Step::Out(at, output)) = steps.next_if(|step| matches!(step, Step::Out(..))) {
            expected.push((*at, output));
        }
        let until = steps.peek().map_or(script.end(), |next| next.at());
        session.run_until(script::moment(until));
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
