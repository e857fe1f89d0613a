//! A proxy that closes what was silent for a while: the session's heartbeat learns to come before it.

use crate::{World, connect, options, world::soon};
use skywave_client::{Backoff, Network, TransportChoice};
use skywave_protocol::Text;
use std::time::Duration;

/// The first pauses survive the proxy, and the longest does not.
const HEARTBEAT: [(&str, &str); 3] =
    [("HEARTBEAT__MIN", "100ms"), ("HEARTBEAT__TCP_START", "300ms"), ("HEARTBEAT__MAX", "1500ms")];
const PROXY_TIMEOUT: Duration = Duration::from_millis(800);
/// A session that had learned nothing would be cut before so many more.
const PINGS: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_behind_a_proxy_that_closes_what_is_silent_is_cut_once_and_then_stays() {
    let world = World::new(&HEARTBEAT).await;
    world.relay.set(|weather| weather.silence = PROXY_TIMEOUT);
    let metrics = &world.server.node().metrics;
    let cuts = metrics.sessions_closed.with_label_values(&["cut"]);
    let pings = metrics.pings.with_label_values(&["websocket"]);
    let mut options = options(world.relay.address(), TransportChoice::WebSocket);
    options.backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_millis(50) };
    options.network = Network { kind: Text::new("cellular").ok(), background: Some(true) };
    let client = connect(options).await;

    soon(async {
        while cuts.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let sent = pings.get();
        while pings.get() < sent + PINGS && cuts.get() == 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(cuts.get(), 1);
    assert!(client.connected().unwrap().resumed);
}
