//! What a publisher can rely on: one effect, in order, and an answer.

use crate::{
    node::{self, *},
    over_both_transports,
};
use skywave_client::{Client, TransportKind};
use skywave_protocol::{ErrorCode, ServerFrame, frame};
use std::time::{Duration, Instant};
use tokio::time::timeout;

over_both_transports! {
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
            let publish = peer.publish().await;
            assert_eq!(publish.data, json(&number.to_string()));
            peer.send(published(&publish, 1));
            let elapsed = first_at.get_or_insert_with(Instant::now).elapsed();
            // Two seconds' worth may come at once.
            assert!(f64::from(number) <= 20.0 * (2.0 + elapsed.as_secs_f64()), "{number} after {elapsed:?}");
        }
    }

    async fn what_comes_faster_than_the_node_takes_it_keeps_its_order(kind: TransportKind) {
        let mut node = Node::start().await;
        let (client, mut peer) = tokio::join!(Client::connect(node.options(kind)), async {
            let mut peer = node.accept().await;
            let connect = peer.connect().await;
            let mut connected = connected_frame(&connect);
            connected.limits.publishes_per_second = 200;
            peer.send(ServerFrame::Connected(connected));
            peer
        });
        let client = client.unwrap();
        let publishing = tokio::spawn(async move {
            for number in 0..500 {
                let client = client.clone();
                tokio::spawn(async move { client.publish("chat:1", json(&number.to_string())).await });
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        for number in 0..500 {
            let publish = peer.publish().await;
            assert_eq!(publish.data, json(&number.to_string()));
            peer.send(published(&publish, number + 1));
        }
        publishing.await.unwrap();
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
