//! What is asked of a node: answered, asked again where that does no harm, and not waited for for ever.

use crate::{node::*, over_both_transports};
use skywave_client::TransportKind;
use skywave_protocol::{ClientFrame, ErrorCode, ServerFrame, frame};
use std::time::Duration;
use tokio::time::timeout;

over_both_transports! {
    async fn what_does_no_harm_twice_is_asked_again_after_a_break(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let (answer, _peer) = tokio::join!(client.presence("chat:1"), async {
            let first = peer.frame().await;
            client.cut().await.unwrap();
            let (mut peer, _) = node.welcome().await;
            assert_eq!(peer.frame().await, first);
            let ClientFrame::Presence(request) = first else { panic!("no request for presence") };
            let (id, channel) = (request.id, request.channel);
            peer.send(ServerFrame::Presence(frame::Presence { id, channel, count: 3, members: Vec::new() }));
            peer
        });
        assert_eq!(answer.unwrap().count, 3);
    }

    async fn a_call_is_sent_once_and_fails_transiently_when_the_connection_breaks(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let (answer, ()) = tokio::join!(client.call("rooms.list", json("1"), None), async {
            peer.frame().await;
            client.cut().await.unwrap();
        });
        assert!(answer.unwrap_err().transient);
    }

    async fn what_is_asked_without_a_connection_waits_for_one(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, peer, _) = node.client(options).await;
        drop(peer);
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        let asking = tokio::spawn(async move { client.call("rooms.list", json("1"), None).await });
        tokio::task::yield_now().await;
        peer.send(connected(&connect));
        let ClientFrame::Call(call) = peer.frame().await else { panic!("no call") };
        peer.send(ServerFrame::Result(frame::CallResult { id: call.id, data: json("2") }));
        assert_eq!(asking.await.unwrap().unwrap(), json("2"));
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
