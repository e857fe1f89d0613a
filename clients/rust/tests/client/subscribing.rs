//! Channels that are subscribed to, left and subscribed to again: no frame is taken for another subscription's.

use crate::{node::*, over_both_transports};
use skywave_client::{ChannelEvent, Client, SubscribeOptions, Subscription, TransportKind};
use skywave_protocol::{
    CloseCode, ErrorCode, Point, ServerFrame, frame,
    position::{Epoch, Origin},
};
use std::time::Duration;
use tokio::task::JoinHandle;

over_both_transports! {
    async fn publications_before_subscribed_are_held(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let (room, ()) = tokio::join!(client.subscribe("chat:1", SubscribeOptions::default()), async {
            let subscribe = peer.subscribe().await;
            peer.send_on_stream("chat:1", publication("chat:1", 3));
            peer.send_on_stream("chat:1", publication("chat:1", 4));
            // Long enough for another stream to be ahead of the control stream.
            tokio::time::sleep(Duration::from_millis(50)).await;
            peer.send(subscribed(Some(subscribe.id), "chat:1", 2, None));
        });
        let mut room = room.unwrap();
        assert!(matches!(event(&mut room).await, ChannelEvent::Subscribed(_)));
        assert_eq!(offsets(&mut room, 2).await, [3, 4]);
    }

    async fn what_comes_after_unsubscribed_is_dropped(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, room) = subscribed_client(&mut node, options, 0).await;
        drop(room);
        let unsubscribe = peer.unsubscribe().await;
        peer.send(unsubscribed(&unsubscribe));
        peer.send_on_stream("chat:1", publication("chat:1", 1));
        let mut room = subscribe(&client, &mut peer, "chat:1", 1).await;
        peer.send_on_stream("chat:1", publication("chat:1", 2));
        assert_eq!(offsets(&mut room, 1).await, [2]);
    }

    async fn what_comes_while_a_channel_is_left_is_not_counted_to_its_next_subscription(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.subscription_queue = 4;
        let (client, mut peer, mut slow) = subscribed_client(&mut node, options, 0).await;
        for offset in 1..=6 {
            peer.send(publication("chat:1", offset));
        }
        let unsubscribe = peer.unsubscribe().await;
        // There is room again before the node has read `unsubscribe`; it goes on meanwhile.
        assert_eq!(offsets(&mut slow, 4).await, [1, 2, 3, 4]);
        tokio::time::sleep(Duration::from_millis(50)).await;
        peer.send(publication("chat:1", 7));
        peer.send(unsubscribed(&unsubscribe));
        let again = peer.subscribe().await;
        assert_eq!(again.position, Some(position(4)));
        peer.send(subscribed(Some(again.id), "chat:1", 4, Some(true)));
        for offset in 5..=7 {
            peer.send(publication("chat:1", offset));
        }
        assert_eq!(offsets(&mut slow, 3).await, [5, 6, 7]);
        assert_eq!(client.connected().unwrap().connects, 1);
    }

    async fn a_channel_that_the_node_does_not_let_go_yet_is_left_a_little_later(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, room) = subscribed_client(&mut node, options, 0).await;
        drop(room);
        let refused = peer.unsubscribe().await;
        let mut error = frame::Error::new(Some(refused.id), ErrorCode::RateLimited, "slow down");
        error.retry_after_ms = Some(50);
        let refused_at = std::time::Instant::now();
        peer.send(ServerFrame::Error(error));
        let unsubscribe = peer.unsubscribe().await;
        assert!(refused_at.elapsed() >= Duration::from_millis(50));
        let (again, ()) = tokio::join!(client.subscribe("chat:1", SubscribeOptions::default()), async {
            peer.send(unsubscribed(&unsubscribe));
            let subscribe = peer.subscribe().await;
            peer.send(subscribed(Some(subscribe.id), "chat:1", 5, None));
        });
        again.unwrap();
    }

    async fn a_subscription_that_the_client_does_not_know_of_is_left_first(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let (room, ()) = tokio::join!(client.subscribe("chat:1", SubscribeOptions::default()), async {
            let subscribe = peer.subscribe().await;
            peer.send(refusal(subscribe.id, ErrorCode::AlreadySubscribed));
            let unsubscribe = peer.unsubscribe().await;
            peer.send(unsubscribed(&unsubscribe));
            let subscribe = peer.subscribe().await;
            peer.send(subscribed(Some(subscribe.id), "chat:1", 5, None));
            peer.send(publication("chat:1", 6));
        });
        assert_eq!(offsets(&mut room.unwrap(), 1).await, [6]);
    }

    async fn a_forbidden_channel_costs_only_itself(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, mut room) = subscribed_client(&mut node, options, 0).await;
        let (refused, ()) = tokio::join!(client.subscribe("secret:1", SubscribeOptions::default()), async {
            let subscribe = peer.subscribe().await;
            peer.send(refusal(subscribe.id, ErrorCode::Forbidden));
        });
        assert_eq!(refused.unwrap_err().code, ErrorCode::Forbidden.code());
        peer.send_on_stream("chat:1", publication("chat:1", 1));
        assert_eq!(offsets(&mut room, 1).await, [1]);
    }

    async fn a_channel_subscribed_anew_during_a_reconnect_begins_anew(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, peer, room) = subscribed_client(&mut node, options, 3).await;
        drop(peer);
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        assert_eq!(connect.subscriptions[&channel("chat:1")].position, Some(position(3)));
        drop(room);
        let again = tokio::spawn({
            let client = client.clone();
            async move { client.subscribe("chat:1", SubscribeOptions::default()).await }
        });
        // Both reach the client before `connected` does.
        tokio::time::sleep(Duration::from_millis(50)).await;
        peer.send(connected(&connect));
        peer.send(subscribed(None, "chat:1", 3, Some(true)));
        peer.send_on_stream("chat:1", publication("chat:1", 4));
        let unsubscribe = peer.unsubscribe().await;
        peer.send(unsubscribed(&unsubscribe));
        let subscribe = peer.subscribe().await;
        assert_eq!(subscribe.position, None);
        peer.send(subscribed(Some(subscribe.id), "chat:1", 4, None));
        peer.send_on_stream("chat:1", publication("chat:1", 5));
        assert_eq!(offsets(&mut again.await.unwrap().unwrap(), 1).await, [5]);
    }

    async fn more_subscriptions_than_fit_into_one_frame_are_all_taken_up_again(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let names: Vec<String> = (0..150).map(|index| format!("chat:{index}-{}", "x".repeat(240))).collect();
        let mut rooms = Vec::new();
        for name in &names {
            rooms.push(subscribe(&client, &mut peer, name, 1).await);
        }
        client.cut().await.unwrap();
        let (mut peer, connect) = node.welcome().await;
        let mut taken_up: Vec<String> = connect.subscriptions.keys().map(|channel| channel.to_string()).collect();
        assert!(skywave_client::Encoding::Json.encode(&connect).unwrap().len() < 65_536);
        while taken_up.len() < names.len() {
            let subscribe = peer.subscribe().await;
            assert_eq!(subscribe.position, Some(position(1)));
            taken_up.push(subscribe.channel.to_string());
        }
        taken_up.sort();
        let mut names = names;
        names.sort();
        assert_eq!(taken_up, names);
    }

    async fn the_nodes_unsubscribed_is_the_last_event(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (_client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
        peer.send(ServerFrame::Unsubscribed(frame::Unsubscribed {
            id: None,
            channel: channel("chat:1"),
            code: Some(ErrorCode::Forbidden.code()),
            reason: Some("forbidden".into()),
        }));
        assert!(matches!(event(&mut room).await, ChannelEvent::Unsubscribed { code: Some(103), .. }));
        assert_eq!(room.next().await, None);
    }

    async fn a_channel_whose_confirmation_or_end_cannot_be_understood_is_asked_for_again(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.encoding = skywave_client::Encoding::MessagePack;
        let (_client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
        peer.close(CloseCode::Shutdown.code());
        let (mut peer, _) = node.welcome().await;
        // {"subscribed": {"channel": "chat:1"}}
        peer.send_raw(b"\x81\xaasubscribed\x81\xa7channel\xa6chat:1");
        let subscribe = peer.subscribe().await;
        peer.send(subscribed(Some(subscribe.id), "chat:1", 0, Some(true)));
        peer.send(publication("chat:1", 1));
        assert_eq!(offsets(&mut room, 1).await, [1]);
        // {"unsubscribed": {"channel": "chat:1", "code": "later"}}
        peer.send_raw(b"\x81\xacunsubscribed\x82\xa7channel\xa6chat:1\xa4code\xa5later");
        let subscribe = peer.subscribe().await;
        peer.send(subscribed(Some(subscribe.id), "chat:1", 1, Some(true)));
        peer.send(publication("chat:1", 2));
        assert_eq!(offsets(&mut room, 1).await, [2]);
    }
}

/// A client over WebTransport whose channel is subscribed to for the second time, the answer to which is still to come;
/// the stream `old` is the first subscription's.
async fn subscribed_again(node: &mut Node) -> (Client, Peer, frame::Subscribe, JoinHandle<Subscription>) {
    let (client, mut peer, _) = node.client(node.options(TransportKind::WebTransport)).await;
    let (first, ()) = tokio::join!(client.subscribe("chat:1", SubscribeOptions::default()), async {
        let subscribe = peer.subscribe().await;
        peer.send(subscribed_as(1, Some(subscribe.id), "chat:1", 0));
        peer.send_on_stream("old", stream_of(1, "chat:1"));
        peer.send_on_stream("old", publication("chat:1", 1));
    });
    let mut first = first.unwrap();
    assert_eq!(offsets(&mut first, 1).await, [1]);
    drop(first);
    let unsubscribe = peer.unsubscribe().await;
    let again = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe("chat:1", SubscribeOptions::default()).await.unwrap() }
    });
    peer.send(unsubscribed(&unsubscribe));
    let subscribe = peer.subscribe().await;
    (client, peer, subscribe, again)
}

