//! Subscribing and publishing: what arrives, what is refused, and what is told when something is lost.

use crate::{
    on_every_transport,
    peer::{Peer, channel, connect_to, from_the_beginning, id},
    world::{Way, World, gap, json, next, offsets, refused, subscribed, token},
};
use bytes::Bytes;
use skywave::rights::Right;
use skywave_client::{ChannelEvent, GapReason, Json, Payload, Position, SubscribeOptions};
use skywave_protocol::{
    ClientFrame, ErrorCode, Point, ServerFrame, Text,
    frame::{Subscribe, Unsubscribe},
};
use skywave_testing::{
    node::{connect as connect_client, publication},
    soon,
};

on_every_transport! {
    an_unknown_namespace_is_refused,
    what_nobody_allowed_is_forbidden,
    the_namespace_allows_every_session,
    leaving_a_channel_that_was_not_joined_is_refused,
    joining_a_channel_twice_is_refused,
    more_channels_than_the_limit_are_refused,
    a_channel_that_was_left_makes_room_for_another,
    a_subscription_begins_now_unless_asked_otherwise,
    a_subscription_begins_with_the_last_publications_that_it_asks_for,
    a_subscription_goes_on_after_its_position,
    what_is_published_during_recovery_comes_once_and_in_order,
    a_recovery_longer_than_the_outbox_is_complete,
    a_position_that_history_no_longer_reaches_is_told,
    a_position_of_another_epoch_is_told,
    a_position_beyond_the_head_is_told,
    nothing_of_a_channel_comes_after_it_was_left,
    a_user_channel_is_its_users_alone,
    publishing_needs_the_right_and_no_subscription,
    a_publish_with_a_known_key_is_answered_with_its_first_position,
    a_publisher_gets_its_own_publication,
    a_payload_arrives_as_it_was_sent_in_either_encoding,
    the_publisher_is_told_to_the_subscribers,
    channels_do_not_mix,
}

fn options() -> SubscribeOptions {
    SubscribeOptions::default()
}

fn at(position: &Position, offset: u64) -> Position {
    position
        .iter()
        .map(|(origin, point)| (origin.clone(), Point { epoch: point.epoch.clone(), offset }))
        .collect()
}

fn from(position: Position) -> SubscribeOptions {
    SubscribeOptions { position: Some(position), ..options() }
}

async fn publish(world: &World, name: &str, count: u64) {
    let publisher = world.client().await;
    for number in 1..=count {
        soon(publisher.publish(name, json(number))).await.unwrap();
    }
}

/// The channel's position now.
async fn head(world: &World, name: &str) -> Position {
    let client = world.client().await;
    let mut room = client.subscribe(name, options()).await.unwrap();
    subscribed(&mut room).await.position
}

async fn an_unknown_namespace_is_refused(way: Way) {
    let world = World::new(way).await;
    let client = world.client().await;
    assert_eq!(refused(client.subscribe("nowhere:1", options()).await), ErrorCode::UnknownNamespace);
    assert_eq!(refused(soon(client.publish("nowhere:1", json(1))).await), ErrorCode::UnknownNamespace);
}

async fn what_nobody_allowed_is_forbidden(way: Way) {
    let world = World::secured(way, &[]).await;
    let client = world.client_with(token("alice", &[("chat:other", &Right::ALL)])).await;
    assert_eq!(refused(client.subscribe("chat:1", options()).await), ErrorCode::Forbidden);
    assert_eq!(refused(soon(client.publish("chat:1", json(1))).await), ErrorCode::Forbidden);
}

async fn the_namespace_allows_every_session(way: Way) {
    let world = World::secured(way, &[("CHANNELS__CHAT__ALLOW", "subscribe")]).await;
    let client = world.client_with(token("alice", &[])).await;
    client.subscribe("chat:1", options()).await.unwrap();
    assert_eq!(refused(soon(client.publish("chat:1", json(1))).await), ErrorCode::Forbidden);
}

async fn leaving_a_channel_that_was_not_joined_is_refused(way: Way) {
    let world = World::new(way).await;
    let (mut peer, _) = Peer::connected(&world).await;
    peer.send(ClientFrame::Unsubscribe(Unsubscribe { id: id(2), channel: channel("chat:1") })).await;
    assert_eq!(peer.error().await.code, ErrorCode::NotSubscribed.code());
}

