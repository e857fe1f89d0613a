//! A node on free ports, and clients of it over each transport.

use crate::pipe;
use serde::Serialize;
use skywave::{
    auth::mint::{Claims, Minter},
    config::{Config, Secret},
    metrics::Metrics,
    rights::{Right, Rights},
    server::Server,
};
use skywave_client::{
    CertificateCheck, ChannelEvent, Client, ClientOptions, Encoding, Event, Gap, Json, PresenceChanged,
    RequestError, Status, Subscribed, Subscription, TokenSource, TransportChoice, TransportKind,
    transport::{Connection, DialOptions, Dialer},
};
use skywave_protocol::{CloseCode, ErrorCode};
use skywave_testing::{
    node::{self, connect, options, publication},
    soon,
};
use std::time::{Duration, SystemTime};

/// One of the ways in which a session's bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    WebTransport,
    WebSocketJson,
    WebSocketMessagePack,
    WebSocketHttp2,
    /// By a transport that is no part of the node, which clients reach by WebSocket.
    Pipe,
}

impl Way {
    pub fn kind(self) -> TransportKind {
        match self {
            Self::WebTransport => TransportKind::WebTransport,
            _ => TransportKind::WebSocket,
        }
    }

    /// The name of the transport in metrics.
    pub fn transport(self) -> &'static str {
        match self {
            Self::Pipe => pipe::NAME,
            _ => self.kind().name(),
        }
    }

    fn encoding(self) -> Encoding {
        match self {
            Self::WebSocketJson => Encoding::Json,
            _ => Encoding::MessagePack,
        }
    }
}

