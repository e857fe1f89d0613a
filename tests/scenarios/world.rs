//! A node on free ports, and clients of it over each transport.

use skywave::{config::Config, server::Server};
use skywave_client::{
    CertificateCheck, ChannelEvent, Client, ClientOptions, Encoding, Publication, Subscription, TransportChoice,
};
use std::time::Duration;

/// Nothing in these tests takes so long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One of the ways in which a session's bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    WebTransport,
    WebSocketJson,
    WebSocketMessagePack,
    WebSocketHttp2,
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
        })+
    };
}

pub struct World {
    pub server: Server,
    way: Way,
}

impl World {
    /// A node with the development defaults.
    pub async fn new(way: Way) -> Self {
        Self::with(way, &[]).await
    }

    /// A node with the development defaults and some keys set, as by environment: `LIMITS__SESSIONS`.
    pub async fn with(way: Way, settings: &[(&str, &str)]) -> Self {
        let config = config(settings);
        let server = Server::start(config).await.unwrap();
        Self { server, way }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.server.public().unwrap().port())
    }

    pub fn options(&self) -> ClientOptions {
        let mut options = ClientOptions::new(self.url());
        options.transport = match self.way {
            Way::WebTransport => TransportChoice::WebTransport,
            _ => TransportChoice::WebSocket,
        };
        options.encoding = match self.way {
            Way::WebSocketJson => Encoding::Json,
            _ => Encoding::MessagePack,
        };
        options.http2 = self.way == Way::WebSocketHttp2;
        options.certificate = CertificateCheck::Insecure;
        options
    }

    pub async fn client(&self) -> Client {
        connect(self.options()).await
    }
}

/// The development configuration on free ports, with some keys set.
pub fn config(settings: &[(&str, &str)]) -> Config {
    let defaults = [
        ("LISTEN__PUBLIC", "localhost:0"),
        ("LISTEN__PLAIN", "127.0.0.1:0"),
        ("LISTEN__ADMIN", "127.0.0.1:0"),
        // Tests are in a greater hurry than people.
        ("LIMITS__REQUESTS_PER_SECOND", "100000"),
        ("LIMITS__PUBLISHES_PER_SECOND", "100000"),
    ];
    let environment = defaults
        .iter()
        .filter(|(key, _)| settings.iter().all(|(set, _)| set != key))
        .chain(settings)
        .map(|(key, value)| (format!("SKYWAVE_{key}"), (*value).to_owned()));
    Config::load(None, true, environment).unwrap()
}

pub async fn connect(options: ClientOptions) -> Client {
    soon(Client::connect(options)).await.unwrap()
}

/// Fails instead of hanging.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// The next publication; anything else that comes before it is passed over.
pub async fn publication(subscription: &mut Subscription) -> Publication {
    loop {
        match soon(subscription.next()).await {
            Some(ChannelEvent::Publication(publication)) => return publication,
            Some(ChannelEvent::Gap(gap)) => panic!("{gap:?}"),
            Some(ChannelEvent::Unsubscribed { code, reason }) => panic!("unsubscribed: {code:?} {reason}"),
            Some(_) => {}
            None => panic!("the subscription ended"),
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
