//! A node on free ports, requests to its admin listener, and a session that speaks JSON frames.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use skywave::{config::Config, server::Server};
use skywave_testing::{
    JsonSocket, PATIENCE,
    node::{self, HMAC_SECRET, token},
};
use tokio_tungstenite::tungstenite::Message;

pub struct World {
    pub server: Server,
    http: reqwest::Client,
}

/// What came back from the admin listener.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: header::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json", "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// The result of a command that succeeded.
    pub fn result(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        let mut answer = self.json();
        assert_eq!(answer.as_object().unwrap().len(), 1, "{self:?}");
        answer["result"].take()
    }

    /// The message of a failure with this status and reason.
    pub fn failure(&self, status: u16, reason: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        let error = self.json()["error"].clone();
        assert_eq!(error["reason"], reason, "{self:?}");
        let code = u16::try_from(error["code"].as_u64().unwrap()).unwrap();
        assert_eq!(skywave_protocol::ErrorCode::from_code(code).unwrap().reason(), reason);
        error["message"].as_str().unwrap().to_owned()
    }
}

impl World {
    /// A node with the development defaults.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A node with the development defaults and some keys set, as by environment: `LIMITS__SESSIONS`.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let config = config(settings);
        let server = Server::start(config).await.unwrap();
        let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
        Self { server, http }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.server.admin().unwrap()))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// A request of a command with whatever body.
    pub fn posting(&self, command: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.request(Method::POST, &format!("/api/v1/{command}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
    }

    pub async fn post(&self, command: &str, body: Value) -> Answer {
        self.send(self.posting(command, body.to_string())).await
    }

    /// The result of a command that has to succeed.
    pub async fn call(&self, command: &str, body: Value) -> Value {
        self.post(command, body).await.result()
    }

    /// A session of an anonymous user, subscribed to these channels.
    pub async fn session(&self, channels: &[&str]) -> Session {
        self.connect(None, channels).await
    }

    pub async fn session_of(&self, user: &str, channels: &[&str]) -> Session {
        self.connect(Some(user), channels).await
    }

    async fn connect(&self, user: Option<&str>, channels: &[&str]) -> Session {
        let token = user.map(token);
        let subscriptions: Value = channels.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        let mut session = Session::open(self).await;
        session.send(json!({"connect": {"id": 1, "token": token, "subscriptions": subscriptions}})).await;
        session.id = session.receive("connected").await["session"].as_str().unwrap().to_owned();
        for _ in channels {
            session.receive("subscribed").await;
        }
        session
    }
}

fn config(settings: &[(&str, &str)]) -> Config {
    let usual = [
        ("LISTEN__PUBLIC", ""),
        ("AUTH__HMAC_SECRET", HMAC_SECRET),
        ("CHANNELS__CHAT__HISTORY", "100"),
        ("CHANNELS__CHAT__PRESENCE", "true"),
    ];
    node::config(&[&usual, settings].concat())
}

/// A session over WebSocket with JSON frames.
pub struct Session {
    socket: JsonSocket,
    pub id: String,
}

impl Session {
    /// A transport without a session yet.
    pub async fn open(world: &World) -> Self {
        let socket = JsonSocket::open(world.server.plain().unwrap()).await;
        Self { socket, id: String::new() }
    }

    pub async fn send(&mut self, frame: Value) {
        self.socket.send(frame).await;
    }

    /// The next frame, which has to be of this name.
    pub async fn receive(&mut self, name: &str) -> Value {
        self.socket.receive(name).await
    }

    /// The code with which the socket is closed, and nothing before it.
    pub async fn close_code(&mut self) -> u16 {
        match self.socket.message().await {
            Message::Close(Some(close)) => close.code.into(),
            message => panic!("{message:?}"),
        }
    }
}
