//! Who is there, who came and who went.

use crate::{
    on_every_transport,
    peer::{Peer, channel, connect, connect_to, id},
    world::{TOKEN_SECRET, Way, World, json, presence_changed, refused, subscribed, token},
};
use skywave::{
    auth::mint::{Claims, Minter},
    config::Secret,
    rights::Right,
};
use skywave_client::{Members, SubscribeOptions, Subscription};
use skywave_protocol::{
    ClientFrame, ErrorCode, ServerFrame,
    frame::{Connect, SessionId, Subscribe, Unsubscribe},
};
use skywave_testing::soon;
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

on_every_transport! {
    who_is_there_is_told_on_subscribing,
    a_request_tells_who_is_there,
    those_who_come_together_are_told_together,
    those_of_whom_there_is_too_much_to_tell_at_once_show_in_the_count,
    one_who_comes_and_goes_at_once_is_not_told,
    one_who_goes_before_its_coming_was_told_but_was_listed_is_told,
    one_who_leaves_is_told_at_once,
    one_whose_transport_ends_is_there_for_the_grace_period,
    one_who_comes_back_in_time_is_not_told,
    one_who_comes_back_with_another_token_is_shown_as_that_says,
    one_session_on_two_channels_is_present_on_each,
    who_did_not_ask_is_not_told,
    a_namespace_without_presence_has_none,
    presence_needs_the_right,
}

const PRESENCE: (&str, &str) = ("CHANNELS__CHAT__PRESENCE", "true");
const AT_ONCE: (&str, &str) = ("CHANNELS__CHAT__PRESENCE_BATCH", "0s");

fn grace(period: &'static str) -> (&'static str, &'static str) {
    ("CHANNELS__CHAT__PRESENCE_GRACE", period)
}

fn with_presence() -> SubscribeOptions {
    SubscribeOptions { presence: true, ..SubscribeOptions::default() }
}

fn there() -> Connect {
    connect_to([("chat:1", SubscribeOptions::default())])
}

/// A subscription with presence that has been told of itself.
async fn observe(world: &World) -> Subscription {
    let client = world.client().await;
    let mut room = client.subscribe("chat:1", with_presence()).await.unwrap();
    let own = client.connected().unwrap().session.clone();
    while presence_changed(&mut room).await.joined.iter().all(|member| member.session != own) {}
    room
}

/// Who joined, who left and how many are there, by the next change.
async fn change(room: &mut Subscription) -> (Vec<SessionId>, Vec<SessionId>, u64) {
    let change = presence_changed(room).await;
    let sessions =
        |members: Vec<skywave_client::Member>| members.into_iter().map(|one| one.session).collect();
    (sessions(change.joined), sessions(change.left), change.count)
}

async fn who_is_there_is_told_on_subscribing(way: Way) {
    let world = World::secured(way, &[("CHANNELS__CHAT__ALLOW", "subscribe,presence")]).await;
    let alice = world.client_with(token("alice", &[])).await;
    let _room = alice.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let bob = world.client_with(token("bob", &[])).await;
    let mut room = bob.subscribe("chat:1", with_presence()).await.unwrap();
    let Members { count, members } = subscribed(&mut room).await.presence.unwrap();
    assert_eq!(count, 2);
    let of_alice = members.iter().find(|member| member.user.as_deref() == Some("alice")).unwrap();
    assert_eq!(of_alice.session, alice.connected().unwrap().session);
    assert_eq!(of_alice.data, Some(json(serde_json::json!({ "name": "alice" }))));
    assert!(of_alice.since_ms > 1_600_000_000_000);
}

async fn a_request_tells_who_is_there(way: Way) {
    let world = World::with(way, &[PRESENCE, grace("0s")]).await;
    let outsider = world.client().await;
    assert_eq!(soon(outsider.presence("chat:1")).await.unwrap().count, 0);
    let (mut one, first) = Peer::open(&world, there()).await;
    let (mut other, second) = Peer::open(&world, there()).await;
    one.subscribed("chat:1").await;
    other.subscribed("chat:1").await;
    let presence = soon(outsider.presence("chat:1")).await.unwrap();
    let sessions: BTreeSet<_> =
        presence.members.into_iter().map(|member| member.session.to_string()).collect();
    assert_eq!(sessions, [first.session.to_string(), second.session.to_string()].into());
    assert_eq!(presence.count, 2);
}

