//! Many handshakes at once from addresses that nobody answers at.

use crate::{World, webtransport::endpoint, world::soon};
use quinn::TransportConfig;
use skywave_client::{TransportChoice, TransportKind};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// More than may be under way before addresses are validated.
const HALF_OPEN: usize = 300;
/// Many times as many as the node of that test takes while a client waits.
const GAVE_UP: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn when_handshakes_pile_up_clients_prove_their_address_and_still_connect() {
    let world = World::new(&[]).await;
    let retries = &world.server.node().metrics.quic_retries;
    world.direct(TransportChoice::WebTransport).await;
    assert_eq!(retries.get(), 0);

    // The node's answers do not arrive, so that none of these gets any further.
    world.relay.set(|weather| weather.udp_replies = false);
    let client = endpoint(TransportConfig::default());
    let connecting: Vec<_> =
        (0..HALF_OPEN).map(|_| client.connect(world.relay.address(), "localhost").unwrap()).collect();
    soon(async {
        while retries.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let client = world.direct(TransportChoice::WebTransport).await;
    assert_eq!(client.connected().unwrap().transport, TransportKind::WebTransport);
    drop(connecting);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_does_not_wait_behind_those_who_gave_up() {
    let world = World::new(&[("LIMITS__HANDSHAKES_PER_SECOND", "5")]).await;
    let node = world.server.public().unwrap();
    for _ in 0..GAVE_UP {
        drop(TcpStream::connect(node).await.unwrap());
    }
    let client = world.direct(TransportChoice::WebSocket).await;
    assert_eq!(client.connected().unwrap().transport, TransportKind::WebSocket);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_up_takes_no_turn_from_who_waits() {
    let world = World::new(&[("LIMITS__HANDSHAKES_PER_SECOND", "1")]).await;
    let (node, address) = (world.server.node(), world.server.public().unwrap());
    while node.take_handshake().is_ok() {}
    let mut waits = TcpStream::connect(address).await.unwrap();
    waits.write_all(b"no TLS, so that it is refused and counted").await.unwrap();
    drop(TcpStream::connect(address).await.unwrap());
    // It ends with what TLS says to this, or with a reset.
    let _ = soon(waits.read_to_end(&mut Vec::new())).await;
    assert_eq!(node.metrics.handshakes_refused.with_label_values(&["tls"]).get(), 1);
}
