//! The raw connections below the client.

use crate::{node::*, over_both_transports};
use skywave_client::{
    CertificateCheck, Encoding, HistoryRange, Payload, TransportKind,
    transport::{Connection, DialError, DialOptions, Dialer, Lane, Sender, Via},
};
use skywave_protocol::{ClientFrame, CloseCode, RequestId, ServerFrame, frame};
use std::{ops::RangeInclusive, time::Duration};
use tokio::time::timeout;

async fn dial(node: &Node, kind: TransportKind) -> Connection {
    let options = DialOptions { certificate: CertificateCheck::Insecure, ..DialOptions::default() };
    let dialer = Dialer::new(options).unwrap();
    timeout(PATIENCE, dialer.dial(&node.url().parse().unwrap(), kind)).await.unwrap().unwrap()
}

/// A raw connection with the node's end of it; a first frame makes the control stream known there.
async fn pair(node: &mut Node, kind: TransportKind) -> (Connection, Peer) {
    let mut connection = dial(node, kind).await;
    let pong = Encoding::MessagePack.encode(&ClientFrame::Pong(frame::Pong { seq: 0 })).unwrap();
    connection.sender.send(&pong, Lane::Reliable).await.unwrap();
    let mut peer = node.accept().await;
    assert!(matches!(peer.next().await, Some(ClientFrame::Pong(_))));
    (connection, peer)
}

over_both_transports! {
    async fn a_cut_says_nothing_to_the_node_and_ends_the_connection_here(kind: TransportKind) {
        let mut node = Node::start().await;
        let (mut connection, mut peer) = pair(&mut node, kind).await;
        connection.control.cut();
        timeout(PATIENCE, connection.receiver.receive()).await.unwrap().unwrap_err();
        drop(connection);
        assert!(timeout(Duration::from_millis(500), peer.heard()).await.is_err());
    }

    async fn what_was_sent_before_the_end_is_read_before_the_end(kind: TransportKind) {
        let mut node = Node::start().await;
        let (mut connection, peer) = pair(&mut node, kind).await;
        peer.send(publication("chat:1", 1));
        peer.disconnect(CloseCode::Shutdown);
        let mut read = Vec::new();
        let closed = loop {
            match timeout(PATIENCE, connection.receiver.receive()).await.unwrap() {
                Ok(received) => read.push(Encoding::MessagePack.decode_server(&received.frame).unwrap()),
                Err(closed) => break closed,
            }
        };
        assert!(matches!(read[..], [ServerFrame::Publication(_), ServerFrame::Disconnect(_)]), "{read:?}");
        assert_eq!(closed.code, Some(3001));
        assert!(closed.reconnect());
    }

    async fn every_request_gets_its_own_reply(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut peer, _) = node.client(options).await;
        let node_side = async {
            let mut frames = Vec::new();
            for _ in 0..3 {
                frames.push(peer.frame().await);
            }
            // In another order than they came.
            for frame in frames.into_iter().rev() {
                peer.send(match frame {
                    ClientFrame::History(frame::HistoryRequest { id, channel, limit, .. }) => {
                        assert_eq!(limit, 2);
                        ServerFrame::History(frame::History { id, channel, publications: vec![], cursor: None, more: false })
                    }
                    ClientFrame::Presence(frame::PresenceRequest { id, channel }) => {
                        ServerFrame::Presence(frame::Presence { id, channel, count: 7, members: vec![] })
                    }
                    ClientFrame::Call(frame::Call { id, data, deadline_ms, .. }) => {
                        assert_eq!(deadline_ms, Some(1500));
                        ServerFrame::Result(frame::CallResult { id, data })
                    }
                    other => panic!("{other:?}"),
                });
            }
        };
        let binary = Payload::Binary(vec![0, 255].into());
        let (history, presence, result, ()) = tokio::join!(
            client.history("chat:1", HistoryRange::last(2)),
            client.presence("chat:1"),
            client.call("echo", binary.clone(), Some(Duration::from_millis(1500))),
            node_side,
        );
        assert!(history.unwrap().publications.is_empty());
        assert_eq!(presence.unwrap().count, 7);
        assert_eq!(result.unwrap(), binary);
    }
}

