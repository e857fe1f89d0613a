//! Pings, their answers, and what becomes of a session that gives none.

use crate::{
    on_every_transport,
    peer::{Peer, channel, connect, id},
    world::{Way, World},
};
use skywave_client::{Network, transport::Lane};
use skywave_protocol::{
    ClientFrame, CloseCode, ServerFrame,
    frame::{Connect, Ping, Pong, PresenceRequest},
};
use skywave_testing::eventually;
use std::time::Duration;
use tokio::time::Instant;

on_every_transport! {
    a_session_that_answers_pings_stays,
    a_session_that_gives_no_sign_of_life_is_ended,
    a_session_that_sends_anything_stays,
    traffic_in_both_directions_needs_no_pings,
    a_client_answers_pings_by_itself,
    a_session_in_the_foreground_is_pinged_more_often,
    a_hint_on_connect_counts_from_the_beginning,
    where_someone_looks_the_client_is_soon_told_to_wait_twelve_seconds_at_most,
    round_trip_times_show_in_the_metrics,
}

const FAST: [(&str, &str); 2] = [("HEARTBEAT__MIN", "100ms"), ("HEARTBEAT__MAX", "200ms")];

async fn ping(peer: &mut Peer) -> Ping {
    peer.until(|frame| match frame {
        ServerFrame::Ping(ping) => Some(ping),
        _ => None,
    })
    .await
}

async fn answer(peer: &mut Peer) -> Ping {
    let ping = ping(peer).await;
    peer.send_on(Lane::Datagram, ClientFrame::Pong(Pong { seq: ping.seq })).await;
    ping
}

/// Answers pings until the node knows the path well enough to notice a death within seconds.
async fn settle(peer: &mut Peer) -> Ping {
    let mut told = answer(peer).await;
    while told.timeout_ms > 4_000 {
        told = answer(peer).await;
    }
    told
}

async fn a_session_that_answers_pings_stays(way: Way) {
    let world = World::with(way, &FAST).await;
    let (mut peer, connected) = Peer::connected(&world).await;
    assert!((100..=200).contains(&connected.heartbeat.interval_ms), "{:?}", connected.heartbeat);
    let first = answer(&mut peer).await;
    for beat in 1..10 {
        let ping = answer(&mut peer).await;
        assert!(ping.seq >= first.seq + beat, "each ping has a number of its own");
        assert!((100..=200).contains(&ping.interval_ms), "{ping:?}");
    }
    assert_eq!(world.server.node().sessions.len(), 1);
}

async fn a_session_that_gives_no_sign_of_life_is_ended(way: Way) {
    let world = World::with(way, &FAST).await;
    let (mut peer, _) = Peer::connected(&world).await;
    let told = settle(&mut peer).await;
    let began = Instant::now();
    let patience = Duration::from_millis(told.interval_ms + told.timeout_ms);
    assert_eq!(peer.end().await, CloseCode::HeartbeatTimeout.code());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(told.interval_ms / 2), "{took:?}");
    assert!(took < patience + Duration::from_secs(2), "{took:?} where {patience:?} was told");
    eventually("its end is counted", async || world.closed_with(CloseCode::HeartbeatTimeout) == 1).await;
}

async fn a_session_that_sends_anything_stays(way: Way) {
    let world = World::with(way, &FAST).await;
    let (mut peer, _) = Peer::connected(&world).await;
    let told = settle(&mut peer).await;
    let until = Instant::now() + Duration::from_millis((told.interval_ms + told.timeout_ms) * 3 / 2);
    let mut number = 2;
    while Instant::now() < until {
        peer.send(ClientFrame::Presence(PresenceRequest { id: id(number), channel: channel("chat:1") }))
            .await;
        peer.until(|frame| matches!(frame, ServerFrame::Presence(_)).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        number += 1;
    }
    assert_eq!(world.server.node().sessions.len(), 1);
}

async fn traffic_in_both_directions_needs_no_pings(way: Way) {
    let interval = Duration::from_millis(500);
    let world = World::with(way, &[("HEARTBEAT__MIN", "500ms"), ("HEARTBEAT__MAX", "500ms")]).await;
    let (mut peer, _) = Peer::connected(&world).await;
    let until = Instant::now() + 3 * interval;
    let mut number = 2;
    while Instant::now() < until {
        peer.send(ClientFrame::Presence(PresenceRequest { id: id(number), channel: channel("chat:1") }))
            .await;
        peer.until(|frame| matches!(frame, ServerFrame::Presence(_)).then_some(())).await;
        tokio::time::sleep(interval / 25).await;
        number += 1;
    }
    assert_eq!(world.metrics().pings.with_label_values(&[way.transport()]).get(), 0);
}

async fn a_client_answers_pings_by_itself(way: Way) {
    let world = World::with(way, &FAST).await;
    let client = world.client().await;
    let pings = || world.metrics().pings.with_label_values(&[way.transport()]).get();
    eventually("it is pinged ten times", async || pings() >= 10).await;
    assert_eq!(client.connected().unwrap().connects, 1);
}

const SLOW_UNLESS_LOOKED_AT: [(&str, &str); 5] = [
    ("HEARTBEAT__MIN", "100ms"),
    ("HEARTBEAT__MAX", "10s"),
    ("HEARTBEAT__FOREGROUND_MAX", "150ms"),
    ("HEARTBEAT__UDP_START", "1s"),
    ("HEARTBEAT__TCP_START", "1s"),
];

fn looked_at() -> Network {
    Network { kind: None, background: Some(false) }
}

async fn a_session_in_the_foreground_is_pinged_more_often(way: Way) {
    let world = World::with(way, &SLOW_UNLESS_LOOKED_AT).await;
    let (mut peer, connected) = Peer::connected(&world).await;
    assert!(connected.heartbeat.interval_ms > 150, "{:?}", connected.heartbeat);
    peer.send(ClientFrame::Network(looked_at())).await;
    while answer(&mut peer).await.interval_ms > 150 {}
}

async fn a_hint_on_connect_counts_from_the_beginning(way: Way) {
    let world = World::with(way, &SLOW_UNLESS_LOOKED_AT).await;
    let (_peer, connected) = Peer::open(&world, Connect { network: Some(looked_at()), ..connect() }).await;
    assert!(connected.heartbeat.interval_ms <= 150, "{:?}", connected.heartbeat);
}

async fn where_someone_looks_the_client_is_soon_told_to_wait_twelve_seconds_at_most(way: Way) {
    let world = World::with(way, &[]).await;
    let (mut peer, connected) = Peer::open(&world, Connect { network: Some(looked_at()), ..connect() }).await;
    let mut told_ms = vec![connected.heartbeat.interval_ms + connected.heartbeat.timeout_ms];
    // The first pings come a second after each other, and a busy machine is a slow path.
    while told_ms.last() > Some(&12_000) && told_ms.len() < 5 {
        let ping = answer(&mut peer).await;
        told_ms.push(ping.interval_ms + ping.timeout_ms);
    }
    assert!(told_ms.last() <= Some(&12_000), "{told_ms:?}");
}

async fn round_trip_times_show_in_the_metrics(way: Way) {
    let world = World::with(way, &FAST).await;
    let _client = world.client().await;
    let samples = || world.metrics().session_rtt.with_label_values(&[way.transport()]).get_sample_count();
    eventually("there are samples", async || samples() >= 2).await;
}
