//! Sessions over networks that lose, delay, block and forget: nothing that was published may notice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

mod families;
mod half_open;
mod handshakes;
mod paths;
mod proxies;
mod relay;
mod restarts;
mod streams;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../hostile/tls.rs"]
mod tls;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../hostile/webtransport.rs"]
mod webtransport;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../hostile/world.rs"]
mod world;

use relay::Relay;
use skywave::{broker::Publish, server::Server};
use skywave_client::{CertificateCheck, Client, ClientOptions, Json, Payload, Subscription, TransportChoice};
use skywave_protocol::Channel;
use std::net::SocketAddr;
use world::{connect, publication, soon};

/// A node and a relay before it.
struct World {
    server: Server,
    relay: Relay,
}

impl World {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let server = world::start(settings).await;
        let relay = Relay::start(server.public().unwrap()).await;
        Self { server, relay }
    }

    /// A client that reaches the node through the relay.
    async fn client(&self, transport: TransportChoice) -> Client {
        connect(options(self.relay.address(), transport)).await
    }

    /// A client that reaches the node without it.
    async fn direct(&self, transport: TransportChoice) -> Client {
        connect(options(self.server.public().unwrap(), transport)).await
    }

    /// Publishes a number on the node itself.
    async fn publish(&self, channel: &str, data: impl Into<Payload>) {
        let channel = Channel::new(channel).unwrap();
        let publish = Publish { channel, data: data.into(), key: None, user: None };
        soon(self.server.node().publish(publish)).await.unwrap();
    }
}

fn options(address: SocketAddr, transport: TransportChoice) -> ClientOptions {
    let mut options = ClientOptions::new(format!("https://{address}"));
    options.transport = transport;
    options.certificate = CertificateCheck::Insecure;
    options
}

fn number(number: u64) -> Json {
    Json::of(&number).unwrap()
}

/// The next so many publications are these offsets, each once and in order.
async fn receives(room: &mut Subscription, offsets: std::ops::RangeInclusive<u64>) {
    for offset in offsets {
        assert_eq!(publication(room).await.offset, offset);
    }
}