async fn joining_a_channel_twice_is_refused(way: Way) {
    let world = World::new(way).await;
    let (mut peer, _) = Peer::open(&world, connect_to([("chat:1", options())])).await;
    peer.subscribed("chat:1").await;
    peer.send(subscribe(2, "chat:1", options())).await;
    assert_eq!(peer.error().await.code, ErrorCode::AlreadySubscribed.code());
    publish(&world, "chat:1", 2).await;
    assert_eq!([peer.publication("chat:1").await.offset, peer.publication("chat:1").await.offset], [1, 2]);
}

async fn more_channels_than_the_limit_are_refused(way: Way) {
    let world = World::with(way, &[("LIMITS__CHANNELS_PER_SESSION", "2")]).await;
    let client = world.client().await;
    let _first = client.subscribe("chat:1", options()).await.unwrap();
    let _second = client.subscribe("chat:2", options()).await.unwrap();
    assert_eq!(refused(client.subscribe("chat:3", options()).await), ErrorCode::LimitReached);
}

async fn a_channel_that_was_left_makes_room_for_another(way: Way) {
    let world = World::with(way, &[("LIMITS__CHANNELS_PER_SESSION", "1")]).await;
    let publisher = world.client().await;
    let (mut peer, _) = Peer::connected(&world).await;
    for number in 1..=20 {
        let name = format!("chat:{number}");
        peer.send(subscribe(2 * number, &name, options())).await;
        peer.subscribed(&name).await;
        soon(publisher.publish(&name, json(number))).await.unwrap();
        assert_eq!(peer.publication(&name).await.data, json(number).into());
        let leave = Unsubscribe { id: id(2 * number + 1), channel: channel(&name) };
        peer.send(ClientFrame::Unsubscribe(leave)).await;
    }
}

async fn a_subscription_begins_now_unless_asked_otherwise(way: Way) {
    let world = World::new(way).await;
    publish(&world, "chat:1", 3).await;
    let client = world.client().await;
    let mut room = client.subscribe("chat:1", options()).await.unwrap();
    let begun = subscribed(&mut room).await;
    assert_eq!((begun.position.iter().next().unwrap().1.offset, begun.recovered), (3, None));
    soon(client.publish("chat:1", json(4))).await.unwrap();
    assert_eq!(publication(&mut room).await.offset, 4);
}

async fn a_subscription_begins_with_the_last_publications_that_it_asks_for(way: Way) {
    let world = World::new(way).await;
    publish(&world, "chat:1", 10).await;
    let client = world.client().await;
    let latest = SubscribeOptions { history: Some(3), ..options() };
    let mut room = client.subscribe("chat:1", latest).await.unwrap();
    let begun = subscribed(&mut room).await;
    assert_eq!((begun.position.iter().next().unwrap().1.offset, begun.recovered), (7, None));
    soon(client.publish("chat:1", json(11))).await.unwrap();
    assert_eq!(offsets(&mut room, 4).await, [8, 9, 10, 11]);
}

async fn a_subscription_goes_on_after_its_position(way: Way) {
    let world = World::new(way).await;
    publish(&world, "chat:1", 10).await;
    let position = at(&head(&world, "chat:1").await, 6);
    let client = world.client().await;
    let mut room = client.subscribe("chat:1", from(position.clone())).await.unwrap();
    let begun = subscribed(&mut room).await;
    assert_eq!((begun.position, begun.recovered, begun.reason), (position, Some(true), None));
    assert_eq!(offsets(&mut room, 4).await, [7, 8, 9, 10]);
}

async fn what_is_published_during_recovery_comes_once_and_in_order(way: Way) {
    let settings = [("CHANNELS__CHAT__HISTORY", "10000")];
    let world = World::with(way, &settings).await;
    publish(&world, "chat:1", 600).await;
    let publisher = world.client().await;
    let publishing = tokio::spawn(async move {
        for number in 601..=1200 {
            publisher.publish("chat:1", json(number)).await.unwrap();
        }
    });
    let mut options = world.options();
    options.subscription_queue = 2000;
    let client = connect_client(options).await;
    let mut room = client.subscribe("chat:1", from_the_beginning()).await.unwrap();
    assert_eq!(offsets(&mut room, 1200).await, (1..=1200).collect::<Vec<_>>());
    soon(publishing).await.unwrap();
}

async fn a_recovery_longer_than_the_outbox_is_complete(way: Way) {
    let settings = [
        ("CHANNELS__CHAT__HISTORY", "1000"),
        ("LIMITS__FRAME_BYTES", "4096"),
        ("LIMITS__OUTBOX_BYTES", "16384"),
    ];
    let world = World::with(way, &settings).await;
    let publisher = world.client().await;
    for _ in 0..200 {
        soon(publisher.publish("chat:1", json("x".repeat(3000)))).await.unwrap();
    }
    let client = world.client().await;
    let mut room = client.subscribe("chat:1", from_the_beginning()).await.unwrap();
    assert_eq!(offsets(&mut room, 200).await, (1..=200).collect::<Vec<_>>());
}

