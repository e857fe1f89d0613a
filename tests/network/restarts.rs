//! A node that is gone without a word and is there again at once, at the same address.

use crate::World;
use quinn::{ConnectionError, TransportConfig};
use serde_json::json;
use skywave_testing::{Port, node::start, soon, webtransport::RawSession};
use std::future::ready;

const SECRET: &str = "a secret of all nodes, 32 bytes and more";

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_to_a_node_that_was_started_again_learns_at_once_that_its_connection_is_gone() {
    let port = Port::free();
    let address = format!("127.0.0.1:{}", port.number());
    let settings = [("NODE__ID", "n-1"), ("AUTH__SESSION_SECRET", SECRET), ("LISTEN__PUBLIC", &address)];
    let World { server, relay } = World::new(&settings).await;
    let mut transport = TransportConfig::default();
    // It would not find out by itself.
    transport.max_idle_timeout(None);
    let session = RawSession::open(relay.address(), transport).await;
    let mut control = session.connect(json!({})).await;

    relay.set(|weather| weather.udp_replies = false);
    soon(server.drain_until(ready(()))).await.unwrap();
    port.is_left().await;
    let _server = start(&settings).await;
    relay.set(|weather| weather.udp_replies = true);

    control.send(&json!({"publish": {"id": 2, "channel": "chat:1", "data": 1}})).await;
    assert_eq!(soon(session.quic.closed()).await, ConnectionError::Reset);
}
