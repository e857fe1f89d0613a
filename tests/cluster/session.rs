//! A session that speaks JSON frames, and stays where it is unless the test moves it.

use crate::world::Node;
use serde_json::{Value, json};
use skywave_testing::{JsonSocket, node::token};
use std::net::SocketAddr;

pub struct Session {
    socket: JsonSocket,
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

    /// As [`Self::resume`], by the `connect` of this number, whatever comes of it.
    pub async fn resume_as(&self, node: &Node, attempt: u64) -> Self {
        Self::try_with(node, json!({"resume": self.connected["resume"], "attempt": attempt})).await
    }

    /// A session by a `connect` with these fields.
    pub async fn with(node: &Node, fields: Value) -> Self {
        let mut session = Self::try_with(node, fields).await;
        session.connected = session.receive("connected").await;
        session
    }

    /// A transport on which `connect` was sent.
    pub async fn try_with(node: &Node, fields: Value) -> Self {
        Self::try_at(node.server.plain().unwrap(), fields).await
    }

    /// A transport to a plain listener, on which `connect` was sent.
    pub async fn try_at(place: SocketAddr, mut fields: Value) -> Self {
        let mut socket = JsonSocket::open(place).await;
        fields["id"] = json!(1);
        socket.send(json!({"connect": fields})).await;
        Self { socket, connected: Value::Null }
    }

    pub async fn send(&mut self, frame: Value) {
        self.socket.send(frame).await;
    }

    /// The next frame, which has to be of this name.
    pub async fn receive(&mut self, name: &str) -> Value {
        self.socket.receive(name).await
    }

    /// The code with which the node ends it.
    pub async fn end(&mut self) -> u64 {
        self.receive("disconnect").await["code"].as_u64().unwrap()
    }

    /// Waits until its `connect` was answered, one way or the other.
    pub async fn is_answered(&mut self) {
        self.socket.frame().await;
    }

    /// The code with which the node ends it, whatever it says before.
    pub async fn ends_at_last(&mut self) -> u64 {
        loop {
            let frame = self.socket.frame().await;
            if let Some(disconnect) = frame.get("disconnect") {
                return disconnect["code"].as_u64().unwrap();
            }
        }
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
