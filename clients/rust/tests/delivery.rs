//! What a subscriber and a publisher can rely on: order, once each, nothing silently missing.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod node;

use node::*;
use skywave_client::{ChannelEvent, Client, Gap, GapReason, SubscribeOptions, Subscription, TransportKind};
use skywave_protocol::{
    ClientFrame, CloseCode, ErrorCode, Point, ServerFrame, frame,
    position::{Epoch, Origin},
};
use std::time::{Duration, Instant};
use tokio::{task::JoinHandle, time::timeout};

fn gap(offset: u64) -> ServerFrame {
    ServerFrame::Gap(Gap {
        channel: channel("chat:1"),
        origin: Origin::new("eu").unwrap(),
        reason: GapReason::Trimmed,
        epoch: Epoch::new("e1").unwrap(),
        offset,
    })
}

over_both_transports! {
    async fn publications_arrive_in_order_and_each_once(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (_client, peer, mut room) = subscribed_client(&mut node, options, 5).await;
        for offset in [6, 7, 7, 6, 8, 5, 9] {
            peer.send_on_stream("chat:1", publication("chat:1", offset));
        }
        assert_eq!(offsets(&mut room, 4).await, [6, 7, 8, 9]);
    }

    async fn a_publication_with_a_key_seen_before_has_no_second_effect(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
        peer.send_on_stream("chat:1", keyed_publication("chat:1", 1, Some("k")));
        peer.send_on_stream("chat:1", keyed_publication("chat:1", 2, Some("k")));
        peer.send_on_stream("chat:1", keyed_publication("chat:1", 3, Some("other")));
        assert_eq!(offsets(&mut room, 2).await, [1, 3]);
        // The repetition counts as seen all the same.
        client.cut().await.unwrap();
        let (_peer, connect) = node.welcome().await;
        assert_eq!(connect.subscriptions[&channel("chat:1")].position, Some(position(3)));
    }

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

    async fn frames_before_connected_are_held(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
        drop(peer);
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        peer.send_on_stream("chat:1", publication("chat:1", 1));
        tokio::time::sleep(Duration::from_millis(50)).await;
        peer.send(connected(&connect));
        peer.send(subscribed(None, "chat:1", 0, Some(true)));
        assert_eq!(offsets(&mut room, 1).await, [1]);
        drop(client);
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

    async fn a_gap_is_told_and_delivery_goes_on_after_it(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (_client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
        for frame in [publication("chat:1", 1), gap(5), publication("chat:1", 6)] {
            peer.send_on_stream("chat:1", frame);
        }
        assert!(matches!(event(&mut room).await, ChannelEvent::Publication(first) if first.offset == 1));
        assert!(matches!(event(&mut room).await, ChannelEvent::Gap(gap) if gap.offset == 5));
        assert!(matches!(event(&mut room).await, ChannelEvent::Publication(next) if next.offset == 6));
    }

    async fn a_missing_publication_is_fetched_and_no_other_channel_waits_for_it(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, mut room) = subscribed_client(&mut node, options, 0).await;
        let mut other = subscribe(&client, &mut peer, "chat:2", 0).await;
        peer.send_on_stream("chat:1", publication("chat:1", 1));
        peer.send_on_stream("chat:1", publication("chat:1", 3));
        let unsubscribe = peer.unsubscribe().await;
        peer.send_on_stream("chat:2", publication("chat:2", 1));
        assert_eq!(offsets(&mut other, 1).await, [1]);
        peer.send(unsubscribed(&unsubscribe));
        let again = peer.subscribe().await;
        assert_eq!((again.channel, again.position), (channel("chat:1"), Some(position(1))));
        peer.send(subscribed(Some(again.id), "chat:1", 1, Some(true)));
        for offset in [2, 3] {
            peer.send(publication("chat:1", offset));
        }
        assert_eq!(offsets(&mut room, 3).await, [1, 2, 3]);
        assert_eq!(client.connected().unwrap().connects, 1);
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

    async fn after_a_cut_the_session_resumes_from_its_positions(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
        peer.send_on_stream("chat:1", publication("chat:1", 1));
        assert_eq!(offsets(&mut room, 1).await, [1]);
        client.cut().await.unwrap();
        let (peer, connect) = node.welcome().await;
        assert_eq!(connect.resume.as_deref(), Some("secret"));
        assert_eq!(connect.subscriptions[&channel("chat:1")].position, Some(position(1)));
        let ServerFrame::Subscribed(frame) = subscribed(None, "chat:1", 1, Some(true)) else { panic!("no answer") };
        peer.send(ServerFrame::Subscribed(frame::Subscribed { recovers: Some(1), ..frame }));
        peer.send_on_stream("chat:1", publication("chat:1", 2));
        match event(&mut room).await {
            ChannelEvent::Subscribed(subscribed) => {
                assert_eq!((subscribed.recovered, subscribed.recovers), (Some(true), Some(1)));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(offsets(&mut room, 1).await, [2]);
        assert_eq!(client.connected().unwrap().connects, 2);
    }

    async fn unanswered_publishes_are_sent_again_with_their_keys_in_order(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let publishing: Vec<_> = (0..3)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move { client.publish("chat:1", json(&number.to_string())).await })
            })
            .collect();
        let sent = [peer.publish().await, peer.publish().await, peer.publish().await];
        client.cut().await.unwrap();
        let newer = tokio::spawn({
            let client = client.clone();
            async move { client.publish("chat:1", json("\"newer\"")).await }
        });
        let (mut peer, _) = node.welcome().await;
        for (index, earlier) in sent.iter().enumerate() {
            let again = peer.publish().await;
            assert_eq!((&again.key, &again.data), (&earlier.key, &earlier.data));
            peer.send(published(&again, index as u64 + 1));
        }
        let last = peer.publish().await;
        assert_eq!(last.data, json("\"newer\""));
        peer.send(published(&last, 4));
        for publish in publishing {
            publish.await.unwrap().unwrap();
        }
        assert_eq!(newer.await.unwrap().unwrap().offset, 4);
    }

    async fn a_transient_error_is_not_the_publishers_business(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let (published, keys) = tokio::join!(client.publish("chat:1", json("1")), async {
            let first = peer.publish().await;
            let mut error = frame::Error::new(Some(first.id), ErrorCode::RateLimited, "slow down");
            error.retry_after_ms = Some(50);
            let refused_at = std::time::Instant::now();
            peer.send(ServerFrame::Error(error));
            let second = peer.publish().await;
            assert!(refused_at.elapsed() >= Duration::from_millis(50));
            peer.send(node::published(&second, 1));
            (first.key, second.key)
        });
        assert_eq!(published.unwrap().offset, 1);
        assert!(keys.0.is_some() && keys.0 == keys.1);
    }

    async fn what_waited_for_a_connection_goes_out_no_faster_than_the_node_takes_it(kind: TransportKind) {
        let mut node = Node::start().await;
        let (client, peer, _) = node.client(node.options(kind)).await;
        drop(peer);
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        for number in 0..60 {
            let client = client.clone();
            tokio::spawn(async move { client.publish("chat:1", json(&number.to_string())).await });
        }
        // Commands are taken in their order: behind these the publishes are known.
        tokio::task::yield_now().await;
        assert!(client.switch(kind).await.is_err());
        let mut connected = connected_frame(&connect);
        connected.limits.publishes_per_second = 20;
        peer.send(ServerFrame::Connected(connected));
        let mut first_at = None;
        for number in 0..50 {
            assert_eq!(peer.publish().await.data, json(&number.to_string()));
            let elapsed = first_at.get_or_insert_with(Instant::now).elapsed();
            // Two seconds' worth may come at once.
            assert!(f64::from(number) <= 20.0 * (2.0 + elapsed.as_secs_f64()), "{number} after {elapsed:?}");
        }
    }

    async fn a_publish_on_hold_goes_out_although_a_later_one_was_answered(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let (first, second, ()) =
            tokio::join!(client.publish("chat:1", json("1")), client.publish("chat:1", json("2")), async {
                let (first, second) = (peer.publish().await, peer.publish().await);
                peer.send(refusal(first.id, ErrorCode::Unavailable));
                peer.send(published(&second, 1));
                let again = peer.publish().await;
                assert_eq!(again.key, first.key);
                peer.send(published(&again, 2));
            });
        assert_eq!((first.unwrap().offset, second.unwrap().offset), (2, 1));
    }

    async fn a_publish_that_might_be_published_twice_is_given_up(kind: TransportKind) {
        let mut node = Node::start().await;
        let (client, mut peer) = tokio::join!(Client::connect(node.options(kind)), async {
            let mut peer = node.accept().await;
            let connect = peer.connect().await;
            let mut connected = connected_frame(&connect);
            connected.limits.idempotency_ms = 400;
            peer.send(ServerFrame::Connected(connected));
            peer
        });
        let client = client.unwrap();
        let publishing = publishes(&client);
        peer.publish().await;
        drop(peer);
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        let error = publishing.await.unwrap().unwrap_err();
        assert_eq!((&*error.reason, error.transient), ("outcome_unknown", false));
        peer.send(connected(&connect));
        let (published, ()) = tokio::join!(client.publish("chat:1", json("2")), async {
            let publish = peer.publish().await;
            assert_eq!(publish.data, json("2"));
            peer.send(node::published(&publish, 1));
        });
        published.unwrap();
    }

    async fn a_final_error_is(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let (refused, ()) = tokio::join!(client.publish("chat:1", json("1")), async {
            let publish = peer.publish().await;
            peer.send(refusal(publish.id, ErrorCode::Forbidden));
        });
        assert_eq!(refused.unwrap_err().code, ErrorCode::Forbidden.code());
    }

    async fn other_requests_fail_transiently_when_the_connection_is_cut(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let (answer, ()) = tokio::join!(client.presence("chat:1"), async {
            peer.frame().await;
            client.cut().await.unwrap();
        });
        assert!(answer.unwrap_err().transient);
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

    async fn a_slow_reader_misses_nothing_and_holds_up_nobody(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.subscription_queue = 4;
        let (client, mut peer, mut slow) = subscribed_client(&mut node, options, 0).await;
        let mut quick = subscribe(&client, &mut peer, "chat:2", 0).await;
        for offset in 1..=6 {
            peer.send_on_stream("chat:1", publication("chat:1", offset));
        }
        let unsubscribe = peer.unsubscribe().await;
        assert_eq!(unsubscribe.channel, channel("chat:1"));
        peer.send(unsubscribed(&unsubscribe));
        peer.send_on_stream("chat:2", publication("chat:2", 1));
        assert_eq!(offsets(&mut quick, 1).await, [1]);
        assert_eq!(offsets(&mut slow, 4).await, [1, 2, 3, 4]);
        let again = peer.subscribe().await;
        assert_eq!(again.position, Some(position(4)));
        peer.send(subscribed(Some(again.id), "chat:1", 4, Some(true)));
        peer.send_on_stream("chat:1", publication("chat:1", 5));
        peer.send_on_stream("chat:1", publication("chat:1", 6));
        assert_eq!(offsets(&mut slow, 2).await, [5, 6]);
    }

    async fn a_ping_is_answered(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (_client, mut peer, _) = node.client(options).await;
        let ping = frame::Ping { seq: 42, interval_ms: 60_000, timeout_ms: 10_000 };
        peer.send_datagram(ServerFrame::Ping(ping));
        assert_eq!(peer.next().await, Some(ClientFrame::Pong(frame::Pong { seq: 42 })));
    }

    async fn a_silent_connection_is_given_up_by_the_latest_heartbeat(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (_client, peer, _) = node.client(options).await;
        peer.send(ServerFrame::Ping(frame::Ping { seq: 1, interval_ms: 800, timeout_ms: 400 }));
        let begin = std::time::Instant::now();
        let (_peer, connect) = node.welcome().await;
        assert!(connect.resume.is_some());
        assert!(begin.elapsed() >= Duration::from_millis(1_150), "{:?}", begin.elapsed());
    }

    async fn events_reach_the_reader_and_emits_reach_the_node(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, mut room) = subscribed_client(&mut node, options, 0).await;
        peer.send_datagram(ServerFrame::Event(frame::Event {
            channel: channel("chat:1"),
            session: frame::SessionId::new("other").unwrap(),
            user: None,
            slot: None,
            data: json("1"),
        }));
        assert!(matches!(event(&mut room).await, ChannelEvent::Event(event) if event.data == json("1")));
        for size in [10, 5_000] {
            // Too large for a datagram is no reason to lose it.
            let data = json(&format!("\"{}\"", "x".repeat(size)));
            client.emit("chat:1", data.clone(), Some("cursor")).await.unwrap();
            assert!(matches!(peer.frame().await, ClientFrame::Emit(emit) if emit.data == data));
        }
    }

    async fn an_unknown_frame_is_ignored(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.encoding = skywave_client::Encoding::MessagePack;
        let (_client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
        // {"news": {}}
        peer.send_raw(&[0x81, 0xa4, b'n', b'e', b'w', b's', 0x80]);
        peer.send(publication("chat:1", 1));
        assert_eq!(offsets(&mut room, 1).await, [1]);
    }

    async fn a_frame_that_cannot_be_understood_harms_nothing_else(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.encoding = skywave_client::Encoding::MessagePack;
        let (client, mut peer, mut room) = subscribed_client(&mut node, options, 0).await;
        let (answer, ()) = tokio::join!(client.presence("chat:1"), async {
            let ClientFrame::Presence(request) = peer.frame().await else { panic!("no request for presence") };
            let id = u8::try_from(request.id.get()).unwrap();
            // {"presence": {"id": id}}
            peer.send_raw(&[b"\x81\xa8presence\x81\xa2id", &[id][..]].concat());
        });
        let error = answer.unwrap_err();
        assert_eq!((error.code, error.transient), (ErrorCode::Internal.code(), true));
        // {"gap": {}}
        peer.send_raw(b"\x81\xa3gap\x80");
        peer.send(publication("chat:1", 1));
        assert_eq!(offsets(&mut room, 1).await, [1]);
        assert_eq!(client.connected().unwrap().connects, 1);
    }

    async fn a_publish_whose_answer_cannot_be_understood_is_sent_again_with_its_key(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.encoding = skywave_client::Encoding::MessagePack;
        let (client, mut peer, _) = node.client(options).await;
        let (published, keys) = tokio::join!(client.publish("chat:1", json("1")), async {
            let first = peer.publish().await;
            let id = u8::try_from(first.id.get()).unwrap();
            // {"published": {"id": id}}
            peer.send_raw(&[b"\x81\xa9published\x81\xa2id", &[id][..]].concat());
            let second = peer.publish().await;
            peer.send(node::published(&second, 1));
            (first.key, second.key)
        });
        assert_eq!(published.unwrap().offset, 1);
        assert!(keys.0.is_some() && keys.0 == keys.1);
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

    async fn bytes_that_are_no_frame_end_the_connection_and_not_the_session(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (_client, peer, _) = node.client(options).await;
        peer.send_raw(&[0xc1; 9]);
        let (_peer, connect) = node.welcome().await;
        assert!(connect.resume.is_some());
    }

    async fn a_client_that_is_told_to_stay_away_does(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
        peer.disconnect(CloseCode::Unauthenticated);
        assert!(matches!(event(&mut room).await, ChannelEvent::Unsubscribed { code: Some(3503), .. }));
        let refused = client.publish("chat:1", json("1")).await.unwrap_err();
        assert!(!refused.transient);
        node.no_further_connection(Duration::from_millis(300)).await;
    }

    async fn any_other_code_brings_it_back(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (_client, peer, _) = node.client(options).await;
        peer.disconnect(CloseCode::SlowConsumer);
        let (peer, _) = node.welcome().await;
        peer.close(CloseCode::Shutdown.code());
        let (_peer, connect) = node.welcome().await;
        assert!(connect.resume.is_some());
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
async fn a_full_publish_queue_is_told_at_once() {
    let mut node = Node::start().await;
    let mut options = node.options(TransportKind::WebSocket);
    options.publish_queue = 2;
    let (client, mut peer, _) = node.client(options).await;
    for _ in 0..2 {
        let client = client.clone();
        tokio::spawn(async move { client.publish("chat:1", json("1")).await });
        peer.publish().await;
    }
    let refused = timeout(PATIENCE, client.publish("chat:1", json("1"))).await.unwrap().unwrap_err();
    assert_eq!(refused.code, ErrorCode::LimitReached.code());
}

#[tokio::test]
async fn a_frame_over_the_nodes_limit_fails_alone() {
    let mut node = Node::start().await;
    let options = node.options(TransportKind::WebTransport);
    let (client, mut peer, _) = node.client(options).await;
    let large = json(&format!("\"{}\"", "x".repeat(70_000)));
    assert_eq!(client.publish("chat:1", large).await.unwrap_err().code, ErrorCode::BadRequest.code());
    let (published, ()) = tokio::join!(client.publish("chat:1", json("1")), async {
        let publish = peer.publish().await;
        peer.send(node::published(&publish, 1));
    });
    published.unwrap();
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

#[tokio::test]
async fn without_an_answer_a_request_times_out() {
    let mut node = Node::start().await;
    let mut options = node.options(TransportKind::WebSocket);
    options.request_timeout = Duration::from_millis(50);
    let (client, _peer, _) = node.client(options).await;
    assert_eq!(client.presence("chat:1").await.unwrap_err().code, ErrorCode::Timeout.code());
}

#[tokio::test]
async fn a_call_is_waited_for_until_its_own_deadline() {
    let mut node = Node::start().await;
    let mut options = node.options(TransportKind::WebSocket);
    options.request_timeout = Duration::from_millis(50);
    let (client, mut peer, _) = node.client(options).await;
    let (answer, ()) = tokio::join!(client.call("rooms.list", json("1"), Some(PATIENCE)), async {
        let ClientFrame::Call(call) = peer.frame().await else { panic!("no call") };
        assert_eq!(u128::from(call.deadline_ms.unwrap()), PATIENCE.as_millis());
        // Longer than any other request is waited for.
        assert_eq!(client.presence("chat:1").await.unwrap_err().code, ErrorCode::Timeout.code());
        peer.send(ServerFrame::Result(frame::CallResult { id: call.id, data: json("2") }));
    });
    assert_eq!(answer.unwrap(), json("2"));
    let mut options = node.options(TransportKind::WebSocket);
    options.request_timeout = Duration::MAX;
    let (client, _peer, _) = node.client(options).await;
    let late = client.call("rooms.list", json("1"), Some(Duration::from_millis(50)));
    assert_eq!(timeout(PATIENCE, late).await.unwrap().unwrap_err().code, ErrorCode::Timeout.code());
}

#[tokio::test]
async fn a_suspension_is_not_taken_for_a_slow_network() {
    let mut node = Node::start().await;
    let options = node.options(TransportKind::WebSocket);
    let (client, mut peer, _) = node.client(options).await;
    for suspended in [false, true] {
        let (published, ()) = tokio::join!(client.publish("chat:1", json("1")), async {
            let publish = peer.publish().await;
            if suspended {
                // Time goes on, and nothing in this process does.
                std::thread::sleep(Duration::from_millis(1_500));
            }
            peer.send(published(&publish, 1));
        });
        published.unwrap();
    }
    assert!(client.rtt().unwrap() < Duration::from_millis(100), "{:?}", client.rtt());
}

#[tokio::test]
async fn the_session_ends_when_nobody_holds_it() {
    let mut node = Node::start().await;
    let options = node.options(TransportKind::WebSocket);
    let (client, mut peer, room) = subscribed_client(&mut node, options, 0).await;
    drop(client);
    drop(room);
    peer.ended().await;
    node.no_further_connection(Duration::from_millis(200)).await;
}