/// Makes a test for each way of a scenario `async fn(Way)`.
#[macro_export]
macro_rules! on_every_transport {
    ($($scenario:ident,)+) => {
        $(mod $scenario {
            use $crate::world::Way;
            #[tokio::test(flavor = "multi_thread")]
            async fn webtransport() {
                super::$scenario(Way::WebTransport).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn websocket_json() {
                super::$scenario(Way::WebSocketJson).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn websocket_messagepack() {
                super::$scenario(Way::WebSocketMessagePack).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn websocket_http2() {
                super::$scenario(Way::WebSocketHttp2).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn pipe() {
                super::$scenario(Way::Pipe).await;
            }
        })+
    };
}

pub struct World {
    pub server: Server,
    pub way: Way,
    pipes: Option<pipe::Entrance>,
}

impl World {
    /// A node with the development defaults.
    pub async fn new(way: Way) -> Self {
        Self::with(way, &[]).await
    }

    /// A node with the development defaults and some keys set, as by environment: `LIMITS__SESSIONS`.
    pub async fn with(way: Way, settings: &[(&str, &str)]) -> Self {
        Self::of(way, config(settings)).await
    }

    async fn of(way: Way, config: Config) -> Self {
        let server = Server::start(config).await.unwrap();
        let pipes = (way == Way::Pipe).then(|| pipe::Entrance::open(server.node()));
        Self { server, way, pipes }
    }

    /// A node that is not one for development.
    pub async fn in_production(way: Way) -> Self {
        Self::of(way, Config { dev: false, ..config(&[]) }).await
    }

    /// A node that lets in whom a token proves, to do what the token or `settings` allow.
    pub async fn secured(way: Way, settings: &[(&str, &str)]) -> Self {
        let secured = [
            ("AUTH__HMAC_SECRET", TOKEN_SECRET),
            ("AUTH__ANONYMOUS", "false"),
            ("CHANNELS__@__ALLOW", ""),
            ("CHANNELS__CHAT__ALLOW", ""),
            ("CHANNELS__CHAT__HISTORY", "100"),
            ("CHANNELS__CHAT__PRESENCE", "true"),
        ];
        let settings: Vec<_> = secured.iter().chain(settings).copied().collect();
        Self::with(way, &settings).await
    }

    pub fn url(&self) -> String {
        match &self.pipes {
            Some(pipes) => pipes.url(),
            None => node::url(&self.server),
        }
    }

    pub fn options(&self) -> ClientOptions {
        let transport = match self.way.kind() {
            TransportKind::WebTransport => TransportChoice::WebTransport,
            TransportKind::WebSocket => TransportChoice::WebSocket,
        };
        let (encoding, http2) = (self.way.encoding(), self.way == Way::WebSocketHttp2);
        ClientOptions { encoding, http2, ..options(vec![self.url()], transport) }
    }

    /// A client with a token.
    pub async fn client_with(&self, token: String) -> Client {
        connect(self.options_with(token)).await
    }

    pub fn options_with(&self, token: String) -> ClientOptions {
        ClientOptions { token: TokenSource::fixed(token), ..self.options() }
    }

    /// A transport without a session.
    pub async fn dial(&self, kind: TransportKind) -> Connection {
        let options = DialOptions {
            encoding: self.way.encoding(),
            http2: self.way == Way::WebSocketHttp2,
            certificate: CertificateCheck::Insecure,
            headers: Vec::new(),
        };
        let url = self.url().parse().unwrap();
        soon(Dialer::new(options).unwrap().dial(&url, kind)).await.unwrap()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.server.node().metrics
    }

    /// How many transports ended with this code.
    pub fn closed_with(&self, code: CloseCode) -> u64 {
        self.metrics().sessions_closed.with_label_values(&[&code.code().to_string()]).get()
    }

    /// How often something was not accepted for this cause.
    pub fn refused_for(&self, cause: &str) -> u64 {
        self.metrics().refusals.with_label_values(&[cause]).get()
    }

    pub async fn client(&self) -> Client {
        connect(self.options()).await
    }
}

/// What tokens are signed with in [`World::secured`].
pub const TOKEN_SECRET: &str = "a secret of these tests, long enough";

/// A token of a user for a while, with rights on the channels that match.
pub fn token(user: &str, channels: &[(&str, &[Right])]) -> String {
    token_for(user, channels, Duration::from_secs(600))
}

/// A token that is valid for so long, in whole seconds.
pub fn token_for(user: &str, channels: &[(&str, &[Right])], lifetime: Duration) -> String {
    mint(user, channels, lifetime, SystemTime::now())
}

/// A token that was valid once.
pub fn expired_token(user: &str) -> String {
    mint(user, &[], Duration::from_secs(60), SystemTime::now() - Duration::from_secs(3600))
}

fn mint(user: &str, channels: &[(&str, &[Right])], lifetime: Duration, now: SystemTime) -> String {
    let rights = |rights: &[Right]| rights.iter().copied().collect::<Rights>();
    let claims = Claims {
        user: Some(user.to_owned()),
        channels: channels.iter().map(|(pattern, allow)| ((*pattern).to_owned(), rights(allow))).collect(),
        info: Some(serde_json::value::to_raw_value(&serde_json::json!({ "name": user })).unwrap()),
        audience: None,
        issuer: None,
        lifetime,
    };
    Minter::from_secret(&Secret::new(TOKEN_SECRET)).mint(&claims, now).unwrap()
}

/// The development configuration on free ports, with some keys set.
pub fn config(settings: &[(&str, &str)]) -> Config {
    node::config(&[&[("LISTEN__PUBLIC", "localhost:0")], settings].concat())
}

pub fn json(value: impl Serialize) -> Json {
    Json::of(&value).unwrap()
}

/// Waits until the client's status is such that `pick` takes it.
pub async fn status<T>(client: &Client, mut pick: impl FnMut(&Status) -> Option<T>) -> T {
    let mut status = client.status();
    loop {
        if let Some(picked) = pick(&status.borrow_and_update()) {
            return picked;
        }
        soon(status.changed()).await.unwrap();
    }
}

/// The code of a request that was refused.
pub fn refused<T: std::fmt::Debug>(outcome: Result<T, RequestError>) -> ErrorCode {
    ErrorCode::from_code(outcome.unwrap_err().code).unwrap()
}

/// The next thing that happens on the channel.
pub async fn next(subscription: &mut Subscription) -> ChannelEvent {
    soon(subscription.next()).await.expect("the subscription ended")
}

/// The next `Subscribed`; anything that comes before it is passed over.
pub async fn subscribed(subscription: &mut Subscription) -> Subscribed {
    loop {
        if let ChannelEvent::Subscribed(subscribed) = next(subscription).await {
            return subscribed;
        }
    }
}

/// The next change of presence.
pub async fn presence_changed(subscription: &mut Subscription) -> PresenceChanged {
    loop {
        if let ChannelEvent::PresenceChanged(changed) = next(subscription).await {
            return changed;
        }
    }
}

/// The next gap, before which no publication comes.
pub async fn gap(subscription: &mut Subscription) -> Gap {
    loop {
        match next(subscription).await {
            ChannelEvent::Gap(gap) => return gap,
            ChannelEvent::Publication(publication) => panic!("{publication:?} came before the gap"),
            _ => {}
        }
    }
}

/// The next event; anything that comes before it is passed over.
pub async fn event(subscription: &mut Subscription) -> Event {
    loop {
        if let ChannelEvent::Event(event) = next(subscription).await {
            return event;
        }
    }
}

/// The offsets of the next so many publications.
pub async fn offsets(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut offsets = Vec::with_capacity(count);
    while offsets.len() < count {
        offsets.push(publication(subscription).await.offset);
    }
    offsets
}
