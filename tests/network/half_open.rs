//! A path that is dead both ways without a word: both ends notice, and nothing is lost when it lives again.

use crate::{World, connect, number, options, receives};
use skywave_client::{Backoff, Status, SubscribeOptions, TransportChoice};
use skywave_testing::{eventually, soon};
use std::time::{Duration, Instant};

pub const HEARTBEAT: [(&str, &str); 5] = [
    ("HEARTBEAT__MIN", "100ms"),
    ("HEARTBEAT__FOREGROUND_MAX", "300ms"),
    ("HEARTBEAT__UDP_START", "500ms"),
    ("HEARTBEAT__TCP_START", "500ms"),
    ("HEARTBEAT__MAX", "500ms"),
];
/// Of a path of which nothing is known yet, the node waits for up to 17 s; it learns from so many pings.
const LEARNING_PINGS: u64 = 8;
/// Interval and time-out on a fast and steady path come to some 5 s; the machine may be busy with other tests.
const PROMISE: Duration = Duration::from_secs(10);

async fn both_ends_notice(transport: TransportChoice, name: &str) {
    let world = World::new(&HEARTBEAT).await;
    let node = world.server.node();
    let mut options = options(world.relay.address(), transport);
    options.connect_timeout = Duration::from_secs(1);
    options.backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_millis(200) };
    let pings = node.metrics.pings.with_label_values(&[name]);
    let client = connect(options).await;
    let mut room = soon(client.subscribe("chat:1", SubscribeOptions::default())).await.unwrap();
    let session = client.connected().unwrap().session.clone();
    world.publish("chat:1", number(1)).await;
    receives(&mut room, 1..=1).await;

    eventually("the pings", async || pings.get() >= LEARNING_PINGS).await;
    let timed_out = node.metrics.sessions_closed.with_label_values(&["3002"]);
    world.relay.cut();
    let begin = Instant::now();
    // Published into the dead path, while neither end knows, and after both do.
    world.publish("chat:1", number(2)).await;
    let mut status = client.status();
    soon(status.wait_for(|status| matches!(status, Status::Disconnected { .. } | Status::Connecting { .. })))
        .await
        .unwrap();
    let client_noticed = begin.elapsed();
    eventually("the session's end", async || node.sessions.all().is_empty()).await;
    let node_noticed = begin.elapsed();
    assert!(client_noticed < PROMISE, "{client_noticed:?}");
    assert!(node_noticed < PROMISE, "{node_noticed:?}");
    eventually("the time-out is counted", async || timed_out.get() > 0).await;
    world.publish("chat:1", number(3)).await;

    world.relay.heal();
    soon(status.wait_for(|status| status.connected().is_some())).await.unwrap();
    world.publish("chat:1", number(4)).await;
    receives(&mut room, 2..=4).await;
    let connected = client.connected().unwrap();
    assert_eq!((connected.session.clone(), connected.resumed), (session, true));
    assert_eq!(timed_out.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_a_webtransport_session_notice_that_the_path_is_dead() {
    both_ends_notice(TransportChoice::WebTransport, "webtransport").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_a_websocket_session_notice_that_the_path_is_dead() {
    both_ends_notice(TransportChoice::WebSocket, "websocket").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_silence_costs_no_reconnect() {
    let world = World::new(&[]).await;
    for transport in [TransportChoice::WebTransport, TransportChoice::WebSocket] {
        let client = world.client(transport).await;
        let channel = if transport == TransportChoice::WebSocket { "chat:1" } else { "chat:2" };
        let mut room = soon(client.subscribe(channel, SubscribeOptions::default())).await.unwrap();
        world.relay.cut();
        for count in 1..=10 {
            world.publish(channel, number(count)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.relay.heal();
        receives(&mut room, 1..=10).await;
        assert_eq!(client.connected().unwrap().connects, 1);
    }
}
