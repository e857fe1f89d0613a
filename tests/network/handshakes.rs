//! Many handshakes at once from addresses that nobody answers at.

use crate::World;
use quinn::TransportConfig;
use skywave_client::{TransportChoice, TransportKind};
use skywave_testing::{eventually, soon, webtransport::endpoint};
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
    eventually("a retry", async || retries.get() > 0).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_checks_a_node_is_answered_however_many_wait_for_a_session() {
    let world = World::new(&[("LIMITS__HANDSHAKES_PER_SECOND", "1")]).await;
    let address = world.server.plain().unwrap();
    let ask = async |path: &str, more: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    while world.server.node().take_handshake().is_ok() {}
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.push(ask("/v1/connect", upgrade).await);
    }
    for path in ["/healthz", "/readyz"] {
        let mut check = ask(path, "Connection: close\r\n").await;
        // Two who came later would have had the turn before.
        waiting.extend([ask("/v1/connect", upgrade).await, ask("/v1/connect", upgrade).await]);
        let mut answer = Vec::new();
        soon(check.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
    }
    let refused = world.server.node().metrics.handshakes_refused.with_label_values(&["handshake_rate"]);
    let mut first = Vec::new();
    soon(waiting[0].read_to_end(&mut first)).await.unwrap();
    assert!(first.starts_with(b"HTTP/1.1 503") && refused.get() > 0, "{}", String::from_utf8_lossy(&first));
}
