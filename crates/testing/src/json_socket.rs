//! A WebSocket that speaks JSON frames.

use crate::soon;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::{collections::VecDeque, net::SocketAddr};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

pub struct JsonSocket {
    socket: WebSocketStream<TcpStream>,
    /// Frames that came in one message with those before.
    received: VecDeque<Value>,
}

impl JsonSocket {
    /// A transport of a node's plain listener, without a session yet.
    pub async fn open(place: SocketAddr) -> Self {
        let stream = soon(TcpStream::connect(place)).await.unwrap();
        let (socket, _) = soon(client_async(format!("ws://{place}/v1/connect"), stream)).await.unwrap();
        Self { socket, received: VecDeque::new() }
    }

    pub async fn send(&mut self, frame: Value) {
        soon(self.socket.send(Message::text(frame.to_string()))).await.unwrap();
    }

    /// The next frame, which has to be of this name. Heartbeats do not count.
    pub async fn receive(&mut self, name: &str) -> Value {
        let mut frame = self.frame().await;
        assert!(frame.get(name).is_some(), "expected {name}: {frame}");
        frame[name].take()
    }

    /// The next frame, whatever it is. Heartbeats do not count.
    pub async fn frame(&mut self) -> Value {
        loop {
            match self.received.pop_front() {
                Some(frame) if frame.get("ping").is_some() => {}
                Some(frame) => return frame,
                None => self.frames().await,
            }
        }
    }

    async fn frames(&mut self) {
        let message = self.message().await;
        let Message::Text(text) = message else { panic!("{message:?}") };
        match serde_json::from_str(&text).unwrap() {
            Value::Array(frames) => self.received.extend(frames),
            frame => self.received.push_back(frame),
        }
    }

    /// What comes next on the socket.
    pub async fn message(&mut self) -> Message {
        soon(self.socket.next()).await.unwrap().unwrap()
    }
}