async fn those_who_come_together_are_told_together(way: Way) {
    let world = World::with(way, &[PRESENCE, ("CHANNELS__CHAT__PRESENCE_BATCH", "500ms")]).await;
    let mut room = observe(&world).await;
    let mut peers = Vec::new();
    for _ in 0..5 {
        peers.push(Peer::connected(&world).await);
    }
    for (peer, _) in &mut peers {
        peer.send(subscribe(2)).await;
    }
    let (joined, left, count) = change(&mut room).await;
    let expected: BTreeSet<_> = peers.iter().map(|(_, connected)| connected.session.to_string()).collect();
    assert_eq!(joined.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), expected);
    assert_eq!((left, count), (vec![], 6));
}

/// A token of a user of whom presence shows this much.
fn token_with_details(user: &str, bytes: usize) -> String {
    let details = serde_json::json!({ "about": "x".repeat(bytes) });
    let claims = Claims {
        user: Some(user.to_owned()),
        channels: Vec::new(),
        info: Some(serde_json::value::to_raw_value(&details).unwrap()),
        audience: None,
        issuer: None,
        lifetime: Duration::from_secs(600),
    };
    Minter::from_secret(&Secret::new(TOKEN_SECRET)).mint(&claims, SystemTime::now()).unwrap()
}

async fn those_of_whom_there_is_too_much_to_tell_at_once_show_in_the_count(way: Way) {
    const COUNT: usize = 20;
    let settings = [
        ("CHANNELS__CHAT__ALLOW", "subscribe,presence"),
        ("CHANNELS__CHAT__PRESENCE_BATCH", "500ms"),
        ("LIMITS__OUTBOX_BYTES", "65536"),
    ];
    let world = World::secured(way, &settings).await;
    let client = world.client_with(token("alice", &[])).await;
    let mut room = client.subscribe("chat:1", with_presence()).await.unwrap();
    assert_eq!(change(&mut room).await.2, 1);
    let mut peers = Vec::new();
    for number in 0..COUNT {
        let token = Some(token_with_details(&format!("user-{number}"), 4_000).into());
        peers.push(Peer::open(&world, Connect { token, ..connect() }).await.0);
    }
    for peer in &mut peers {
        peer.send(subscribe(2)).await;
    }
    // Their details alone are more than may wait for a session.
    while change(&mut room).await.2 != COUNT as u64 + 1 {}
    let presence = soon(client.presence("chat:1")).await.unwrap();
    assert_eq!(presence.members.len(), COUNT + 1);
}

async fn one_who_comes_and_goes_at_once_is_not_told(way: Way) {
    let world = World::with(way, &[PRESENCE, ("CHANNELS__CHAT__PRESENCE_BATCH", "500ms")]).await;
    let mut room = observe(&world).await;
    let (mut hasty, _) = Peer::connected(&world).await;
    let (mut steady, connected) = Peer::connected(&world).await;
    hasty.send(subscribe(2)).await;
    hasty.send(unsubscribe(3)).await;
    hasty.until(|frame| matches!(frame, ServerFrame::Unsubscribed(_)).then_some(())).await;
    steady.send(subscribe(2)).await;
    assert_eq!(change(&mut room).await, (vec![connected.session], vec![], 2));
}

async fn one_who_goes_before_its_coming_was_told_but_was_listed_is_told(way: Way) {
    let world = World::with(way, &[PRESENCE, ("CHANNELS__CHAT__PRESENCE_BATCH", "2s")]).await;
    let (mut hasty, connected) = Peer::open(&world, there()).await;
    hasty.subscribed("chat:1").await;
    let client = world.client().await;
    let mut room = client.subscribe("chat:1", with_presence()).await.unwrap();
    assert_eq!(subscribed(&mut room).await.presence.unwrap().count, 2);
    hasty.send(unsubscribe(3)).await;
    let own = client.connected().unwrap().session.clone();
    assert_eq!(change(&mut room).await, (vec![own], vec![connected.session], 1));
}

async fn one_who_leaves_is_told_at_once(way: Way) {
    let world = World::with(way, &[PRESENCE, AT_ONCE, grace("10m")]).await;
    let mut room = observe(&world).await;
    let (mut peer, connected) = Peer::open(&world, there()).await;
    assert_eq!(change(&mut room).await, (vec![connected.session.clone()], vec![], 2));
    peer.send(unsubscribe(2)).await;
    assert_eq!(change(&mut room).await, (vec![], vec![connected.session], 1));
}

