//! What a subscriber and a publisher can rely on: order, once each, nothing silently missing.

use crate::{node::*, over_both_transports};
use skywave_client::{ChannelEvent, Gap, GapReason, TransportKind};
use skywave_protocol::{
    ClientFrame, CloseCode, ErrorCode, ServerFrame, frame,
    position::{Epoch, Origin},
};
use std::time::Duration;

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
