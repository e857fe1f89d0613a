//! A session goes on while it subscribes, whatever it takes to read a channel.

use crate::{
    faulty_broker::{
        Held, Together, connect, dial, next_offset, node, node_with, publication, publish, subscribe,
        subscribed_epoch, unsubscribe,
    },
    peer::{channel, connect_to, id},
    world::{TOKEN_SECRET, token},
};
use skywave::{broker::Delivery, rights::Right};
use skywave_client::SubscribeOptions;
use skywave_protocol::{
    ClientFrame, ErrorCode, ServerFrame,
    frame::{self, Connect},
};
use skywave_testing::{eventually, soon};
use std::collections::BTreeSet;
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread")]
async fn the_channels_of_a_connect_are_read_together_and_those_beyond_the_limit_refused() {
    let (node, ..) = node(|memory| Together { memory, asked: watch::Sender::new(0), wanted: 32 });
    let limit = node.config.limits.channels_per_session;
    let names: Vec<_> = (0..limit + 5).map(|number| format!("chat:{number:03}")).collect();
    let mut connect = connect_to([]);
    connect.subscriptions = names.iter().map(|name| (channel(name), SubscribeOptions::default())).collect();
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect)).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Connected(_))));
    let mut subscribed = BTreeSet::new();
    for _ in &names {
        match peer.next().await.unwrap() {
            ServerFrame::Subscribed(one) => assert!(subscribed.insert(one.channel.to_string())),
            ServerFrame::Unsubscribed(one) => {
                assert_eq!(one.reason.as_deref(), Some("limit_reached"));
                assert!(names[limit..].iter().any(|name| *name == *one.channel));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(subscribed.iter().eq(&names[..limit]));
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn connected_waits_for_no_subscription() {
    let (node, held, _) = node(Held::but(&["chat:1"]));
    let (mut peer, listening) = dial(node).await;
    let options = SubscribeOptions::default;
    peer.send(ClientFrame::Connect(connect_to([("chat:0", options()), ("chat:1", options())]))).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Connected(_))));
    assert!(matches!(peer.next().await, Ok(ServerFrame::Subscribed(one)) if &*one.channel == "chat:1"));
    held.let_go();
    assert!(matches!(peer.next().await, Ok(ServerFrame::Subscribed(one)) if &*one.channel == "chat:0"));
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_while_it_subscribes() {
    let (node, held, hub) = node(Held::but(&["chat:1"]));
    let (mut peer, listening) = connect(node).await;
    let epoch = subscribed_epoch(&mut peer).await;
    peer.send(subscribe(2, "chat:2")).await;
    for offset in 1..=10 {
        hub.publication(&publication(&epoch, offset));
        assert_eq!(next_offset(&mut peer).await, offset);
    }
    peer.send(publish(3, "chat:2")).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Published(published)) if published.id == id(3)));
    held.let_go();
    // What came meanwhile is not lost.
    assert!(matches!(peer.next().await, Ok(ServerFrame::Subscribed(one)) if one.id == Some(id(2))));
    assert_eq!(peer.publication("chat:2").await.offset, 1);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_channel_while_it_is_subscribed_to_is_done_in_order() {
    let (node, held, _) = node(Held::but(&[]));
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect_to([("chat:1", SubscribeOptions::default())]))).await;
    peer.send(subscribe(2, "chat:1")).await;
    assert_eq!(peer.error().await.reason.as_ref(), "already_subscribed");
    peer.send(unsubscribe(3, "chat:1")).await;
    peer.send(unsubscribe(4, "chat:1")).await;
    let error = peer.error().await;
    assert_eq!((error.id, error.reason.as_ref()), (Some(id(4)), "not_subscribed"));
    peer.send(subscribe(5, "chat:1")).await;
    peer.send(publish(6, "chat:1")).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Published(_))));
    held.let_go();
    assert!(matches!(peer.next().await, Ok(ServerFrame::Subscribed(one)) if one.id.is_none()));
    assert!(matches!(peer.next().await, Ok(ServerFrame::Unsubscribed(one)) if one.id == Some(id(3))));
    assert!(matches!(peer.next().await, Ok(ServerFrame::Subscribed(one)) if one.id == Some(id(5))));
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_counts_from_when_it_is_asked_for() {
    let settings = [("LIMITS__CHANNELS_PER_SESSION", "1")];
    let (node, held, _) = node_with(&settings, Held::but(&[]));
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect_to([]))).await;
    peer.send(subscribe(2, "chat:1")).await;
    peer.send(subscribe(3, "chat:2")).await;
    let error = peer.error().await;
    assert_eq!((error.id, error.reason.as_ref()), (Some(id(3)), "limit_reached"));
    held.let_go();
    peer.subscribed("chat:1").await;
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_grants_less_meanwhile_ends_what_is_being_subscribed_to() {
    let settings =
        [("AUTH__HMAC_SECRET", TOKEN_SECRET), ("AUTH__ANONYMOUS", "false"), ("CHANNELS__CHAT__ALLOW", "")];
    let (node, held, _) = node_with(&settings, Held::but(&[]));
    let (mut peer, listening) = dial(node).await;
    let all: &[(&str, &[Right])] = &[("chat:*", &[Right::Subscribe])];
    let connect = connect_to([("chat:1", SubscribeOptions::default())]);
    peer.send(ClientFrame::Connect(Connect { token: Some(token("alice", all).into()), ..connect })).await;
    peer.send(subscribe(2, "chat:2")).await;
    let token = token("alice", &[]).into();
    peer.send(ClientFrame::Refresh(frame::Refresh { id: id(3), token })).await;
    peer.until(|frame| matches!(frame, ServerFrame::Refreshed(_)).then_some(())).await;
    held.let_go();
    let mut ended = [None, None];
    for end in &mut ended {
        *end = match peer.next().await.unwrap() {
            ServerFrame::Unsubscribed(one) => Some((one.id, one.code)),
            ServerFrame::Error(error) => Some((error.id, Some(error.code))),
            other => panic!("{other:?}"),
        };
    }
    let forbidden = Some(ErrorCode::Forbidden.code());
    assert!(ended.contains(&Some((None, forbidden))) && ended.contains(&Some((Some(id(2)), forbidden))));
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_it_subscribes_leaves_nobody_present() {
    let settings = [("CHANNELS__CHAT__PRESENCE", "true"), ("CHANNELS__CHAT__PRESENCE_GRACE", "0s")];
    let (node, held, _) = node_with(&settings, Held::but(&["chat:2"]));
    let running = tokio::spawn(node.presence.clone().run());
    let (mut leaving, listening) = dial(node.clone()).await;
    leaving.send(ClientFrame::Connect(connect_to([("chat:1", SubscribeOptions::default())]))).await;
    assert!(matches!(leaving.next().await, Ok(ServerFrame::Connected(_))));
    leaving.close().await;
    eventually("the session has ended", async || node.sessions.is_empty()).await;
    held.let_go();
    eventually("nobody is present", async || {
        soon(node.presence.members(&channel("chat:1"))).await.unwrap().count == 0
    })
    .await;
    assert_eq!(node.hub.subscribers(&channel("chat:1")), 0);
    listening.abort();
    running.abort();
}
