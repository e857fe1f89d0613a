//! Make before break: a session moves without a gap, a repetition or an error.

use crate::{node::*, over_both_transports};
use skywave_client::{Backoff, ChannelEvent, Client, Status, TokenSource, TransportChoice, TransportKind};
use skywave_protocol::{ClientFrame, CloseCode, ErrorCode, ServerFrame, frame};
use std::time::{Duration, Instant};

fn drain(url: Option<String>) -> ServerFrame {
    ServerFrame::Drain(frame::Drain { after_ms: 100, url: url.map(Into::into) })
}

/// Has the client read a frame; it goes on with the connection.
async fn told(mut peer: Peer, frame: ServerFrame) -> Peer {
    peer.send(frame);
    peer.send(ServerFrame::Ping(frame::Ping { seq: 7, interval_ms: 60_000, timeout_ms: 10_000 }));
    assert_eq!(peer.next().await, Some(ClientFrame::Pong(frame::Pong { seq: 7 })));
    peer
}

over_both_transports! {
    async fn a_drained_client_opens_the_new_connection_before_it_leaves_the_old_one(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut old, mut room) = subscribed_client(&mut node, options, 0).await;
        let mut status = client.status();
        status.mark_unchanged();
        old.send(publication("chat:1", 1));
        assert_eq!(offsets(&mut room, 1).await, [1]);
        old.send(drain(None));
        let mut new = node.accept().await;
        let connect = new.connect().await;
        assert_eq!(connect.subscriptions[&channel("chat:1")].position, Some(position(1)));
        // The old one still delivers, and the new one repeats it.
        old.send(publication("chat:1", 2));
        assert_eq!(offsets(&mut room, 1).await, [2]);
        new.send(connected(&connect));
        new.send(subscribed(None, "chat:1", 1, Some(true)));
        for offset in [2, 3] {
            new.send_on_stream("chat:1", publication("chat:1", offset));
        }
        assert_eq!(offsets(&mut room, 1).await, [3]);
        old.ended().await;
        assert!(matches!(&*status.borrow_and_update(), Status::Connected(connected) if connected.connects == 2));
    }

    async fn a_channel_that_is_confirmed_during_a_move_goes_on_from_there(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut old, _) = node.client(options).await;
        let subscribing = tokio::spawn(async move { (client.subscribe("chat:1", Default::default()).await, client) });
        let asked = old.subscribe().await;
        old.send(drain(None));
        let mut new = node.accept().await;
        let connect = new.connect().await;
        assert_eq!(connect.subscriptions[&channel("chat:1")].position, None);
        old.send(subscribed(Some(asked.id), "chat:1", 8, None));
        let (subscription, _client) = subscribing.await.unwrap();
        let mut room = subscription.unwrap();
        new.send(connected(&connect));
        // What lies between comes over neither.
        new.send(subscribed(None, "chat:1", 10, None));
        let unsubscribe = new.unsubscribe().await;
        new.send(ServerFrame::Unsubscribed(frame::Unsubscribed {
            id: Some(unsubscribe.id),
            channel: channel("chat:1"),
            code: None,
            reason: None,
        }));
        let again = new.subscribe().await;
        assert_eq!(again.position, Some(position(8)));
        new.send(subscribed(Some(again.id), "chat:1", 8, Some(true)));
        new.send(publication("chat:1", 9));
        assert_eq!(offsets(&mut room, 1).await, [9]);
    }

    async fn a_slow_reader_misses_nothing_that_was_published_during_a_move(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.subscription_queue = 2;
        let (_client, mut old, mut room) = subscribed_client(&mut node, options, 0).await;
        old.send(drain(None));
        let mut new = node.accept().await;
        let connect = new.connect().await;
        for offset in 1..=3 {
            old.send(publication("chat:1", offset));
        }
        // For the third one there is no room: the channel is left until there is.
        old.unsubscribe().await;
        new.send(connected(&connect));
        new.send(subscribed(None, "chat:1", 0, Some(true)));
        let left = new.unsubscribe().await;
        new.send(unsubscribed(&left));
        assert_eq!(offsets(&mut room, 2).await, [1, 2]);
        let again = new.subscribe().await;
        assert_eq!(again.position, Some(position(2)));
        new.send(subscribed(Some(again.id), "chat:1", 2, Some(true)));
        // Nothing follows it.
        new.send(publication("chat:1", 3));
        assert_eq!(offsets(&mut room, 1).await, [3]);
    }

    async fn publishes_on_their_way_survive_the_move(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut old, _) = node.client(options).await;
        let publishing = publishes(&client);
        let first = old.publish().await;
        old.send(drain(None));
        let (mut new, _) = node.welcome().await;
        let again = new.publish().await;
        assert_eq!(first.key, again.key);
        new.send(published(&again, 1));
        assert_eq!(publishing.await.unwrap().unwrap().offset, 1);
    }

    async fn a_move_for_which_there_is_no_other_token_is_tried_more_and_more_rarely(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.backoff = Backoff::default();
        options.token = TokenSource::callback(|| async { Ok("expired".to_owned()) });
        let (client, old, _) = node.client(options).await;
        old.send(drain(None));
        let begin = Instant::now();
        let mut refused = 0;
        while begin.elapsed() < Duration::from_secs(4) {
            let Ok(new) = tokio::time::timeout(Duration::from_millis(100), node.accept()).await else { continue };
            new.refuse(CloseCode::TokenExpired).await;
            refused += 1;
        }
        assert!((2..16).contains(&refused), "{refused}");
        assert_eq!(client.connected().unwrap().connects, 1);
    }

    async fn what_the_old_connection_refuses_late_fails_nothing_that_is_under_way_on_the_new_one(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut old, _) = node.client(options).await;
        let publishing = publishes(&client);
        let first = old.publish().await;
        // The old connection is kept for the answer to this.
        let asking = tokio::spawn(async move { client.call("rooms.list", json("1"), None).await });
        assert!(matches!(old.frame().await, ClientFrame::Call(_)));
        old.send(drain(None));
        let (mut new, _) = node.welcome().await;
        let again = new.publish().await;
        let old = told(old, refusal(first.id, ErrorCode::Forbidden)).await;
        new.send(published(&again, 1));
        assert_eq!(publishing.await.unwrap().unwrap().offset, 1);
        drop(old);
        assert!(asking.await.unwrap().is_err());
    }

    async fn being_replaced_by_ones_own_move_is_no_error(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, old, mut room) = subscribed_client(&mut node, options, 0).await;
        old.send(drain(None));
        let mut new = node.accept().await;
        let connect = new.connect().await;
        // The node fences the old connection before its `connected` arrives.
        old.disconnect(CloseCode::Replaced);
        let mut status = client.status();
        let lost = status.wait_for(|status| matches!(status, Status::Disconnected { .. }));
        tokio::time::timeout(PATIENCE, lost).await.unwrap().unwrap();
        new.send(connected(&connect));
        new.send(subscribed(None, "chat:1", 0, Some(true)));
        new.send_on_stream("chat:1", publication("chat:1", 1));
        assert_eq!(offsets(&mut room, 1).await, [1]);
    }

    async fn a_connect_that_was_given_up_and_arrives_late_ends_nothing(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.connect_timeout = Duration::from_millis(300);
        let (_client, old, mut room) = subscribed_client(&mut node, options, 0).await;
        old.send(drain(None));
        let mut stalled = node.accept().await;
        assert_eq!(stalled.connect().await.attempt, Some(2));
        stalled.ended().await;
        // The node has it all the same, and fences the connection that the client went on with.
        old.disconnect(CloseCode::Replaced);
        let (peer, connect) = node.welcome().await;
        assert_eq!(connect.attempt, Some(3));
        peer.send(subscribed(None, "chat:1", 0, Some(true)));
        peer.disconnect(CloseCode::Replaced);
        loop {
            if let ChannelEvent::Unsubscribed { code, .. } = event(&mut room).await {
                break assert_eq!(code, Some(3500));
            }
        }
        node.no_further_connection(Duration::from_millis(300)).await;
    }

    async fn a_change_of_transport_that_was_given_up_and_arrives_late_ends_nothing(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.connect_timeout = Duration::from_millis(300);
        let (client, old, _room) = subscribed_client(&mut node, options, 0).await;
        let (switched, stalled) = tokio::join!(client.switch(kind), async {
            let mut stalled = node.accept().await;
            stalled.connect().await;
            stalled
        });
        switched.unwrap_err();
        // The node has it all the same, and fences the connection that the client went on with.
        old.disconnect(CloseCode::Replaced);
        let (_peer, connect) = node.welcome().await;
        assert_eq!(connect.attempt, Some(3));
        connected_again(&client, 2).await;
        drop(stalled);
    }

    async fn every_connect_has_a_higher_attempt_than_all_before(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut old, connect) = node.client(options).await;
        assert_eq!(connect.attempt, Some(1));
        old.send(drain(None));
        let (_new, connect) = node.welcome().await;
        assert_eq!(connect.attempt, Some(2));
        old.ended().await;
        client.cut().await.unwrap();
        let refused = node.accept().await.refuse(CloseCode::Overloaded).await;
        assert_eq!(refused.attempt, Some(3));
        let (_newer, connect) = node.welcome().await;
        assert_eq!(connect.attempt, Some(4));
    }

    async fn being_replaced_by_another_client_is_the_end(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (_client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
        peer.disconnect(CloseCode::Replaced);
        assert!(matches!(event(&mut room).await, ChannelEvent::Unsubscribed { code: Some(3500), .. }));
        node.no_further_connection(Duration::from_millis(300)).await;
    }

    async fn a_drain_may_name_another_node(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut other = Node::start().await;
        let options = node.options(kind);
        let (client, mut old, _) = node.client(options).await;
        old.send(drain(Some(other.url())));
        let _new = other.welcome().await;
        old.ended().await;
        drop(client);
    }

    async fn a_drain_cannot_send_the_token_over_a_plain_connection(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut other = Node::start().await;
        let options = node.options(kind);
        let (_client, old, _) = node.client(options).await;
        old.send(drain(Some(format!("ws://{}", other.plain))));
        // It moves all the same, to the address that it was given itself.
        node.welcome().await;
        other.no_further_connection(Duration::from_millis(100)).await;
    }

    async fn a_node_that_sends_everybody_on_is_not_followed_faster_than_one_that_breaks(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.backoff = Backoff { first: Duration::from_secs(100_000), max: Duration::from_secs(100_000) };
        let (_client, first, _) = node.client(options).await;
        let at_once = || ServerFrame::Drain(frame::Drain { after_ms: 0, url: None });
        first.send(at_once());
        let (second, _) = node.welcome().await;
        for _ in 0..10 {
            second.send(at_once());
        }
        node.no_further_connection(Duration::from_millis(500)).await;
    }

    async fn a_drain_that_is_told_again_may_name_another_node(kind: TransportKind) {
        let (mut node, mut full, mut other) = (Node::start().await, Node::start().await, Node::start().await);
        let options = node.options(kind);
        let (_client, old, _) = node.client(options).await;
        for url in [full.url(), other.url()] {
            old.send(ServerFrame::Drain(frame::Drain { after_ms: 500, url: Some(url.into()) }));
        }
        let _new = other.welcome().await;
        full.no_further_connection(Duration::from_millis(100)).await;
    }

    async fn a_drain_that_is_told_during_another_move_is_followed_when_that_fails(kind: TransportKind) {
        let (mut node, mut preferred, mut other) = (Node::start().await, Node::start().await, Node::start().await);
        let options = node.options(kind);
        let (client, old) = tokio::join!(Client::connect(options), async {
            let mut peer = node.accept().await;
            let connect = peer.connect().await;
            let prefer_url = Some(preferred.url().into());
            peer.send(ServerFrame::Connected(frame::Connected { prefer_url, ..connected_frame(&connect) }));
            peer
        });
        let _client = client.unwrap();
        let mut moving = preferred.accept().await;
        moving.connect().await;
        let _old = told(old, drain(Some(other.url()))).await;
        moving.disconnect(CloseCode::Overloaded);
        other.welcome().await;
    }

    async fn a_place_that_is_told_while_another_one_refuses_is_where_the_client_goes(kind: TransportKind) {
        let (mut node, mut full, mut other) = (Node::start().await, Node::start().await, Node::start().await);
        let options = node.options(kind);
        let (_client, old, _) = node.client(options).await;
        old.send(drain(Some(full.url())));
        let mut moving = full.accept().await;
        moving.connect().await;
        let _old = told(old, drain(Some(other.url()))).await;
        moving.disconnect(CloseCode::Overloaded);
        let _new = other.welcome().await;
        node.no_further_connection(Duration::from_millis(100)).await;
    }

    async fn a_client_that_is_told_when_to_come_back_does_not_come_sooner(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (_client, peer, _) = node.client(options).await;
        let later = |code: CloseCode| {
            ServerFrame::Disconnect(frame::Disconnect { retry_after_ms: Some(300), ..code.into() })
        };
        peer.send(later(CloseCode::Rotate));
        let told_at = Instant::now();
        let mut peer = node.accept().await;
        assert!(told_at.elapsed() >= Duration::from_millis(300), "{:?}", told_at.elapsed());
        // Neither to one that refuses it.
        peer.connect().await;
        peer.send(later(CloseCode::Overloaded));
        let told_at = Instant::now();
        let _peer = node.welcome().await;
        assert!(told_at.elapsed() >= Duration::from_millis(300), "{:?}", told_at.elapsed());
    }

    async fn a_rotated_client_comes_back_at_once(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.backoff.first = Duration::from_secs(60);
        options.backoff.max = Duration::from_secs(60);
        let (_client, peer, _) = node.client(options).await;
        peer.disconnect(CloseCode::Rotate);
        let (_peer, connect) = node.welcome().await;
        assert!(connect.resume.is_some());
    }

    async fn a_client_goes_to_another_region_when_its_node_is_gone(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut other = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer) = tokio::join!(Client::connect(options), async {
            let mut peer = node.accept().await;
            let connect = peer.connect().await;
            let name = skywave_protocol::Text::new("us").unwrap();
            let regions = vec![frame::Region { name, url: other.url().into() }];
            peer.send(ServerFrame::Connected(frame::Connected { regions, ..connected_frame(&connect) }));
            peer
        });
        let client = client.unwrap();
        let publishing = publishes(&client);
        peer.publish().await;
        drop(node);
        let (mut peer, connect) = other.welcome().await;
        assert_eq!(connect.resume.as_deref(), Some("secret"));
        let publish = peer.publish().await;
        peer.send(published(&publish, 1));
        publishing.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_application_can_change_the_transport() {
    let mut node = Node::start().await;
    let mut options = node.options(TransportKind::WebTransport);
    options.transport = TransportChoice::Auto;
    let (client, mut old, mut room) = subscribed_client(&mut node, options, 0).await;
    assert_eq!(old.kind, TransportKind::WebTransport);
    let (switched, new) = tokio::join!(client.switch(TransportKind::WebSocket), async {
        let (new, connect) = node.welcome().await;
        assert_eq!(connect.resume.as_deref(), Some("secret"));
        new.send(subscribed(None, "chat:1", 0, Some(true)));
        new
    });
    switched.unwrap();
    assert_eq!(
        (new.kind, client.connected().unwrap().transport),
        (TransportKind::WebSocket, TransportKind::WebSocket)
    );
    old.ended().await;
    new.send(publication("chat:1", 1));
    assert_eq!(offsets(&mut room, 1).await, [1]);
}

#[tokio::test]
async fn a_drain_that_is_told_during_a_change_of_transport_is_followed_also_when_that_works() {
    let mut node = Node::start().await;
    let mut other = Node::start().await;
    let options = node.options(TransportKind::WebTransport);
    let (client, old, _) = node.client(options).await;
    let (switched, _old) = tokio::join!(client.switch(TransportKind::WebSocket), async {
        let mut new = node.accept().await;
        let connect = new.connect().await;
        let old = told(old, drain(Some(other.url()))).await;
        new.send(connected(&connect));
        (old, new)
    });
    switched.unwrap();
    other.welcome().await;
}

#[tokio::test]
async fn a_drain_that_is_due_during_a_change_of_transport_is_followed_when_that_fails() {
    let mut node = Node::start_with(Udp::Silent).await;
    let mut options = node.options(TransportKind::WebSocket);
    options.connect_timeout = Duration::from_millis(300);
    let (client, old, _) = node.client(options).await;
    let _old = told(old, drain(None)).await;
    // It may have begun to move already.
    client.switch(TransportKind::WebTransport).await.unwrap_err();
    node.welcome().await;
}

#[tokio::test]
async fn a_change_of_transport_that_fails_leaves_the_session_as_it_was() {
    let mut node = Node::start_with(Udp::Silent).await;
    let mut options = node.options(TransportKind::WebSocket);
    options.connect_timeout = Duration::from_millis(300);
    let (client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
    client.switch(TransportKind::WebTransport).await.unwrap_err();
    peer.send(publication("chat:1", 1));
    assert_eq!(offsets(&mut room, 1).await, [1]);
    assert_eq!(client.connected().unwrap().connects, 1);
}