async fn one_whose_transport_ends_is_there_for_the_grace_period(way: Way) {
    let world = World::with(way, &[PRESENCE, AT_ONCE, grace("400ms")]).await;
    let mut room = observe(&world).await;
    let (peer, connected) = Peer::open(&world, there()).await;
    change(&mut room).await;
    let ended = Instant::now();
    peer.close().await;
    assert_eq!(change(&mut room).await, (vec![], vec![connected.session], 1));
    assert!(ended.elapsed() >= Duration::from_millis(400));
}

async fn one_who_comes_back_in_time_is_not_told(way: Way) {
    let world = World::with(way, &[PRESENCE, AT_ONCE, grace("10m")]).await;
    let mut room = observe(&world).await;
    let (peer, connected) = Peer::open(&world, there()).await;
    change(&mut room).await;
    peer.close().await;
    let resume = Connect { resume: Some(connected.resume), ..there() };
    let (mut again, resumed) = Peer::open(&world, resume).await;
    assert_eq!(resumed.session, connected.session);
    again.subscribed("chat:1").await;
    let (_third, third) = Peer::open(&world, there()).await;
    assert_eq!(change(&mut room).await, (vec![third.session], vec![], 3));
}

async fn one_who_comes_back_with_another_token_is_shown_as_that_says(way: Way) {
    let world = World::secured(way, &[PRESENCE, ("CHANNELS__CHAT__ALLOW", "subscribe,presence")]).await;
    let observer = world.client_with(token("bob", &[])).await;
    let (mut resume, mut since) = (None, BTreeSet::new());
    for about in ["x", "xx"] {
        let token = token_with_details("alice", about.len()).into();
        let (mut peer, connected) =
            Peer::open(&world, Connect { token: Some(token), resume, ..there() }).await;
        peer.subscribed("chat:1").await;
        let members = soon(observer.presence("chat:1")).await.unwrap().members;
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].data, Some(json(serde_json::json!({ "about": about }))));
        since.insert(members[0].since_ms);
        peer.close().await;
        resume = Some(connected.resume);
    }
    assert_eq!(since.len(), 1, "it has been there all the time");
}

async fn one_session_on_two_channels_is_present_on_each(way: Way) {
    let world = World::with(way, &[PRESENCE, AT_ONCE]).await;
    let client = world.client().await;
    let _one = client.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
    let _other = client.subscribe("chat:2", SubscribeOptions::default()).await.unwrap();
    for name in ["chat:1", "chat:2"] {
        let presence = soon(client.presence(name)).await.unwrap();
        assert_eq!((presence.count, &presence.members[0].session), (1, &client.connected().unwrap().session));
    }
}

async fn who_did_not_ask_is_not_told(way: Way) {
    let world = World::with(way, &[PRESENCE, AT_ONCE, ("CHANNELS__CHAT__HISTORY", "10")]).await;
    let mut witness = observe(&world).await;
    let (mut peer, connected) = Peer::open(&world, there()).await;
    peer.subscribed("chat:1").await;
    assert_eq!(change(&mut witness).await.0, [connected.session]);
    let (_other, other) = Peer::open(&world, there()).await;
    assert_eq!(change(&mut witness).await.0, [other.session]);
    soon(world.client().await.publish("chat:1", json(1))).await.unwrap();
    match peer.next().await.unwrap() {
        ServerFrame::Publication(publication) => assert_eq!(publication.offset, 1),
        other => panic!("{other:?}"),
    }
}

async fn a_namespace_without_presence_has_none(way: Way) {
    let world = World::with(way, &[("CHANNELS__CHAT__PRESENCE", "false")]).await;
    let client = world.client().await;
    assert_eq!(refused(soon(client.presence("chat:1")).await), ErrorCode::NotAvailable);
    assert_eq!(refused(client.subscribe("chat:1", with_presence()).await), ErrorCode::NotAvailable);
    client.subscribe("chat:1", SubscribeOptions::default()).await.unwrap();
}

async fn presence_needs_the_right(way: Way) {
    let world = World::secured(way, &[]).await;
    let client = world.client_with(token("alice", &[("chat:*", &[Right::Subscribe])])).await;
    assert_eq!(refused(soon(client.presence("chat:1")).await), ErrorCode::Forbidden);
    assert_eq!(refused(client.subscribe("chat:1", with_presence()).await), ErrorCode::Forbidden);
}

fn subscribe(number: u32) -> ClientFrame {
    let channel = channel("chat:1");
    ClientFrame::Subscribe(Subscribe {
        id: id(number),
        channel,
        position: None,
        history: None,
        presence: false,
    })
}

fn unsubscribe(number: u32) -> ClientFrame {
    ClientFrame::Unsubscribe(Unsubscribe { id: id(number), channel: channel("chat:1") })
}
