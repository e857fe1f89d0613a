//! A session that speaks JSON frames, and stays where it is unless the test moves it.

use crate::world::{Node, soon, token};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::VecDeque;
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

pub struct Session {
    socket: WebSocketStream<TcpStream>,
    received: VecDeque<Value>,
    /// The answer to `connect`.
    pub connected: Value,
}

impl Session {
    /// An anonymous session of its own.
    pub async fn open(node: &Node) -> Self {
        Self::with(node, json!({})).await
    }

    /// A session of a user.
    pub async fn of(node: &Node, user: &str) -> Self {
        Self::with(node, json!({"token": token(user)})).await
    }

    /// Goes on with a session at `node`.
    pub async fn resume(&self, node: &Node) -> Self {
        let resumed = Self::with(node, json!({"resume": self.connected["resume"]})).await;
        assert_eq!(resumed.connected["session"], self.connected["session"]);
        assert_eq!(resumed.connected["resumed"], true);
        resumed
    }

    /// A session by a `connect` with these fields.
    pub async fn with(node: &Node, fields: Value) -> Self {
        let mut session = Self::try_with(node, fields).await;
        session.connected = session.receive("connected").await;
        session
    }

    /// A transport on which `connect` was sent.
    pub async fn try_with(node: &Node, mut fields: Value) -> Self {
        let place = node.server.plain().unwrap();
        let stream = soon(TcpStream::connect(place)).await.unwrap();
        let (mut socket, _) = soon(client_async(format!("ws://{place}/v1/connect"), stream)).await.unwrap();
        fields["id"] = json!(1);
        soon(socket.send(Message::text(json!({"connect": fields}).to_string()))).await.unwrap();
        Self { socket, received: VecDeque::new(), connected: Value::Null }
    }

    pub async fn send(&mut self, frame: Value) {
        soon(self.socket.send(Message::text(frame.to_string()))).await.unwrap();
    }

    /// The next frame of this name. Heartbeats do not count; any other frame is wrong.
    pub async fn receive(&mut self, name: &str) -> Value {
        loop {
            match self.received.pop_front() {
                Some(frame) if frame.get("ping").is_some() => {}
                Some(mut frame) => {
                    assert!(frame.get(name).is_some(), "expected {name}: {frame}");
                    return frame[name].take();
                }
                None => self.message().await,
            }
        }
    }

    async fn message(&mut self) {
        let message = soon(self.socket.next()).await.unwrap().unwrap();
        let Message::Text(text) = message else { panic!("{message:?}") };
        match serde_json::from_str(&text).unwrap() {
            Value::Array(frames) => self.received.extend(frames),
            frame => self.received.push_back(frame),
        }
    }

    /// The code with which the node ends it.
    pub async fn end(&mut self) -> u64 {
        self.receive("disconnect").await["code"].as_u64().unwrap()
    }

    /// Checks that it still is served.
    pub async fn is_served(&mut self) {
        self.send(json!({"history": {"id": 9, "channel": "chat:1", "limit": 1}})).await;
        self.receive("history").await;
    }

    /// Ends it without a farewell.
    pub fn cut(self) {
        drop(self.socket);
    }
}
