//! Opening a session: the choice of transport, certificates, tokens, refusals.

use crate::{
    node::{self, *},
    over_both_transports,
};
use skywave_client::{
    CertificateCheck, Client, ConnectError, Encoding, TokenError, TokenSource, TransportChoice, TransportKind,
};
use skywave_protocol::{ClientFrame, CloseCode, ServerFrame, frame};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpStream};

async fn welcome_as(node: &mut Node, user: &str) -> Peer {
    let mut peer = node.accept().await;
    let connect = peer.connect().await;
    let connected = frame::Connected { user: Some(user.into()), ..connected_frame(&connect) };
    peer.send(ServerFrame::Connected(connected));
    peer
}

over_both_transports! {
    async fn a_session_opens_in_either_encoding(kind: TransportKind) {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let mut node = Node::start().await;
            let mut options = node.options(kind);
            options.encoding = encoding;
            let (client, mut peer, _) = node.client(options).await;
            assert_eq!(peer.kind, kind);
            let status = client.connected().unwrap();
            assert_eq!((status.transport, &*status.node, status.connects), (kind, "fake", 1));
            let (published, ()) = tokio::join!(client.publish("chat:1", json("{\"a\":1}")), async {
                let publish = peer.publish().await;
                assert_eq!(publish.data, json("{\"a\":1}"));
                peer.send(node::published(&publish, 7));
            });
            assert_eq!(published.unwrap().offset, 7);
            client.close().await;
            peer.ended().await;
        }
    }

    async fn a_certificate_is_accepted_by_its_hash_and_no_other(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.certificate = CertificateCheck::Sha256(vec![[7; 32], node.sha256]);
        let (client, _peer, _) = node.client(options.clone()).await;
        client.close().await;
        options.certificate = CertificateCheck::Sha256(vec![[7; 32]]);
        assert!(matches!(Client::connect(options.clone()).await, Err(ConnectError::Dial(_))));
        options.certificate = CertificateCheck::WebPki;
        assert!(matches!(Client::connect(options).await, Err(ConnectError::Dial(_))));
    }

    async fn a_change_of_the_network_reaches_a_node_that_is_about_to_answer(kind: TransportKind) {
        let mut node = Node::start().await;
        let (client, _gone, _) = node.client(node.options(kind)).await;
        client.cut().await.unwrap();
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        let hidden = frame::Network { background: Some(true), ..frame::Network::default() };
        client.network(hidden.clone()).await.unwrap();
        // Commands are taken in their order: behind this one the change is known.
        assert!(client.switch(kind).await.is_err());
        peer.send(connected(&connect));
        assert_eq!(peer.frame().await, ClientFrame::Network(hidden));
    }

    async fn a_refusal_is_told_with_its_code(kind: TransportKind) {
        let mut node = Node::start().await;
        let (refused, ()) = tokio::join!(Client::connect(node.options(kind)), async {
            let mut peer = node.accept().await;
            peer.connect().await;
            peer.disconnect(CloseCode::Unauthenticated);
            peer.ended().await;
        });
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Some(3503));
        assert!(!refused.is_transient());
    }

    async fn the_transports_own_close_code_counts_without_a_disconnect_frame(kind: TransportKind) {
        let mut node = Node::start().await;
        let (refused, ()) = tokio::join!(Client::connect(node.options(kind)), async {
            let mut peer = node.accept().await;
            peer.connect().await;
            peer.close(CloseCode::TooManySessions.code());
            peer.ended().await;
        });
        assert_eq!(refused.unwrap_err().code(), Some(3505));
    }

    async fn a_session_that_could_not_be_resumed_is_named(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, peer, _) = node.client(options).await;
        assert_eq!(client.connected().unwrap().former, None);
        drop(peer);
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        let session = frame::SessionId::new("s2").unwrap();
        let connected = frame::Connected { session, resumed: false, ..connected_frame(&connect) };
        peer.send(ServerFrame::Connected(connected));
        connected_again(&client, 2).await;
        assert_eq!(client.connected().unwrap().former.as_deref(), Some("s1"));
    }

    async fn another_user_gets_a_session_of_their_own(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        let users = Arc::new(AtomicU32::new(0));
        options.token = TokenSource::callback(move || {
            let first = users.fetch_add(1, Ordering::Relaxed) == 0;
            async move { Ok(if first { "alice" } else { "bob" }.to_owned()) }
        });
        let (client, mut peer) = tokio::join!(Client::connect(options), welcome_as(&mut node, "alice"));
        let client = client.unwrap();
        let publishing = tokio::spawn({
            let client = client.clone();
            async move { client.publish("chat:1", json("\"of alice\"")).await }
        });
        peer.publish().await;
        drop(peer);
        let refused = node.accept().await.refuse(CloseCode::Unauthenticated).await;
        assert_eq!((refused.token.as_deref(), refused.resume.as_deref()), (Some("bob"), Some("secret")));
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        assert_eq!((connect.token.as_deref(), connect.resume.as_deref()), (Some("bob"), None));
        peer.send(ServerFrame::Connected(frame::Connected { user: Some("bob".into()), ..connected_frame(&connect) }));
        // What is not answered yet is nothing that bob has said.
        assert_eq!(publishing.await.unwrap().unwrap_err().reason, "another_user");
        let (published, ()) = tokio::join!(client.publish("chat:1", json("\"of bob\"")), async {
            let publish = peer.publish().await;
            assert_eq!(publish.data, json("\"of bob\""));
            peer.send(node::published(&publish, 1));
        });
        published.unwrap();
    }
}

