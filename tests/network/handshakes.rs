//! Many handshakes at once from addresses that nobody answers at.

use crate::{World, webtransport::endpoint, world::soon};
use quinn::TransportConfig;
use skywave_client::{TransportChoice, TransportKind};
use std::time::Duration;

/// More than may be under way before addresses are validated.
const HALF_OPEN: usize = 300;

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