async fn a_position_that_history_no_longer_reaches_is_told(way: Way) {
    let world = World::with(way, &[("CHANNELS__CHAT__HISTORY", "4")]).await;
    publish(&world, "chat:1", 10).await;
    let position = at(&head(&world, "chat:1").await, 2);
    let client = world.client().await;
    let mut room = client.subscribe("chat:1", from(position)).await.unwrap();
    let begun = subscribed(&mut room).await;
    assert_eq!((begun.recovered, begun.reason), (Some(false), Some(GapReason::Trimmed)));
    let gap = gap(&mut room).await;
    assert_eq!((gap.reason, gap.offset), (GapReason::Trimmed, 6));
    assert_eq!(offsets(&mut room, 4).await, [7, 8, 9, 10]);
}

async fn a_position_of_another_epoch_is_told(way: Way) {
    let world = World::new(way).await;
    publish(&world, "chat:1", 2).await;
    let origin = head(&world, "chat:1").await.iter().next().unwrap().0.clone();
    let point = Point { epoch: Text::new("another").unwrap(), offset: 1 };
    let position: Position = [(origin, point)].into_iter().collect();
    let client = world.client().await;
    let mut room = client.subscribe("chat:1", from(position)).await.unwrap();
    let begun = subscribed(&mut room).await;
    assert_eq!((begun.recovered, begun.reason), (Some(false), Some(GapReason::EpochChanged)));
    let gap = gap(&mut room).await;
    assert_eq!((gap.reason, gap.offset), (GapReason::EpochChanged, 0));
    let first = publication(&mut room).await;
    assert_eq!((first.epoch, first.offset), (gap.epoch, 1));
}

async fn a_position_beyond_the_head_is_told(way: Way) {
    let world = World::new(way).await;
    publish(&world, "chat:1", 2).await;
    let position = at(&head(&world, "chat:1").await, 50);
    let client = world.client().await;
    let mut room = client.subscribe("chat:1", from(position)).await.unwrap();
    let begun = subscribed(&mut room).await;
    assert_eq!((begun.recovered, begun.reason), (Some(false), Some(GapReason::UnknownPosition)));
}

async fn nothing_of_a_channel_comes_after_it_was_left(way: Way) {
    let world = World::new(way).await;
    let (mut peer, _) = Peer::open(&world, connect_to([("chat:1", options()), ("chat:2", options())])).await;
    peer.subscribed("chat:2").await;
    peer.send(ClientFrame::Unsubscribe(Unsubscribe { id: id(2), channel: channel("chat:1") })).await;
    peer.until(|frame| match frame {
        ServerFrame::Unsubscribed(unsubscribed) => (unsubscribed.id == Some(id(2))).then_some(()),
        _ => None,
    })
    .await;
    publish(&world, "chat:1", 1).await;
    publish(&world, "chat:2", 1).await;
    match peer.next().await.unwrap() {
        ServerFrame::Publication(publication) => assert_eq!(&*publication.channel, "chat:2"),
        other => panic!("{other:?}"),
    }
}

async fn a_user_channel_is_its_users_alone(way: Way) {
    let world = World::secured(way, &[]).await;
    let everything: &[(&str, &[Right])] = &[("**", &Right::ALL)];
    let alice = world.client_with(token("alice", &[])).await;
    let bob = world.client_with(token("bob", everything)).await;
    let mut own = alice.subscribe("@alice", options()).await.unwrap();
    assert_eq!(refused(bob.subscribe("@alice", options()).await), ErrorCode::Forbidden);
    soon(bob.publish("@alice", json("psst"))).await.unwrap();
    let received = publication(&mut own).await;
    assert_eq!((received.data, received.user.as_deref()), (json("psst").into(), Some("bob")));
    assert_eq!(refused(soon(alice.publish("@bob", json(1))).await), ErrorCode::Forbidden);
}

