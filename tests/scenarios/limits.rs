//! How much one session, one user, one address and the whole node may take.

use crate::{
    on_every_transport,
    peer::{Peer, channel, connect, id},
    world::{Way, World, json, token},
};
use skywave_client::{Client, SubscribeOptions};
use skywave_protocol::{
    ClientFrame, CloseCode, ErrorCode, ServerFrame,
    frame::{Connect, Disconnect, Emit, PresenceRequest, Publish, Unsubscribe},
};
use skywave_testing::{eventually, soon};
use std::time::Duration;

on_every_transport! {
    a_full_node_sends_sessions_elsewhere,
    a_session_that_ends_makes_room_for_another,
    one_address_has_so_many_sessions_and_no_more,
    one_user_has_so_many_sessions_and_no_more,
    a_session_that_goes_on_where_its_user_has_too_many_is_sent_elsewhere,
    a_session_that_moves_is_not_counted_twice,
    a_transport_that_says_nothing_is_closed,
    requests_beyond_the_rate_are_refused_and_may_come_later,
    leaving_is_never_refused,
    publishes_beyond_the_rate_are_refused_and_may_come_later,
    a_client_that_publishes_too_fast_gets_all_through,
    a_frame_that_is_too_large_ends_the_session,
    a_frame_of_the_allowed_size_is_taken,
    the_node_counts_its_sessions_and_subscriptions,
}

/// Whether a session of these options is taken; else why not.
async fn admitted(world: &World, connect: Connect) -> Result<Peer, Disconnect> {
    let mut peer = Peer::dial(world).await;
    peer.send(ClientFrame::Connect(connect)).await;
    match peer.next().await.unwrap() {
        ServerFrame::Connected(_) => Ok(peer),
        ServerFrame::Disconnect(disconnect) => Err(disconnect),
        other => panic!("{other:?}"),
    }
}

/// The session may come back, here or elsewhere, but not at once.
fn has_no_place(outcome: Result<Peer, Disconnect>) {
    let refused = outcome.err().expect("it was admitted");
    assert_eq!((refused.code, refused.reconnect), (CloseCode::Overloaded.code(), true));
    assert!(refused.retry_after_ms.is_some_and(|wait_ms| wait_ms >= 1_000), "{refused:?}");
}

async fn a_full_node_sends_sessions_elsewhere(way: Way) {
    let world = World::with(way, &[("LIMITS__SESSIONS", "2")]).await;
    let _one = admitted(&world, connect()).await.unwrap();
    let _two = admitted(&world, connect()).await.unwrap();
    has_no_place(admitted(&world, connect()).await);
}

async fn a_session_that_ends_makes_room_for_another(way: Way) {
    let settings = [("LIMITS__SESSIONS", "1"), ("LIMITS__SESSIONS_PER_ADDRESS", "1")];
    let world = World::with(way, &settings).await;
    for _ in 0..3 {
        let peer = admitted(&world, connect()).await.unwrap();
        peer.close().await;
        eventually("the session has ended", async || world.server.node().sessions.is_empty()).await;
    }
}

async fn one_address_has_so_many_sessions_and_no_more(way: Way) {
    let world = World::with(way, &[("LIMITS__SESSIONS_PER_ADDRESS", "2")]).await;
    let _one = admitted(&world, connect()).await.unwrap();
    let _two = admitted(&world, connect()).await.unwrap();
    // Whoever shares the address is innocent.
    has_no_place(admitted(&world, connect()).await);
    let refusals = &world.server.node().metrics.refusals;
    assert_eq!(refusals.with_label_values(&["limits.sessions_per_address is reached"]).get(), 1);
    let refused = soon(Client::connect(world.options())).await.unwrap_err();
    assert_eq!((refused.code(), refused.is_transient()), (Some(CloseCode::Overloaded.code()), true));
}

async fn one_user_has_so_many_sessions_and_no_more(way: Way) {
    let world = World::secured(way, &[("LIMITS__SESSIONS_PER_USER", "1")]).await;
    let of = |user: &str| Connect { token: Some(token(user, &[]).into()), ..connect() };
    let _alice = admitted(&world, of("alice")).await.unwrap();
    let refused = admitted(&world, of("alice")).await.err().unwrap();
    assert_eq!((refused.code, refused.retry_after_ms), (CloseCode::TooManySessions.code(), None));
    let _bob = admitted(&world, of("bob")).await.unwrap();
}

