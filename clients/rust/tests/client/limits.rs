//! How much a node may say at once without harm, and how often it is asked again for what it refuses.

use crate::{node::*, over_both_transports};
use skywave_client::{
    Client, Payload, Publication, Status, SubscribeOptions, Subscription, TransportKind,
    transport::MAX_RECEIVED_FRAME_BYTES,
};
use skywave_protocol::{ClientFrame, ErrorCode, ServerFrame, frame};
use std::time::{Duration, Instant};

/// More than are held for want of an answer.
const MANY_EVENTS: usize = 8_300;

fn said(name: &str) -> ServerFrame {
    ServerFrame::Event(frame::Event {
        channel: channel(name),
        session: frame::SessionId::new("other").unwrap(),
        user: None,
        slot: None,
        data: json("1"),
    })
}

fn of_size(offset: u64, bytes: usize) -> ServerFrame {
    let ServerFrame::Publication(small) = publication("chat:1", offset) else { panic!("another frame") };
    ServerFrame::Publication(Publication { data: Payload::Binary(vec![7; bytes].into()), ..small })
}

/// A client whose queues hold whatever a test sends, with a subscription to `chat:1`.
async fn roomy_client(node: &mut Node, kind: TransportKind) -> (Client, Peer, Subscription) {
    let mut options = node.options(kind);
    options.subscription_queue = 2 * MANY_EVENTS;
    subscribed_client(node, options, 0).await
}

over_both_transports! {
    async fn any_number_of_events_before_a_confirmation_ends_no_connection(kind: TransportKind) {
        let mut node = Node::start().await;
        let (client, mut peer, _room) = roomy_client(&mut node, kind).await;
        let (other, ()) = tokio::join!(client.subscribe("chat:2", SubscribeOptions::default()), async {
            let subscribe = peer.subscribe().await;
            for _ in 0..MANY_EVENTS {
                peer.send(said("chat:2"));
            }
            peer.send(publication("chat:2", 6));
            peer.send(subscribed(Some(subscribe.id), "chat:2", 5, None));
        });
        assert_eq!(offsets(&mut other.unwrap(), 1).await, [6]);
        assert_eq!(client.connected().unwrap().connects, 1);
    }

    async fn any_number_of_events_before_connected_ends_no_connection(kind: TransportKind) {
        let mut node = Node::start().await;
        let (client, peer, mut room) = roomy_client(&mut node, kind).await;
        drop(peer);
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        for _ in 0..MANY_EVENTS {
            peer.send(said("chat:1"));
        }
        peer.send(publication("chat:1", 1));
        peer.send(connected(&connect));
        peer.send(subscribed(None, "chat:1", 0, Some(true)));
        assert_eq!(offsets(&mut room, 1).await, [1]);
        drop(client);
    }

    async fn a_publication_as_large_as_a_node_may_take_arrives(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        // What was published as MessagePack is a third larger for a reader of JSON.
        options.encoding = skywave_client::Encoding::Json;
        let (client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
        peer.send(of_size(1, 16 << 20));
        assert_eq!(offsets(&mut room, 1).await, [1]);
        assert_eq!(client.connected().unwrap().connects, 1);
    }

    async fn a_large_publication_that_overtakes_its_confirmation_arrives(kind: TransportKind) {
        let mut node = Node::start().await;
        let (client, mut peer, _) = node.client(node.options(kind)).await;
        let (room, ()) = tokio::join!(client.subscribe("chat:1", SubscribeOptions::default()), async {
            let subscribe = peer.subscribe().await;
            peer.send(of_size(6, 12 << 20));
            peer.send(subscribed(Some(subscribe.id), "chat:1", 5, None));
        });
        assert_eq!(offsets(&mut room.unwrap(), 1).await, [6]);
        assert_eq!(client.connected().unwrap().connects, 1);
    }

    async fn a_frame_that_no_node_may_send_is_named_as_the_reason_of_the_end(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        // Long enough for whoever looks at the status.
        options.backoff.first = PATIENCE;
        options.backoff.max = PATIENCE;
        let (client, peer, _room) = subscribed_client(&mut node, options, 0).await;
        let mut status = client.status();
        peer.send(of_size(1, MAX_RECEIVED_FRAME_BYTES));
        let ended = status.wait_for(|status| matches!(status, Status::Disconnected { .. }));
        let ended = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().clone();
        let Status::Disconnected { reason, will_reconnect: true, .. } = ended else { panic!("{ended:?}") };
        assert!(reason.contains(&MAX_RECEIVED_FRAME_BYTES.to_string()), "{reason}");
    }

    async fn a_channel_for_which_there_is_room_once_another_one_is_left_is_asked_for_again(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, room) = subscribed_client(&mut node, options, 0).await;
        drop(room);
        let left = peer.unsubscribe().await;
        let (other, ()) = tokio::join!(client.subscribe("chat:2", SubscribeOptions::default()), async {
            let subscribe = peer.subscribe().await;
            peer.send(refusal(subscribe.id, ErrorCode::LimitReached));
            peer.send(unsubscribed(&left));
            let again = peer.subscribe().await;
            assert_eq!(again.channel, channel("chat:2"));
            peer.send(subscribed(Some(again.id), "chat:2", 0, None));
        });
        other.unwrap();
    }

    async fn channels_that_are_refused_again_and_again_are_asked_for_less_and_less_often(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.backoff = Default::default();
        let (client, mut peer, _) = node.client(options).await;
        let mut rooms = Vec::new();
        for index in 0..100 {
            rooms.push(subscribe(&client, &mut peer, &format!("chat:{index}"), 0).await);
        }
        drop(peer);
        let (mut peer, connect) = node.welcome().await;
        for channel in connect.subscriptions.keys() {
            let (code, reason) = (ErrorCode::RateLimited.code(), "rate_limited".into());
            let channel = channel.clone();
            peer.send(ServerFrame::Unsubscribed(frame::Unsubscribed { id: None, channel, code: Some(code), reason: Some(reason) }));
        }
        let begin = Instant::now();
        let mut asked = 0;
        while begin.elapsed() < Duration::from_secs(5) {
            if let ClientFrame::Subscribe(subscribe) = peer.frame().await {
                asked += 1;
                peer.send(refusal(subscribe.id, ErrorCode::RateLimited));
            }
        }
        // At their first pace they would be asked for eight times each.
        assert!((100..600).contains(&asked), "{asked}");
    }
}
