//! A proxy that closes what was silent for a while, or a path that forgets it: the session's heartbeat learns to come
//! before.

use crate::{World, connect, options};
use quinn::TransportConfig;
use serde_json::{Value, json};
use skywave_client::{Backoff, Network, TransportChoice};
use skywave_protocol::Text;
use skywave_testing::{
    eventually, soon,
    webtransport::{RawSession, RawStream},
};
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

    eventually("a cut", async || cuts.get() > 0).await;
    let sent = pings.get();
    eventually("more pings", async || pings.get() >= sent + PINGS || cuts.get() > 1).await;
    assert_eq!(cuts.get(), 1);
    assert!(client.connected().unwrap().resumed);
}

/// Connects over WebTransport with a QUIC that gives up what was silent for as long; answers what the node said. Who
/// drops the stream ends the session.
async fn connect_raw(world: &World, connect: &Value) -> (RawSession, RawStream, Value) {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(PROXY_TIMEOUT.try_into().unwrap()));
    let session = RawSession::open(world.relay.address(), transport).await;
    let mut control = session.control().await;
    control.send(connect).await;
    let connected = control.frame().await["connected"].take();
    (session, control, connected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_dies_in_a_pause_longer_than_quic_allows_counts_as_cut_and_the_session_goes_on() {
    let world = World::new(&[]).await;
    let closed = &world.server.node().metrics.sessions_closed;
    // In the background no ping is due before QUIC gives up.
    let connect = json!({"connect": {"id": 1, "network": {"background": true}}});
    let (session, _control, connected) = connect_raw(&world, &connect).await;
    world.relay.set(|weather| weather.udp = false);
    soon(session.quic.closed()).await;
    eventually("the cut", async || closed.with_label_values(&["cut"]).get() > 0).await;
    world.relay.set(|weather| weather.udp = true);
    let resume = json!({"connect": {"id": 1, "resume": connected["resume"]}});
    let (_session, _control, again) = connect_raw(&world, &resume).await;
    assert_eq!((&again["session"], &again["resumed"]), (&connected["session"], &json!(true)), "{again}");
}
