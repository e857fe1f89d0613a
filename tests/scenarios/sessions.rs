//! A session opens, answers what is asked of it, and ends with a client that speaks nonsense.

use crate::{
    on_every_transport,
    peer::{Peer, channel, connect, connect_to, from_the_beginning, id},
    world::{Way, World, json, refused, token},
};
use skywave::rights::Right;
use skywave_client::SubscribeOptions;
use skywave_protocol::{
    ClientFrame, CloseCode, DecodeError, ErrorCode, ServerFrame,
    frame::{Connect, HistoryRequest, PresenceRequest, Publish, Unsubscribe},
};
use skywave_testing::soon;
use std::collections::BTreeMap;

on_every_transport! {
    a_subscription_that_makes_no_sense_costs_the_others_nothing,
    one_frame_opens_a_session_with_all_its_subscriptions,
    one_forbidden_channel_costs_only_that_channel,
    every_reply_carries_the_id_of_its_request,
    requests_are_answered_in_whatever_order_they_are_awaited,
    a_session_says_what_it_may_do,
    calls_are_answered_that_there_is_no_application,
    a_frame_before_connect_ends_the_transport,
    a_second_connect_is_refused_and_the_session_goes_on,
    an_unknown_frame_is_refused_and_the_session_goes_on,
    a_bad_field_is_refused_with_the_id_of_its_request,
    the_tenth_bad_request_ends_the_session,
    what_is_no_frame_ends_the_session,
    each_session_has_its_own_id,
}

async fn one_frame_opens_a_session_with_all_its_subscriptions(way: Way) {
    let world = World::new(way).await;
    let publisher = world.client().await;
    for number in 1..=3 {
        soon(publisher.publish("chat:1", json(number))).await.unwrap();
        soon(publisher.publish("chat:2", json(number))).await.unwrap();
    }
    let latest = SubscribeOptions { history: Some(1), ..SubscribeOptions::default() };
    let connect = connect_to([
        ("chat:1", from_the_beginning()),
        ("chat:2", latest),
        ("chat:3", SubscribeOptions::default()),
    ]);
    let (mut peer, _) = Peer::open(&world, connect).await;
    let mut positions = BTreeMap::new();
    let mut publications = Vec::new();
    while positions.len() < 3 || publications.len() < 4 {
        match peer.next().await.unwrap() {
            ServerFrame::Subscribed(subscribed) => {
                assert_eq!(subscribed.id, None);
                positions.insert(subscribed.channel.to_string(), subscribed.recovered);
            }
            ServerFrame::Publication(one) => publications.push((one.channel.to_string(), one.offset)),
            _ => {}
        }
    }
    publications.sort();
    let recovered: Vec<_> = positions.into_values().collect();
    assert_eq!(recovered, [Some(true), None, None]);
    let expected = [("chat:1", 1), ("chat:1", 2), ("chat:1", 3), ("chat:2", 3)];
    assert_eq!(publications, expected.map(|(name, offset)| (name.to_owned(), offset)));
}

async fn a_subscription_that_makes_no_sense_costs_the_others_nothing(way: Way) {
    let world = World::new(way).await;
    let mut peer = Peer::dial(&world).await;
    let (long, misplaced) = ("x".repeat(300), serde_json::json!({"position": {"eu": 7}}));
    let subscriptions =
        serde_json::json!({"chat:1": {}, "nonsense": {}, "chat:2": misplaced, &long: {}, "chat:3": {}});
    peer.send_value(&serde_json::json!({"connect": {"id": 1, "subscriptions": subscriptions}})).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Connected(_))));
    let bad_request = ErrorCode::BadRequest.code();
    let mut told = Vec::new();
    for _ in 0..5 {
        let frame = soon(peer.receiver.receive()).await.unwrap().frame;
        told.push(match peer.encoding.decode_server(&frame) {
            Ok(ServerFrame::Subscribed(one)) => format!("subscribed {}", one.channel),
            Ok(ServerFrame::Unsubscribed(one)) if one.code == Some(bad_request) => {
                format!("refused {}", one.channel)
            }
            Ok(ServerFrame::Error(error)) if error.code == bad_request => {
                "a name that is too long".to_owned()
            }
            // Its name is none that a channel has.
            Err(DecodeError::Invalid { name, .. }) if name == "unsubscribed" => {
                assert!(frame.windows(8).any(|part| part == b"nonsense"));
                "refused nonsense".to_owned()
            }
            other => panic!("{other:?}"),
        });
    }
    told.sort();
    let expected = [
        "a name that is too long",
        "refused chat:2",
        "refused nonsense",
        "subscribed chat:1",
        "subscribed chat:3",
    ];
    assert_eq!(told, expected);
}