async fn a_session_that_goes_on_where_its_user_has_too_many_is_sent_elsewhere(way: Way) {
    let world = World::secured(way, &[("LIMITS__SESSIONS_PER_USER", "1")]).await;
    let of_alice = || Connect { token: Some(token("alice", &[]).into()), ..connect() };
    let (away, connected) = Peer::open(&world, of_alice()).await;
    away.close().await;
    eventually("the session has ended", async || world.server.node().sessions.is_empty()).await;
    let _another = admitted(&world, of_alice()).await.unwrap();
    has_no_place(admitted(&world, Connect { resume: Some(connected.resume), ..of_alice() }).await);
}

async fn a_session_that_moves_is_not_counted_twice(way: Way) {
    let settings = [
        ("LIMITS__SESSIONS", "1"),
        ("LIMITS__SESSIONS_PER_ADDRESS", "1"),
        ("LIMITS__SESSIONS_PER_USER", "1"),
    ];
    let world = World::secured(way, &settings).await;
    let of_alice = || Connect { token: Some(token("alice", &[]).into()), ..connect() };
    let (mut older, connected) = Peer::open(&world, of_alice()).await;
    for _ in 0..3 {
        let resume = Connect { resume: Some(connected.resume.clone()), ..of_alice() };
        let (newer, again) = Peer::open(&world, resume).await;
        assert_eq!(again.session, connected.session);
        assert_eq!(older.end().await, CloseCode::Replaced.code());
        older = newer;
    }
    has_no_place(admitted(&world, of_alice()).await);
    older.close().await;
    eventually("the session has ended", async || world.server.node().sessions.is_empty()).await;
    admitted(&world, of_alice()).await.unwrap();
}

async fn a_transport_that_says_nothing_is_closed(way: Way) {
    let world = World::with(way, &[("LIMITS__CONNECT_TIMEOUT", "500ms")]).await;
    let mut peer = Peer::dial(&world).await;
    assert_eq!(peer.end().await, CloseCode::ConnectTimeout.code());
}