async fn publishing_needs_the_right_and_no_subscription(way: Way) {
    let world = World::secured(way, &[]).await;
    let writer = world.client_with(token("writer", &[("chat:*", &[Right::Publish])])).await;
    let reader = world.client_with(token("reader", &[("chat:*", &[Right::Subscribe])])).await;
    let mut room = reader.subscribe("chat:1", options()).await.unwrap();
    soon(writer.publish("chat:1", json(1))).await.unwrap();
    assert_eq!(publication(&mut room).await.data, json(1).into());
    assert_eq!(refused(soon(reader.publish("chat:1", json(1))).await), ErrorCode::Forbidden);
    assert_eq!(refused(writer.subscribe("chat:1", options()).await), ErrorCode::Forbidden);
}

async fn a_publish_with_a_known_key_is_answered_with_its_first_position(way: Way) {
    let world = World::new(way).await;
    let client = world.client().await;
    let mut room = client.subscribe("chat:1", options()).await.unwrap();
    let first = soon(client.publish_with_key("chat:1", json(1), "one")).await.unwrap();
    let again = soon(client.publish_with_key("chat:1", json(1), "one")).await.unwrap();
    let other = soon(client.publish_with_key("chat:1", json(2), "two")).await.unwrap();
    assert_eq!((first.offset, &first.epoch), (again.offset, &again.epoch));
    assert_eq!(other.offset, first.offset + 1);
    let received = [publication(&mut room).await, publication(&mut room).await];
    assert_eq!(received.map(|one| one.key.unwrap().to_string()), ["one", "two"]);
}

async fn a_publisher_gets_its_own_publication(way: Way) {
    let world = World::new(way).await;
    let client = world.client().await;
    let mut room = client.subscribe("chat:1", options()).await.unwrap();
    let published = soon(client.publish("chat:1", json("mine"))).await.unwrap();
    assert_eq!(publication(&mut room).await.offset, published.offset);
}

async fn a_payload_arrives_as_it_was_sent_in_either_encoding(way: Way) {
    let world = World::new(way).await;
    let (client, mut other) = (world.client().await, world.options());
    other.encoding = match other.encoding {
        skywave_client::Encoding::Json => skywave_client::Encoding::MessagePack,
        skywave_client::Encoding::MessagePack => skywave_client::Encoding::Json,
    };
    let other = connect_client(other).await;
    let mut here = client.subscribe("chat:1", options()).await.unwrap();
    let mut there = other.subscribe("chat:1", options()).await.unwrap();
    let exact = Json::parse("{\"amount\":1.10,\"big\":123456789012345678901234567890,\"ü\":null}").unwrap();
    let payloads = [
        Payload::from(exact),
        Payload::from(Json::parse("null").unwrap()),
        Payload::Binary(Bytes::from_static(&[0, 159, 146, 150, 255])),
        Payload::Binary(Bytes::new()),
    ];
    for payload in payloads {
        for publisher in [&client, &other] {
            soon(publisher.publish("chat:1", payload.clone())).await.unwrap();
            assert_eq!(publication(&mut here).await.data, payload);
            assert_eq!(publication(&mut there).await.data, payload);
        }
    }
}

async fn the_publisher_is_told_to_the_subscribers(way: Way) {
    let world =
        World::secured(way, &[("AUTH__ANONYMOUS", "true"), ("CHANNELS__CHAT__ALLOW", "subscribe,publish")])
            .await;
    let (alice, nobody) = (world.client_with(token("alice", &[])).await, world.client().await);
    let mut room = nobody.subscribe("chat:1", options()).await.unwrap();
    soon(alice.publish("chat:1", json(1))).await.unwrap();
    soon(nobody.publish("chat:1", json(2))).await.unwrap();
    assert_eq!(publication(&mut room).await.user.as_deref(), Some("alice"));
    assert_eq!(publication(&mut room).await.user, None);
}

async fn channels_do_not_mix(way: Way) {
    let world = World::new(way).await;
    let client = world.client().await;
    let mut rooms = Vec::new();
    for number in 0..30 {
        rooms.push(client.subscribe(&format!("chat:{number}"), options()).await.unwrap());
    }
    for number in 0..30 {
        soon(client.publish(&format!("chat:{number}"), json(number))).await.unwrap();
    }
    for (number, room) in rooms.iter_mut().enumerate() {
        assert!(matches!(next(room).await, ChannelEvent::Subscribed(_)));
        match next(room).await {
            ChannelEvent::Publication(publication) => assert_eq!(publication.data, json(number).into()),
            other => panic!("{other:?}"),
        }
    }
}

fn subscribe(number: u32, name: &str, options: SubscribeOptions) -> ClientFrame {
    let SubscribeOptions { position, history, presence } = options;
    ClientFrame::Subscribe(Subscribe { id: id(number), channel: channel(name), position, history, presence })
}