async fn one_forbidden_channel_costs_only_that_channel(way: Way) {
    let world = World::secured(way, &[]).await;
    let token = token("alice", &[("chat:open", &[Right::Subscribe])]);
    let channels = ["chat:open", "chat:closed", "nowhere:1"].map(|name| (name, SubscribeOptions::default()));
    let connect = Connect { token: Some(token.into()), ..connect_to(channels) };
    let (mut peer, _) = Peer::open(&world, connect).await;
    let mut outcomes = BTreeMap::new();
    while outcomes.len() < 3 {
        match peer.next().await.unwrap() {
            ServerFrame::Subscribed(subscribed) => {
                outcomes.insert(subscribed.channel.to_string(), None);
            }
            ServerFrame::Unsubscribed(unsubscribed) => {
                assert_eq!(unsubscribed.id, None);
                outcomes.insert(unsubscribed.channel.to_string(), unsubscribed.code);
            }
            _ => {}
        }
    }
    let expected = [
        ("chat:closed", Some(ErrorCode::Forbidden.code())),
        ("chat:open", None),
        ("nowhere:1", Some(ErrorCode::UnknownNamespace.code())),
    ];
    assert_eq!(outcomes, expected.map(|(name, code)| (name.to_owned(), code)).into());
}

async fn every_reply_carries_the_id_of_its_request(way: Way) {
    let world = World::new(way).await;
    let (mut peer, connected) = Peer::connected(&world).await;
    assert_eq!(connected.id, id(1));
    let name = || channel("chat:1");
    peer.send(ClientFrame::History(HistoryRequest {
        id: id(u32::MAX),
        channel: name(),
        limit: 1,
        after: None,
        before: None,
    }))
    .await;
    peer.send(ClientFrame::Presence(PresenceRequest { id: id(7), channel: name() })).await;
    peer.send(ClientFrame::Unsubscribe(Unsubscribe { id: id(5), channel: name() })).await;
    peer.send(ClientFrame::Publish(Publish { id: id(3), channel: name(), key: None, data: json(1).into() }))
        .await;
    let mut replies = BTreeMap::new();
    while replies.len() < 4 {
        match peer.next().await.unwrap() {
            ServerFrame::History(history) => replies.insert(history.id, "history"),
            ServerFrame::Presence(presence) => replies.insert(presence.id, "presence"),
            ServerFrame::Error(error) => replies.insert(error.id.unwrap(), "error"),
            ServerFrame::Published(published) => replies.insert(published.id, "published"),
            other => panic!("{other:?}"),
        };
    }
    let expected = [(3, "published"), (5, "error"), (7, "presence"), (u32::MAX, "history")];
    assert_eq!(replies, expected.map(|(number, name)| (id(number), name)).into());
}

async fn requests_are_answered_in_whatever_order_they_are_awaited(way: Way) {
    let world = World::new(way).await;
    let client = world.client().await;
    let publishes: Vec<_> = (0..50)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let name = format!("chat:{number}");
                let published = client.publish(&name, json(number)).await.unwrap();
                (name, published.channel.to_string(), published.offset)
            })
        })
        .collect();
    for publish in publishes.into_iter().rev() {
        let (asked, answered, offset) = soon(publish).await.unwrap();
        assert_eq!((asked, offset), (answered, 1));
    }
}