async fn requests_beyond_the_rate_are_refused_and_may_come_later(way: Way) {
    let world = World::with(way, &[("LIMITS__REQUESTS_PER_SECOND", "2")]).await;
    let (mut peer, _) = Peer::connected(&world).await;
    let ask = |number| ClientFrame::Presence(PresenceRequest { id: id(number), channel: channel("chat:1") });
    for number in 2..=20 {
        peer.send(ask(number)).await;
    }
    let mut answered = 0;
    let error = loop {
        match peer.next().await.unwrap() {
            ServerFrame::Presence(_) => answered += 1,
            ServerFrame::Error(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((answered, error.id), (4, Some(id(6))), "two seconds' worth may come at once");
    assert_eq!((error.code, error.transient), (ErrorCode::RateLimited.code(), true));
    let wait = error.retry_after_ms.unwrap();
    assert!((1..=501).contains(&wait), "{wait}");
    for _ in 7..=20 {
        assert_eq!(peer.error().await.code, ErrorCode::RateLimited.code());
    }
    tokio::time::sleep(Duration::from_millis(wait)).await;
    peer.send(ask(30)).await;
    match peer.next().await.unwrap() {
        ServerFrame::Presence(presence) => assert_eq!(presence.id, id(30)),
        other => panic!("{other:?}"),
    }
}

async fn leaving_is_never_refused(way: Way) {
    let world = World::with(way, &[("LIMITS__REQUESTS_PER_SECOND", "2")]).await;
    let names: Vec<_> = (0..100).map(|number| format!("chat:{number}")).collect();
    let mut connect = connect();
    connect.subscriptions = names.iter().map(|name| (channel(name), SubscribeOptions::default())).collect();
    let (mut peer, _) = Peer::open(&world, connect).await;
    for (number, name) in (2..).zip(&names) {
        peer.send(ClientFrame::Unsubscribe(Unsubscribe { id: id(number), channel: channel(name) })).await;
    }
    let mut left = 0;
    while left < names.len() {
        match peer.next().await.unwrap() {
            ServerFrame::Unsubscribed(_) => left += 1,
            ServerFrame::Subscribed(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn publishes_beyond_the_rate_are_refused_and_may_come_later(way: Way) {
    let world = World::with(way, &[("LIMITS__PUBLISHES_PER_SECOND", "1")]).await;
    let (mut peer, _) = Peer::connected(&world).await;
    let publish = |number| {
        let data = json(number).into();
        ClientFrame::Publish(Publish { id: id(number), channel: channel("chat:1"), key: None, data })
    };
    for number in 2..=4 {
        peer.send(publish(number)).await;
    }
    let error = peer.error().await;
    assert_eq!((error.id, error.code), (Some(id(4)), ErrorCode::RateLimited.code()));
    tokio::time::sleep(Duration::from_millis(error.retry_after_ms.unwrap())).await;
    peer.send(publish(5)).await;
    let published = peer
        .until(|frame| match frame {
            ServerFrame::Published(published) if published.id == id(5) => Some(published),
            _ => None,
        })
        .await;
    assert_eq!(published.offset, 3);
}

async fn a_client_that_publishes_too_fast_gets_all_through(way: Way) {
    let world = World::with(way, &[("LIMITS__PUBLISHES_PER_SECOND", "20")]).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut room = bob.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let publishes: Vec<_> = (0..50)
        .map(|number| {
            let alice = alice.clone();
            tokio::spawn(async move { alice.publish("chat:1", json(number)).await.unwrap().offset })
        })
        .collect();
    for publish in publishes {
        soon(publish).await.unwrap();
    }
    assert_eq!(crate::world::offsets(&mut room, 50).await, (1..=50).collect::<Vec<_>>());
}

async fn a_frame_that_is_too_large_ends_the_session(way: Way) {
    let world = World::with(way, &[("LIMITS__FRAME_BYTES", "2048")]).await;
    for size in [2048, 100_000] {
        let (mut peer, _) = Peer::connected(&world).await;
        let data = json("x".repeat(size)).into();
        let publish = Publish { id: id(2), channel: channel("chat:1"), key: None, data };
        let encoded = peer.encoding.encode(&ClientFrame::Publish(publish)).unwrap();
        // The node may end the session before all is written.
        let _ = soon(peer.sender.send(&encoded, skywave_client::transport::Lane::Reliable)).await;
        assert_eq!(peer.end().await, CloseCode::FrameTooLarge.code());
    }
}

async fn a_frame_of_the_allowed_size_is_taken(way: Way) {
    let world = World::with(way, &[("LIMITS__FRAME_BYTES", "2048")]).await;
    let (mut peer, connected) = Peer::connected(&world).await;
    let frame = |size: usize| {
        let data = json("x".repeat(size)).into();
        ClientFrame::Emit(Emit { channel: channel("chat:1"), slot: None, data })
    };
    let rest = peer.encoding.encode(&frame(1500)).unwrap().bare().len() - 1500;
    let largest = frame(connected.limits.frame_bytes as usize - rest);
    assert_eq!(peer.encoding.encode(&largest).unwrap().bare().len(), 2048);
    peer.send(largest).await;
    peer.send(ClientFrame::Presence(PresenceRequest { id: id(2), channel: channel("chat:1") })).await;
    peer.until(|frame| matches!(frame, ServerFrame::Presence(_)).then_some(())).await;
}

async fn the_node_counts_its_sessions_and_subscriptions(way: Way) {
    let world = World::new(way).await;
    let counted = || {
        let metrics = world.metrics();
        let sessions = metrics.sessions.with_label_values(&[way.transport()]).get();
        (sessions, metrics.subscriptions.get())
    };
    let client = world.client().await;
    let _one = client.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let _two = client.subscribe("chat:2", SubscribeOptions::default()).await.unwrap();
    assert_eq!(counted(), (1, 2));
    soon(client.close()).await;
    eventually("nothing is counted any more", async || counted() == (0, 0)).await;
}