#[tokio::test]
async fn a_stream_that_outlives_its_subscription_is_not_taken_for_the_next_ones() {
    let mut node = Node::start().await;
    let (client, peer, subscribe, again) = subscribed_again(&mut node).await;
    // Before and after the answer, on a stream that is known and on one whose first packet is late.
    peer.send_on_stream("old", publication("chat:1", 9));
    peer.send_on_stream("late", stream_of(1, "chat:1"));
    peer.send_on_stream("late", publication("chat:1", 8));
    tokio::time::sleep(Duration::from_millis(50)).await;
    peer.send(subscribed_as(2, Some(subscribe.id), "chat:1", 5));
    let mut again = again.await.unwrap();
    for stream in ["old", "late"] {
        peer.send_on_stream(stream, publication("chat:1", 9));
    }
    peer.send_on_stream("later", stream_of(1, "chat:1"));
    peer.send_on_stream("later", publication("chat:1", 9));
    tokio::time::sleep(Duration::from_millis(50)).await;
    peer.send_on_stream("new", stream_of(2, "chat:1"));
    for offset in [6, 7] {
        peer.send_on_stream("new", publication("chat:1", offset));
    }
    peer.send_on_stream("new", publication("chat:1", 8));
    assert_eq!(offsets(&mut again, 3).await, [6, 7, 8]);
    assert_eq!(client.connected().unwrap().connects, 1);
}