async fn a_session_says_what_it_may_do(way: Way) {
    let settings =
        [("LIMITS__FRAME_BYTES", "2048"), ("LIMITS__CHANNELS_PER_SESSION", "7"), ("NODE__REGION", "eu")];
    let world = World::with(way, &settings).await;
    let (_peer, connected) = Peer::connected(&world).await;
    assert_eq!((connected.limits.frame_bytes, connected.limits.channels_per_session), (2048, 7));
    assert_eq!(connected.limits.idempotency_ms, 300_000);
    assert_eq!(&*connected.region, "eu");
    assert!(!connected.resumed && connected.user.is_none() && connected.expires_at_ms.is_none());
    assert!(connected.heartbeat.interval_ms > 0 && connected.heartbeat.timeout_ms > 0);
}

async fn calls_are_answered_that_there_is_no_application(way: Way) {
    let world = World::new(way).await;
    let client = world.client().await;
    let called = soon(client.call("rooms.create", json("standup"), None)).await;
    assert_eq!(refused(called), ErrorCode::NotAvailable);
}

async fn a_frame_before_connect_ends_the_transport(way: Way) {
    let world = World::new(way).await;
    let mut peer = Peer::dial(&world).await;
    peer.send(ClientFrame::Presence(PresenceRequest { id: id(1), channel: channel("chat:1") })).await;
    assert_eq!(peer.end().await, CloseCode::BadFrame.code());
}

async fn a_second_connect_is_refused_and_the_session_goes_on(way: Way) {
    let world = World::new(way).await;
    let (mut peer, _) = Peer::connected(&world).await;
    peer.send(ClientFrame::Connect(Connect { id: id(2), ..connect() })).await;
    let error = peer.error().await;
    assert_eq!((error.id, error.code), (Some(id(2)), ErrorCode::BadRequest.code()));
    goes_on(&mut peer).await;
}

async fn an_unknown_frame_is_refused_and_the_session_goes_on(way: Way) {
    let world = World::new(way).await;
    let (mut peer, _) = Peer::connected(&world).await;
    peer.send_value(&serde_json::json!({"dance": {"id": 9}})).await;
    let error = peer.error().await;
    assert_eq!((error.id, error.code, error.transient), (Some(id(9)), ErrorCode::BadRequest.code(), false));
    goes_on(&mut peer).await;
}

async fn a_bad_field_is_refused_with_the_id_of_its_request(way: Way) {
    let world = World::new(way).await;
    let (mut peer, _) = Peer::connected(&world).await;
    peer.send_value(&serde_json::json!({"history": {"id": 4, "channel": "chat:1", "limit": "many"}})).await;
    let error = peer.error().await;
    assert_eq!((error.id, error.code), (Some(id(4)), ErrorCode::BadRequest.code()));
    peer.send_value(&serde_json::json!({"history": {"id": 5, "channel": "chat:1", "limit": 1001}})).await;
    let error = peer.error().await;
    assert_eq!((error.id, error.code), (Some(id(5)), ErrorCode::BadRequest.code()));
    goes_on(&mut peer).await;
}

async fn the_tenth_bad_request_ends_the_session(way: Way) {
    let world = World::new(way).await;
    let (mut peer, _) = Peer::connected(&world).await;
    for number in 2..=10 {
        peer.send_value(&serde_json::json!({"dance": {"id": number}})).await;
        assert_eq!(peer.error().await.id, Some(id(number)));
    }
    peer.send_value(&serde_json::json!({"dance": {"id": 11}})).await;
    assert_eq!(peer.end().await, CloseCode::BadFrame.code());
}

async fn what_is_no_frame_ends_the_session(way: Way) {
    let world = World::new(way).await;
    let (mut peer, _) = Peer::connected(&world).await;
    peer.send_value(&serde_json::json!("hello")).await;
    assert_eq!(peer.end().await, CloseCode::BadFrame.code());
}

async fn each_session_has_its_own_id(way: Way) {
    let world = World::new(way).await;
    let (_first, one) = Peer::connected(&world).await;
    let (_second, other) = Peer::connected(&world).await;
    assert_ne!(one.session, other.session);
    assert_ne!(one.resume, other.resume);
}

/// A request is still answered.
async fn goes_on(peer: &mut Peer) {
    peer.send(ClientFrame::Presence(PresenceRequest { id: id(100), channel: channel("chat:1") })).await;
    peer.until(|frame| match frame {
        ServerFrame::Presence(presence) if presence.id == id(100) => Some(()),
        _ => None,
    })
    .await;
}
