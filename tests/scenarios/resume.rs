//! A session goes on after a break, over another transport, and nowhere but with its own secret.

use crate::{
    on_every_transport,
    peer::{Peer, connect, connect_to, id},
    world::{Way, World, json, offsets, presence_changed, status, token},
};
use skywave::{auth::resume::ResumeKey, config::Secret};
use skywave_client::{Client, Status, SubscribeOptions};
use skywave_protocol::{CloseCode, frame::Connect};
use skywave_testing::{
    node::{another, publication},
    soon,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

on_every_transport! {
    what_is_published_reaches_a_subscriber,
    what_was_published_during_a_cut_arrives_once_and_in_order,
    publishes_during_a_cut_take_effect_once,
    a_session_moves_to_the_other_transport_and_back_without_losing_or_repeating,
    a_session_that_was_cut_comes_back_over_the_other_transport,
    a_resume_secret_brings_the_session_back,
    a_broken_resume_secret_gives_a_fresh_session,
    a_resume_secret_of_another_deployment_gives_a_fresh_session,
    an_expired_resume_secret_gives_a_fresh_session,
    the_resume_secret_of_another_user_is_refused,
    an_anonymous_session_is_not_resumed_by_a_user,
    the_older_transport_is_closed_as_replaced,
    presence_does_not_flap_when_a_transport_is_replaced,
}

async fn what_is_published_reaches_a_subscriber(way: Way) {
    let world = World::new(way).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut room = alice.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let published = soon(bob.publish("chat:1", json(7))).await.unwrap();
    let received = publication(&mut room).await;
    assert_eq!(received.data, json(7).into());
    assert_eq!((received.offset, received.epoch), (published.offset, published.epoch));
}

async fn what_was_published_during_a_cut_arrives_once_and_in_order(way: Way) {
    let world = World::new(way).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut room = alice.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let before = alice.connected().unwrap();
    for count in 0..20 {
        if count == 5 {
            soon(alice.cut()).await.unwrap();
        }
        soon(bob.publish("chat:1", json(count))).await.unwrap();
    }
    assert_eq!(offsets(&mut room, 20).await, (1..=20).collect::<Vec<_>>());
    let after = again(&alice, 2).await;
    assert_eq!(before.session, after.session);
    assert!(after.resumed);
}

async fn publishes_during_a_cut_take_effect_once(way: Way) {
    let world = World::new(way).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut room = bob.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let publishes: Vec<_> = (0..60)
        .map(|count| {
            let alice = alice.clone();
            tokio::spawn(async move {
                if count % 20 == 10 {
                    alice.cut().await.unwrap();
                }
                alice.publish("chat:1", json(count)).await.unwrap().offset
            })
        })
        .collect();
    let mut positions = Vec::new();
    for publish in publishes {
        positions.push(soon(publish).await.unwrap());
    }
    positions.sort_unstable();
    assert_eq!(positions, (1..=60).collect::<Vec<_>>());
    let mut numbers = Vec::new();
    for _ in 0..60 {
        numbers.push(publication(&mut room).await.data);
    }
    for count in 0..60 {
        let data = json(count).into();
        assert_eq!(numbers.iter().filter(|number| **number == data).count(), 1, "{count}");
    }
}

async fn a_session_moves_to_the_other_transport_and_back_without_losing_or_repeating(way: Way) {
    let world = World::new(way).await;
    let (alice, bob) = (world.client().await, world.client().await);
    let mut room = alice.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let before = alice.connected().unwrap();
    let publishing = Publishing::start(bob);
    let mut received = offsets(&mut room, 10).await;
    for kind in [another(way.kind()), way.kind()] {
        soon(alice.switch(kind)).await.unwrap();
        let now = alice.connected().unwrap();
        assert_eq!((now.transport, &now.session, now.resumed), (kind, &before.session, true));
        received.extend(offsets(&mut room, 50).await);
    }
    let count = publishing.stop().await;
    received.extend(offsets(&mut room, count - received.len()).await);
    assert_eq!(received, (1..=count as u64).collect::<Vec<_>>());
}

async fn a_session_that_was_cut_comes_back_over_the_other_transport(way: Way) {
    let world = World::new(way).await;
    let (mut peer, first) = Peer::open(&world, connect_to([("chat:1", SubscribeOptions::default())])).await;
    let start = peer.subscribed("chat:1").await.position;
    peer.control.cut();
    let publisher = world.client().await;
    for number in 1..=3 {
        soon(publisher.publish("chat:1", json(number))).await.unwrap();
    }
    let options = SubscribeOptions { position: Some(start), ..SubscribeOptions::default() };
    let connect = Connect { resume: Some(first.resume), ..connect_to([("chat:1", options)]) };
    let (mut peer, again) = Peer::open_on(&world, another(way.kind()), connect).await;
    assert_eq!((again.session, again.resumed), (first.session, true));
    let subscribed = peer.subscribed("chat:1").await;
    assert_eq!((subscribed.recovered, subscribed.recovers), (Some(true), Some(3)));
    for offset in 1..=3 {
        assert_eq!(peer.publication("chat:1").await.offset, offset);
    }
}

async fn a_resume_secret_brings_the_session_back(way: Way) {
    let world = World::new(way).await;
    let (_first, one) = Peer::connected(&world).await;
    let resume = Connect { resume: Some(one.resume), ..connect() };
    let (_second, other) = Peer::open(&world, resume).await;
    assert_eq!((&other.session, other.resumed), (&one.session, true));
}

async fn a_broken_resume_secret_gives_a_fresh_session(way: Way) {
    let world = World::new(way).await;
    let (_first, one) = Peer::connected(&world).await;
    let mut forged = one.resume.to_string();
    forged.replace_range(4..5, if &forged[4..5] == "A" { "B" } else { "A" });
    for secret in [forged, String::new(), "x".repeat(10_000)] {
        let resume = Connect { resume: Some(secret.into()), ..connect() };
        let (_peer, other) = Peer::open(&world, resume).await;
        assert!(!other.resumed);
        assert_ne!(other.session, one.session);
    }
}

async fn a_resume_secret_of_another_deployment_gives_a_fresh_session(way: Way) {
    let world = World::new(way).await;
    let secret = Secret::new("another secret that is long enough to be one");
    let foreign = ResumeKey::new(&secret).issue("theirs", None, 1, SystemTime::now());
    let (_peer, connected) = Peer::open(&world, Connect { resume: Some(foreign.into()), ..connect() }).await;
    assert!(!connected.resumed);
    assert_ne!(&*connected.session, "theirs");
    assert_eq!(world.refused_for("the resume secret is broken, or of other nodes"), 1);
}

async fn an_expired_resume_secret_gives_a_fresh_session(way: Way) {
    let world = World::new(way).await;
    let key = &world.server.node().resume_key;
    let two_days_ago = SystemTime::now() - Duration::from_secs(2 * 86_400);
    let old = key.issue("old", None, 1, two_days_ago);
    let (_peer, connected) = Peer::open(&world, Connect { resume: Some(old.into()), ..connect() }).await;
    assert!(!connected.resumed);
    assert_ne!(&*connected.session, "old");
    assert_eq!(world.refused_for("the resume secret has expired"), 1);
}

async fn the_resume_secret_of_another_user_is_refused(way: Way) {
    let world = World::secured(way, &[]).await;
    let of_alice = Connect { token: Some(token("alice", &[]).into()), ..connect() };
    let (_alice, connected) = Peer::open(&world, of_alice).await;
    let of_bob =
        Connect { token: Some(token("bob", &[]).into()), resume: Some(connected.resume), ..connect() };
    let mut bob = Peer::dial(&world).await;
    bob.send(skywave_protocol::ClientFrame::Connect(of_bob)).await;
    assert_eq!(bob.end().await, CloseCode::Unauthenticated.code());
    assert!(world.server.node().sessions.contains(&connected.session));
}

async fn an_anonymous_session_is_not_resumed_by_a_user(way: Way) {
    let world = World::secured(way, &[("AUTH__ANONYMOUS", "true")]).await;
    let (_anonymous, connected) = Peer::connected(&world).await;
    let of_bob =
        Connect { token: Some(token("bob", &[]).into()), resume: Some(connected.resume), ..connect() };
    let mut bob = Peer::dial(&world).await;
    bob.send(skywave_protocol::ClientFrame::Connect(of_bob)).await;
    assert_eq!(bob.end().await, CloseCode::Unauthenticated.code());
}

async fn the_older_transport_is_closed_as_replaced(way: Way) {
    let world = World::new(way).await;
    let (mut older, connected) = Peer::connected(&world).await;
    let resume = Connect { id: id(9), resume: Some(connected.resume), ..connect() };
    let (_newer, again) = Peer::open_on(&world, another(way.kind()), resume).await;
    assert_eq!(again.id, id(9));
    assert_eq!(older.end().await, CloseCode::Replaced.code());
    assert_eq!(world.server.node().sessions.len(), 1);
}

async fn presence_does_not_flap_when_a_transport_is_replaced(way: Way) {
    // Without grace and batches a flap would be told at once.
    let settings = [
        ("CHANNELS__CHAT__PRESENCE", "true"),
        ("CHANNELS__CHAT__PRESENCE_GRACE", "0s"),
        ("CHANNELS__CHAT__PRESENCE_BATCH", "0s"),
    ];
    let world = World::with(way, &settings).await;
    let with_presence = SubscribeOptions { presence: true, ..SubscribeOptions::default() };
    let observer = world.client().await;
    let mut room = observer.subscribe("chat:1", with_presence).await.unwrap();
    let there = || connect_to([("chat:1", SubscribeOptions::default())]);
    let (mut older, connected) = Peer::open(&world, there()).await;
    while presence_changed(&mut room).await.joined.iter().all(|member| member.session != connected.session) {}
    let resume = Connect { resume: Some(connected.resume), ..there() };
    let (mut newer, _) = Peer::open(&world, resume).await;
    newer.subscribed("chat:1").await;
    assert_eq!(older.end().await, CloseCode::Replaced.code());
    let (_third, third) = Peer::open(&world, there()).await;
    let change = presence_changed(&mut room).await;
    assert_eq!(change.left, []);
    let joined: Vec<_> = change.joined.into_iter().map(|member| member.session).collect();
    assert_eq!((joined, change.count), (vec![third.session], 3));
}

/// Waits until the client is connected for the `connects`th time.
async fn again(client: &Client, connects: u64) -> Arc<skywave_client::Connected> {
    status(client, |status| match status {
        Status::Connected(connected) if connected.connects >= connects => Some(connected.clone()),
        _ => None,
    })
    .await
}

/// Publishes one after the other until it is stopped.
struct Publishing {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<usize>,
}

impl Publishing {
    fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                client.publish("chat:1", json(count)).await.unwrap();
                count += 1;
            }
            count
        });
        Self { stop, task }
    }

    /// How many were published.
    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        soon(self.task).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_at_another_node_that_shares_the_secret() {
    let secret = ("AUTH__SESSION_SECRET", "a secret that both of the nodes share");
    let (here, there) =
        (World::with(Way::WebTransport, &[secret]).await, World::with(Way::WebSocketJson, &[secret]).await);
    let (_first, one) = Peer::connected(&here).await;
    let (_second, other) = Peer::open(&there, Connect { resume: Some(one.resume), ..connect() }).await;
    assert_eq!((other.session, other.resumed), (one.session, true));
    assert_ne!(other.node, one.node);
}
