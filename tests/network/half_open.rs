//! A path that is dead both ways without a word: both ends notice, and nothing is lost when it lives again.

use crate::{World, connect, json, options, receives, world::soon};
use skywave_client::{Backoff, Status, SubscribeOptions, TransportChoice};
use skywave_protocol::heartbeat::{Activity, Heartbeat, PathKind};
use std::time::{Duration, Instant};

const HEARTBEAT: [(&str, &str); 5] = [
    ("HEARTBEAT__MIN", "100ms"),
    ("HEARTBEAT__FOREGROUND_MAX", "300ms"),
    ("HEARTBEAT__UDP_START", "500ms"),
    ("HEARTBEAT__TCP_START", "500ms"),
    ("HEARTBEAT__MAX", "500ms"),
];
/// For a noisy machine, beyond what the heartbeat promises.
const MARGIN: Duration = Duration::from_secs(2);

async fn both_ends_notice(transport: TransportChoice, path: PathKind) {
    let world = World::new(&HEARTBEAT).await;
    let node = world.server.node();
    let mut options = options(world.relay.address(), transport);
    options.connect_timeout = Duration::from_secs(1);
    options.backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_millis(200) };
    let client = connect(options).await;
    let mut room = soon(client.subscribe("chat:1", SubscribeOptions::default())).await.unwrap();
    let session = client.connected().unwrap().session.clone();
    world.publish("chat:1", json(1)).await;
    receives(&mut room, 1..=1).await;

    let schedule = Heartbeat::new(&node.heartbeat, path, Activity::Idle, Instant::now()).schedule();
    let promise = schedule.interval + schedule.timeout;
    let timed_out = node.metrics.sessions_closed.with_label_values(&["3002"]);
    world.relay.set(|weather| (weather.udp, weather.tcp) = (false, false));
    let begin = Instant::now();
    // Published into the dead path, while neither end knows, and after both do.
    world.publish("chat:1", json(2)).await;
    let mut status = client.status();
    soon(status.wait_for(|status| matches!(status, Status::Disconnected { .. } | Status::Connecting { .. })))
        .await
        .unwrap();
    let client_noticed = begin.elapsed();
    soon(async {
        while !node.sessions.all().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let node_noticed = begin.elapsed();
    eprintln!("{transport:?} {schedule:?} {client_noticed:?} {node_noticed:?}");
    assert!(client_noticed < promise + MARGIN, "{client_noticed:?} of {promise:?}");
    assert!(node_noticed < promise + MARGIN, "{node_noticed:?} of {promise:?}");
    soon(async {
        while timed_out.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    world.publish("chat:1", json(3)).await;

    world.relay.set(|weather| (weather.udp, weather.tcp) = (true, true));
    soon(status.wait_for(|status| status.connected().is_some())).await.unwrap();
    world.publish("chat:1", json(4)).await;
    receives(&mut room, 2..=4).await;
    let connected = client.connected().unwrap();
    assert_eq!((connected.session.clone(), connected.resumed), (session, true));
    assert_eq!(timed_out.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_a_webtransport_session_notice_that_the_path_is_dead() {
    both_ends_notice(TransportChoice::WebTransport, PathKind::Udp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_a_websocket_session_notice_that_the_path_is_dead() {
    both_ends_notice(TransportChoice::WebSocket, PathKind::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_silence_costs_no_reconnect() {
    let world = World::new(&[]).await;
    for transport in [TransportChoice::WebTransport, TransportChoice::WebSocket] {
        let client = world.client(transport).await;
        let channel = if transport == TransportChoice::WebSocket { "chat:1" } else { "chat:2" };
        let mut room = soon(client.subscribe(channel, SubscribeOptions::default())).await.unwrap();
        world.relay.set(|weather| (weather.udp, weather.tcp) = (false, false));
        for number in 1..=10 {
            world.publish(channel, json(number)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.relay.set(|weather| (weather.udp, weather.tcp) = (true, true));
        receives(&mut room, 1..=10).await;
        assert_eq!(client.connected().unwrap().connects, 1);
    }
}
