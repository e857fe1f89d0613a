//! Sessions over networks that lose, delay, block and forget: nothing that was published may notice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

mod families;
mod half_open;
mod handshakes;
mod paths;
mod proxies;
mod restarts;
mod streams;

use skywave::{broker::Publish, server::Server};
use skywave_client::{Client, ClientOptions, Json, Payload, Subscription, TransportChoice};
use skywave_protocol::Channel;
use skywave_testing::{
    Relay,
    node::{self, connect, publication},
    soon,
};
use std::net::SocketAddr;

/// A node and a relay before it.
struct World {
    server: Server,
    relay: Relay,
}

impl World {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let server = node::start(settings).await;
        let relay = Relay::tcp_and_udp(server.public().unwrap().port()).await;
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
    node::options(vec![format!("https://{address}")], transport)
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
