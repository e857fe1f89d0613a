//! Paths that change, are blocked, or lose and reorder packets.

use crate::{World, number, options, receives, streams::ChannelStream};
use quinn::TransportConfig;
use serde_json::json;
use skywave_client::{Client, SubscribeOptions, TransportChoice, TransportKind};
use skywave_testing::{soon, webtransport::RawSession};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// What a user may have to wait for a session where UDP is dropped in silence.
const FALLBACK_PROMISE: Duration = Duration::from_secs(1);
/// Other tests use the machine at the same time: the promise must be kept in one of so many attempts.
const ATTEMPTS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_webtransport_session_goes_on_from_another_address() {
    let world = World::new(&[]).await;
    let client = world.client(TransportChoice::WebTransport).await;
    let mut room = soon(client.subscribe("chat:1", SubscribeOptions::default())).await.unwrap();
    for count in 1..=100 {
        if count == 50 {
            world.relay.rebind().await;
        }
        soon(client.publish("chat:2", number(count))).await.unwrap();
        world.publish("chat:1", number(count)).await;
    }
    receives(&mut room, 1..=100).await;
    assert_eq!(client.connected().unwrap().connects, 1);
    assert_eq!(world.server.node().metrics.address_changes.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_sends_no_frame_goes_on_from_another_address() {
    let world = World::new(&[]).await;
    let mut transport = TransportConfig::default();
    // Packets that hold no frame, so that the node hears of the new address at all.
    transport.keep_alive_interval(Some(Duration::from_millis(20)));
    let session = RawSession::open(world.relay.address(), transport).await;
    let mut control = session.connect(json!({"chat:1": {}})).await;
    assert!(control.frame().await["subscribed"].is_object());
    world.publish("chat:1", number(1)).await;
    let mut room = ChannelStream::accept(&session).await;
    assert_eq!(room.next().await, ("chat:1".to_owned(), 1));
    world.relay.rebind().await;
    let changes = &world.server.node().metrics.address_changes;
    let mut published = 1;
    soon(async {
        while changes.get() == 0 {
            published += 1;
            world.publish("chat:1", number(published)).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for offset in 2..=published {
        assert_eq!(room.next().await, ("chat:1".to_owned(), offset));
    }
    assert_eq!(changes.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_goes_on_from_another_address_counts_there() {
    let world = World::new(&[("LIMITS__SESSIONS_PER_ADDRESS", "1")]).await;
    let client = world.client(TransportChoice::WebTransport).await;
    let mut room = soon(client.subscribe("chat:1", SubscribeOptions::default())).await.unwrap();
    let elsewhere = IpAddr::from([127, 0, 0, 2]);
    world.relay.rebind_to(elsewhere).await;
    for offset in 1..=3 {
        soon(client.publish("chat:1", number(offset))).await.unwrap();
        receives(&mut room, offset..=offset).await;
    }
    let node = world.server.node();
    let addresses: Vec<_> = node.sessions.all().iter().map(|(_, attached)| attached.address.ip()).collect();
    assert_eq!(addresses, [elsewhere]);
    // There is no place more where it is, and one where it was.
    assert!(node.sessions.quotas.take(elsewhere, None).is_err());
    let _other = world.direct(TransportChoice::WebTransport).await;
    assert_eq!(node.sessions.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_udp_is_blocked_a_session_is_open_within_a_second() {
    let world = World::new(&[]).await;
    world.relay.set(|weather| weather.udp = false);
    let mut times = Vec::new();
    for _ in 0..ATTEMPTS {
        let begin = Instant::now();
        let client =
            soon(Client::connect(options(world.relay.address(), TransportChoice::Auto))).await.unwrap();
        times.push(begin.elapsed());
        assert_eq!(client.connected().unwrap().transport, TransportKind::WebSocket);
        if times.last().unwrap() < &FALLBACK_PROMISE {
            return;
        }
    }
    panic!("{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_udp_is_let_through_sessions_use_webtransport_again() {
    let world = World::new(&[]).await;
    world.relay.set(|weather| weather.udp = false);
    let client = world.client(TransportChoice::Auto).await;
    let mut room = soon(client.subscribe("chat:1", SubscribeOptions::default())).await.unwrap();
    world.publish("chat:1", number(1)).await;
    soon(client.switch(TransportKind::WebTransport)).await.unwrap_err();
    assert_eq!(client.connected().unwrap().transport, TransportKind::WebSocket);
    world.publish("chat:1", number(2)).await;
    world.relay.set(|weather| weather.udp = true);
    soon(client.switch(TransportKind::WebTransport)).await.unwrap();
    world.publish("chat:1", number(3)).await;
    receives(&mut room, 1..=3).await;
    assert_eq!(client.connected().unwrap().transport, TransportKind::WebTransport);
    let next = world.client(TransportChoice::Auto).await;
    assert_eq!(next.connected().unwrap().transport, TransportKind::WebTransport);
}

/// Publishes on three channels from one client to another, both behind the relay.
async fn everything_arrives(world: &World, transport: TransportChoice) {
    const CHANNELS: [&str; 3] = ["chat:1", "chat:2", "chat:3"];
    const COUNT: u64 = 100;
    let (sender, receiver) = (world.client(transport).await, world.client(transport).await);
    let mut rooms = Vec::new();
    for channel in CHANNELS {
        rooms.push(soon(receiver.subscribe(channel, SubscribeOptions::default())).await.unwrap());
    }
    let publishing = CHANNELS.map(|channel| {
        let sender = sender.clone();
        tokio::spawn(async move {
            for count in 1..=COUNT {
                let published = soon(sender.publish(channel, number(count))).await.unwrap();
                assert_eq!(published.offset, count);
            }
        })
    });
    for room in &mut rooms {
        for count in 1..=COUNT {
            let publication = crate::publication(room).await;
            assert_eq!((publication.offset, publication.data), (count, number(count).into()));
        }
    }
    for publishing in publishing {
        soon(publishing).await.unwrap();
    }
    for client in [sender, receiver] {
        assert_eq!(client.connected().unwrap().connects, 1);
    }
}

async fn everything_arrives_over_udp_that_loses(loss: f64) {
    let world = World::new(&[]).await;
    world.relay.set(|weather| {
        weather.loss = loss;
        weather.jitter = Duration::from_millis(10);
    });
    everything_arrives(&world, TransportChoice::WebTransport).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_percent_of_lost_packets_and_reordering_lose_and_reorder_no_publication() {
    everything_arrives_over_udp_that_loses(0.02).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_percent_of_lost_packets_and_reordering_lose_and_reorder_no_publication() {
    everything_arrives_over_udp_that_loses(0.10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_on_tcp_lose_and_reorder_no_publication() {
    let world = World::new(&[]).await;
    world.relay.set(|weather| weather.jitter = Duration::from_millis(20));
    everything_arrives(&world, TransportChoice::WebSocket).await;
}