#[tokio::test]
async fn a_stream_that_overtakes_its_subscribed_is_held_for_it() {
    let mut node = Node::start().await;
    let (_client, peer, subscribe, again) = subscribed_again(&mut node).await;
    peer.send_on_stream("new", stream_of(2, "chat:1"));
    peer.send_on_stream("new", publication("chat:1", 6));
    peer.send_on_stream("old", publication("chat:1", 2));
    tokio::time::sleep(Duration::from_millis(50)).await;
    peer.send(subscribed_as(2, Some(subscribe.id), "chat:1", 5));
    peer.send(publication("chat:1", 7));
    assert_eq!(offsets(&mut again.await.unwrap(), 2).await, [6, 7]);
}

#[tokio::test]
async fn a_subscription_that_no_node_would_take_is_refused_before_it_is_sent() {
    let mut node = Node::start().await;
    let options = node.options(TransportKind::WebSocket);
    let (client, mut peer, _room) = subscribed_client(&mut node, options, 0).await;
    let point = Point { epoch: Epoch::new("e1").unwrap(), offset: 1 };
    let crowded = (0..65).map(|index| (Origin::new(format!("r{index}")).unwrap(), point.clone())).collect();
    let bad = [
        SubscribeOptions { history: Some(0), ..Default::default() },
        SubscribeOptions { history: Some(1_001), ..Default::default() },
        SubscribeOptions { position: Some(crowded), ..Default::default() },
    ];
    for options in bad {
        let refused = client.subscribe("chat:2", options).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::BadRequest.code());
    }
    assert_eq!(client.subscribe("chat:\u{7}", Default::default()).await.unwrap_err().code, 107);
    subscribe(&client, &mut peer, "chat:2", 0).await;
}

#[tokio::test]
async fn one_client_has_one_subscription_per_channel() {
    let mut node = Node::start().await;
    let options = node.options(TransportKind::WebSocket);
    let (client, _peer, _room) = subscribed_client(&mut node, options, 0).await;
    let refused = client.subscribe("chat:1", SubscribeOptions::default()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::AlreadySubscribed.code());
}

#[tokio::test]
async fn a_channel_may_be_dropped_and_subscribed_to_at_once() {
    let mut node = Node::start().await;
    let options = node.options(TransportKind::WebSocket);
    let (client, mut peer, mut room) = subscribed_client(&mut node, options, 0).await;
    for _ in 0..50 {
        drop(room);
        let (again, ()) = tokio::join!(client.subscribe("chat:1", SubscribeOptions::default()), async {
            let unsubscribe = peer.unsubscribe().await;
            peer.send(unsubscribed(&unsubscribe));
            let subscribe = peer.subscribe().await;
            peer.send(subscribed(Some(subscribe.id), "chat:1", 0, None));
        });
        room = again.unwrap();
    }
}