#[tokio::test]
async fn webtransport_is_preferred_where_it_works() {
    let mut node = Node::start().await;
    let mut options = node.options(TransportKind::WebTransport);
    options.transport = TransportChoice::Auto;
    let (client, ..) = node.client(options).await;
    assert_eq!(client.connected().unwrap().transport, TransportKind::WebTransport);
    assert!(client.rtt().unwrap() < Duration::from_secs(1));
}

#[tokio::test]
async fn blocked_udp_costs_less_than_a_second() {
    let mut node = Node::start_with(Udp::Silent).await;
    let mut options = node.options(TransportKind::WebSocket);
    options.transport = TransportChoice::Auto;
    let begin = Instant::now();
    let (client, ..) = node.client(options).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(client.connected().unwrap().transport, TransportKind::WebSocket);
}

#[tokio::test]
async fn after_blocked_udp_the_next_session_begins_with_websocket() {
    let mut node = Node::start_with(Udp::Silent).await;
    let mut options = node.options(TransportKind::WebSocket);
    options.transport = TransportChoice::Auto;
    options.head_start = Duration::from_millis(800);
    let (client, ..) = node.client(options).await;
    let begin = Instant::now();
    client.cut().await.unwrap();
    node.welcome().await;
    assert!(begin.elapsed() < Duration::from_millis(600), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_closed_udp_port_is_noticed_at_once() {
    let mut options = Node::start().await.options(TransportKind::WebTransport);
    options.urls = vec![format!("https://{}", closed_udp_port().await)];
    let begin = Instant::now();
    assert!(matches!(Client::connect(options).await, Err(ConnectError::Dial(_))));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn the_name_localhost_reaches_a_node_that_listens_on_ipv4_only() {
    for kind in [TransportKind::WebTransport, TransportKind::WebSocket] {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.urls = vec![format!("https://localhost:{}", node.address.port())];
        let (client, ..) = node.client(options).await;
        client.close().await;
    }
}

#[tokio::test]
async fn websocket_runs_over_http2_with_and_without_tls() {
    for scheme in ["https", "ws"] {
        let mut node = Node::start().await;
        let mut options = node.options(TransportKind::WebSocket);
        let address = if scheme == "ws" { node.plain } else { node.address };
        options.urls = vec![format!("{scheme}://{address}")];
        options.http2 = true;
        let (client, mut peer, _) = node.client(options).await;
        let (published, ()) = tokio::join!(client.publish("chat:1", json("1")), async {
            let publish = peer.publish().await;
            peer.send(node::published(&publish, 1));
        });
        published.unwrap();
        client.close().await;
        peer.ended().await;
    }
}

#[tokio::test]
async fn plain_websocket_works_for_a_url_without_tls() {
    let mut node = Node::start().await;
    let mut options = node.options(TransportKind::WebSocket);
    options.transport = TransportChoice::Auto;
    options.urls = vec![format!("http://{}", node.plain)];
    options.certificate = CertificateCheck::WebPki;
    let (client, ..) = node.client(options).await;
    assert_eq!(client.connected().unwrap().transport, TransportKind::WebSocket);
}

/// An address that leads to `to`, from where nothing comes for so long.
async fn behind_a_slow_door(to: SocketAddr, wait: Duration) -> SocketAddr {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = door.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = door.accept().await.unwrap();
        tokio::time::sleep(wait).await;
        let mut node = TcpStream::connect(to).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
    });
    address
}

#[tokio::test]
async fn a_node_has_time_to_answer_connect_however_long_the_handshake_took() {
    let mut node = Node::start().await;
    let door = behind_a_slow_door(node.plain, Duration::from_millis(700)).await;
    let mut options = node.options(TransportKind::WebSocket);
    options.urls = vec![format!("http://{door}")];
    options.certificate = CertificateCheck::WebPki;
    options.connect_timeout = Duration::from_secs(1);
    let (client, _peer) = tokio::join!(Client::connect(options), async {
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        peer.send(connected(&connect));
        peer
    });
    assert_eq!(client.unwrap().connected().unwrap().connects, 1);
}

#[tokio::test]
async fn unchecked_certificates_are_refused_for_other_hosts() {
    let mut options = skywave_client::ClientOptions::new("https://node.example");
    options.certificate = CertificateCheck::Insecure;
    assert!(matches!(Client::connect(options).await, Err(ConnectError::Tls(_))));
}

#[tokio::test]
async fn the_next_url_is_tried_when_the_first_one_fails() {
    let mut node = Node::start().await;
    let mut options = node.options(TransportKind::WebSocket);
    options.urls.insert(0, format!("https://{}", closed_udp_port().await));
    let (client, ..) = node.client(options).await;
    assert_eq!(client.connected().unwrap().url.port(), node.address.port());
}

#[tokio::test]
async fn a_denied_token_stops_and_is_told() {
    let node = Node::start().await;
    let mut options = node.options(TransportKind::WebSocket);
    options.token = TokenSource::callback(|| async { Err(TokenError::Denied("signed out".to_owned())) });
    assert!(matches!(Client::connect(options).await, Err(ConnectError::Token(TokenError::Denied(_)))));
}

#[tokio::test]
async fn secrets_stay_out_of_debug_output() {
    let mut options = skywave_client::ClientOptions::new("https://localhost?token=hunter2");
    options.token = TokenSource::fixed("hunter2");
    options.headers = vec![("authorization".to_owned(), "hunter2".to_owned())];
    let url: skywave_client::url::NodeUrl = options.urls[0].parse().unwrap();
    assert!(!format!("{options:?} {url:?} {url}").contains("hunter2"));
}

#[tokio::test]
async fn options_may_leave_times_and_queues_without_a_bound() {
    let mut node = Node::start().await;
    let mut options = node.options(TransportKind::WebSocket);
    options.connect_timeout = Duration::MAX;
    options.request_timeout = Duration::MAX;
    options.head_start = Duration::MAX;
    options.subscription_queue = usize::MAX;
    options.publish_queue = usize::MAX;
    let (_client, peer, mut room) = subscribed_client(&mut node, options, 0).await;
    peer.send(publication("chat:1", 1));
    assert_eq!(offsets(&mut room, 1).await, [1]);
}