/// What a client reads of a node that answers its requests with these pages, and the requests.
async fn read(
    range: HistoryRange,
    pages: &[(RangeInclusive<u64>, bool)],
) -> (Vec<u64>, Vec<frame::HistoryRequest>) {
    let mut node = Node::start().await;
    let options = node.options(TransportKind::WebSocket);
    let (client, mut peer, _) = node.client(options).await;
    let answering = async {
        let mut requests = Vec::new();
        for (offsets, more) in pages.iter().cloned() {
            let ClientFrame::History(request) = peer.frame().await else { panic!("no request for history") };
            let cursor = skywave_protocol::Text::new(offsets.start().to_string()).ok();
            let of = |offset| match publication("chat:1", offset) {
                ServerFrame::Publication(publication) => publication,
                other => panic!("{other:?}"),
            };
            let frame::HistoryRequest { id, channel, .. } = request.clone();
            let publications = offsets.map(of).collect();
            peer.send(ServerFrame::History(frame::History { id, channel, publications, cursor, more }));
            requests.push(request);
        }
        requests
    };
    let (history, requests) = tokio::join!(client.history("chat:1", range), answering);
    (history.unwrap().publications.iter().map(|publication| publication.offset).collect(), requests)
}

#[tokio::test]
async fn a_short_page_of_history_is_not_taken_for_all() {
    let (offsets, requests) =
        read(HistoryRange::last(5), &[(6..=7, true), (4..=5, true), (3..=3, true)]).await;
    assert_eq!(offsets, [3, 4, 5, 6, 7]);
    let asked: Vec<_> = requests.iter().map(|request| (request.limit, request.before.as_deref())).collect();
    assert_eq!(asked, [(5, None), (3, Some("6")), (1, Some("4"))]);

    let range = HistoryRange { limit: 1_000, after: Some(position(2)), before: None };
    let (offsets, requests) = read(range, &[(3..=4, true), (5..=7, false)]).await;
    assert_eq!(offsets, [3, 4, 5, 6, 7]);
    let asked: Vec<_> =
        requests.iter().map(|request| (request.limit, request.after.clone().unwrap())).collect();
    assert_eq!(asked, [(1_000, position(2)), (998, position(4))]);
}

#[tokio::test]
async fn each_frame_tells_on_what_it_came() {
    let mut node = Node::start().await;
    let (mut connection, peer) = pair(&mut node, TransportKind::WebTransport).await;
    peer.send(publication("chat:1", 1));
    peer.send_on_stream("chat:1", publication("chat:1", 2));
    peer.send_on_stream("chat:2", publication("chat:2", 1));
    peer.send_datagram(publication("chat:1", 3));
    let mut via = Vec::new();
    for _ in 0..4 {
        via.push(timeout(PATIENCE, connection.receiver.receive()).await.unwrap().unwrap().via);
    }
    let streams: std::collections::HashSet<Via> =
        via.iter().copied().filter(|via| matches!(via, Via::Stream(_))).collect();
    assert_eq!(streams.len(), 2);
    assert!(via.contains(&Via::Control) && via.contains(&Via::Datagram));
}

#[tokio::test]
async fn raw_bytes_reach_the_control_stream_as_they_are() {
    let mut node = Node::start().await;
    let (mut connection, mut peer) = pair(&mut node, TransportKind::WebTransport).await;
    let Sender::WebTransport(sender) = &mut connection.sender else { panic!("{connection:?}") };
    let unsubscribe = ClientFrame::Unsubscribe(frame::Unsubscribe {
        id: RequestId::new(1).unwrap(),
        channel: channel("chat:1"),
    });
    let bytes = Encoding::MessagePack.encode(&unsubscribe).unwrap().prefixed();
    let (first, second) = bytes.split_at(3);
    sender.send_bytes(first).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    sender.send_bytes(second).await.unwrap();
    assert_eq!(peer.next().await, Some(unsubscribe));
    assert!(sender.connection().open_bi().await.unwrap().await.is_ok());
}

#[tokio::test]
async fn a_url_that_allows_only_websocket_is_not_dialed_with_webtransport() {
    let node = Node::start().await;
    let dialer = Dialer::new(DialOptions::default()).unwrap();
    let url = format!("ws://{}", node.plain).parse().unwrap();
    let refused = dialer.dial(&url, TransportKind::WebTransport).await;
    assert!(matches!(refused, Err(DialError::NotAllowed { .. })));
}
