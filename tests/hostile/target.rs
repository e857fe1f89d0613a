//! The node under attack, and two well-behaved sessions on it that must not notice.

use parking_lot::Mutex;
use skywave::server::Server;
use skywave_client::{Client, Json, SubscribeOptions, Subscription, TransportChoice};
use skywave_testing::{
    eventually,
    node::{self, connect, options, publication},
    soon,
};
use std::{net::SocketAddr, panic, sync::Once};

/// Where the node's code panicked; a test's own assertions are no such place.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub struct Target {
    pub server: Server,
    bystanders: Vec<(Client, Subscription)>,
    published: u64,
}

impl Target {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A node that gives up on those who do not get on with it after `milliseconds`.
    pub async fn impatient(milliseconds: u64) -> Self {
        Self::with(&[("LIMITS__CONNECT_TIMEOUT", &format!("{milliseconds}ms"))]).await
    }

    pub async fn with(settings: &[(&str, &str)]) -> Self {
        record_panics();
        let server = node::start(settings).await;
        let mut target = Self { server, bystanders: Vec::new(), published: 0 };
        for transport in [TransportChoice::WebTransport, TransportChoice::WebSocket] {
            let client = connect(options(vec![target.url()], transport)).await;
            let room = soon(client.subscribe("chat:bystanders", SubscribeOptions::default())).await.unwrap();
            target.bystanders.push((client, room));
        }
        target
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.public().port())
    }

    pub fn public(&self) -> SocketAddr {
        self.server.public().unwrap()
    }

    pub fn plain(&self) -> SocketAddr {
        self.server.plain().unwrap()
    }

    /// Each bystander publishes, everyone receives it, on the connection that it had from the start; and no task of
    /// the node has panicked.
    pub async fn is_unharmed(&mut self) {
        for publisher in 0..self.bystanders.len() {
            self.published += 1;
            let data = Json::of(&self.published).unwrap();
            soon(self.bystanders[publisher].0.publish("chat:bystanders", data.clone())).await.unwrap();
            for (client, room) in &mut self.bystanders {
                let received = publication(room).await;
                assert_eq!((received.offset, received.data), (self.published, data.clone().into()));
                assert_eq!(client.connected().unwrap().connects, 1, "a bystander was thrown out");
            }
        }
        let panics = PANICS.lock().clone();
        assert!(panics.is_empty(), "the node panicked: {panics:?}");
    }

    /// Waits until only the bystanders have a session.
    pub async fn attackers_are_gone(&self) {
        let gone = async || self.server.node().sessions.all().len() <= self.bystanders.len();
        eventually("their end", gone).await;
    }

    /// Waits until a counter of refused handshakes has reached `count`.
    pub async fn refused(&self, reason: &str, count: u64) {
        let counter = self.server.node().metrics.handshakes_refused.with_label_values(&[reason]);
        eventually(&format!("{count} refused with {reason}"), async || counter.get() >= count).await;
    }
}

fn record_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map_or_else(String::new, ToString::to_string);
            // The bystanders' WebTransport library panics when its runtime is shut down at a test's end; the node has
            // no part of it but `wtransport-proto`.
            let bystander = place.contains("/wtransport-") && !place.contains("/wtransport-proto-");
            let test = place.starts_with("tests/") || place.starts_with("crates/testing/");
            if !test && !bystander {
                PANICS.lock().push(place);
            }
            default(info);
        }));
    });
}
