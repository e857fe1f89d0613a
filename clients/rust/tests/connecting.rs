//! Opening a session: the choice of transport, certificates, tokens, refusals.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod node;

use node::*;
use skywave_client::{
    CertificateCheck, Client, ClientOptions, ConnectError, Encoding, RequestError, Status, TokenError,
    TokenSource, TransportChoice, TransportKind,
};
use skywave_protocol::{ClientFrame, CloseCode, ErrorCode, ServerFrame, frame};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

async fn welcome_as(node: &mut Node, user: &str) -> Peer {
    let mut peer = node.accept().await;
    let connect = peer.connect().await;
    let connected = frame::Connected { user: Some(user.into()), ..connected_frame(&connect) };
    peer.send(ServerFrame::Connected(connected));
    peer
}

/// So many milliseconds from now, in milliseconds since 1970.
fn in_ms(ms: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 + ms
}

/// A client whose token ends in so many milliseconds.
async fn client_until(node: &mut Node, options: ClientOptions, ms: u64) -> (Client, Peer) {
    let (client, peer) = tokio::join!(Client::connect(options), async {
        let mut peer = node.accept().await;
        let connect = peer.connect().await;
        let connected = frame::Connected { expires_at_ms: Some(in_ms(ms)), ..connected_frame(&connect) };
        peer.send(ServerFrame::Connected(connected));
        peer
    });
    (client.unwrap(), peer)
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

    async fn an_expired_token_is_replaced_at_once(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        let count = Arc::new(AtomicU32::new(0));
        options.token = TokenSource::callback(move || {
            let count = count.clone();
            async move { Ok(format!("token {}", count.fetch_add(1, Ordering::Relaxed))) }
        });
        let (client, ()) = tokio::join!(Client::connect(options), async {
            let mut peer = node.accept().await;
            assert_eq!(peer.connect().await.token.as_deref(), Some("token 0"));
            peer.disconnect(CloseCode::TokenExpired);
            let (peer, connect) = node.welcome().await;
            assert_eq!(connect.token.as_deref(), Some("token 1"));
            peer.disconnect(CloseCode::TokenExpired);
            let (peer, connect) = node.welcome().await;
            assert_eq!(connect.token.as_deref(), Some("token 2"));
            std::mem::forget(peer);
        });
        client.unwrap();
    }

    async fn a_fixed_token_that_expired_stops_the_client(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.token = TokenSource::fixed("old");
        let (client, peer, connect) = node.client(options).await;
        assert_eq!(connect.token.as_deref(), Some("old"));
        peer.disconnect(CloseCode::TokenExpired);
        let mut status = client.status();
        let closed = status.wait_for(|status| matches!(status, skywave_client::Status::Closed { code: Some(3005), .. }));
        tokio::time::timeout(PATIENCE, closed).await.unwrap().unwrap();
        node.no_further_connection(Duration::from_millis(300)).await;
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

    async fn a_token_that_no_session_is_given_for_stops_the_client(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, peer, _) = node.client(options).await;
        drop(peer);
        for secret in [Some("secret"), None] {
            let refused = node.accept().await.refuse(CloseCode::Unauthenticated).await;
            assert_eq!(refused.resume.as_deref(), secret);
        }
        let mut status = client.status();
        let closed = status.wait_for(|status| matches!(status, Status::Closed { code: Some(3503), .. }));
        tokio::time::timeout(PATIENCE, closed).await.unwrap().unwrap();
    }

    async fn a_token_that_the_node_refuses_does_not_replace_the_one_before(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.token = TokenSource::fixed("alice");
        let (client, mut peer, _) = node.client(options).await;
        for (connects, token, code) in [(2, "bob", Some(ErrorCode::Forbidden)), (3, "alice 2", None)] {
            let (refreshed, ()) = tokio::join!(client.refresh(token), async {
                let ClientFrame::Refresh(refresh) = peer.frame().await else { panic!("no refresh") };
                peer.send(match code {
                    Some(code) => refusal(refresh.id, code),
                    None => ServerFrame::Refreshed(frame::Refreshed { id: refresh.id, expires_at_ms: 1 }),
                });
            });
            assert_eq!(refreshed.is_err(), code.is_some());
            let expiry = client.connected().unwrap().expires_at_ms;
            assert_eq!(expiry, refreshed.ok(), "of the token that the node has taken");
            client.cut().await.unwrap();
            let connect;
            (peer, connect) = node.welcome().await;
            let expected = if code.is_some() { "alice" } else { token };
            assert_eq!(connect.token.as_deref(), Some(expected));
            connected_again(&client, connects).await;
        }
    }

    async fn of_several_tokens_that_are_brought_at_once_none_that_the_node_refuses_is_kept(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.token = TokenSource::fixed("alice");
        let (client, mut peer, _) = node.client(options).await;
        for (connects, is_first_taken, expected) in [(2, false, "alice"), (3, true, "alice 2")] {
            let (first, second, ()) = tokio::join!(client.refresh("alice 2"), client.refresh("bob"), async {
                let ClientFrame::Refresh(first) = peer.frame().await else { panic!("no refresh") };
                let ClientFrame::Refresh(second) = peer.frame().await else { panic!("no refresh") };
                peer.send(if is_first_taken {
                    ServerFrame::Refreshed(frame::Refreshed { id: first.id, expires_at_ms: 1 })
                } else {
                    refusal(first.id, ErrorCode::TokenExpired)
                });
                peer.send(refusal(second.id, ErrorCode::Forbidden));
            });
            let code = |refreshed: Result<u64, RequestError>| refreshed.err().map(|error| error.code);
            let refused = Some(ErrorCode::TokenExpired.code()).filter(|_| !is_first_taken);
            assert_eq!([code(first), code(second)], [refused, Some(ErrorCode::Forbidden.code())]);
            client.cut().await.unwrap();
            let connect;
            (peer, connect) = node.welcome().await;
            assert_eq!(connect.token.as_deref(), Some(expected));
            connected_again(&client, connects).await;
        }
    }

    async fn a_token_that_is_brought_while_the_one_before_is_refused_as_expired_takes_its_place(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.token = TokenSource::fixed("old");
        let (client, peer, _) = node.client(options).await;
        drop(peer);
        let mut peer = node.accept().await;
        assert_eq!(peer.connect().await.token.as_deref(), Some("old"));
        assert!(client.refresh("new").await.is_err_and(|error| error.transient));
        peer.disconnect(CloseCode::TokenExpired);
        let (_peer, connect) = node.welcome().await;
        assert_eq!(connect.token.as_deref(), Some("new"));
        connected_again(&client, 2).await;
    }

    async fn of_tokens_that_are_brought_without_a_connection_none_that_a_node_refuses_is_kept(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.token = TokenSource::fixed("good");
        let (client, mut peer, _) = node.client(options).await;
        // Where the secret may be what does not suit it, it is tried without one as well.
        for (connects, code, attempts) in [(2, CloseCode::Unauthenticated, 2), (3, CloseCode::TokenExpired, 1)] {
            drop(peer);
            peer = node.accept().await;
            assert_eq!(peer.connect().await.token.as_deref(), Some("good"));
            assert!(client.refresh("bad").await.is_err_and(|error| error.transient));
            drop(peer);
            for _ in 0..attempts {
                let mut refusing = node.accept().await;
                assert_eq!(refusing.connect().await.token.as_deref(), Some("bad"));
                refusing.disconnect(code);
            }
            let connect;
            (peer, connect) = node.welcome().await;
            assert_eq!(connect.token.as_deref(), Some("good"));
            connected_again(&client, connects).await;
        }
        // There is no other one to go back to.
        peer.disconnect(CloseCode::TokenExpired);
        let mut status = client.status();
        let ended = status.wait_for(|status| matches!(status, Status::Closed { .. })).await.unwrap();
        assert!(matches!(&*ended, Status::Closed { code: Some(code), .. } if *code == CloseCode::TokenExpired.code()));
    }

    async fn a_token_that_is_brought_during_a_move_is_brought_to_the_new_connection_as_well(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.token = TokenSource::fixed("old");
        let (client, mut former, _) = node.client(options).await;
        let (moved, refreshed, mut peer) = tokio::join!(client.switch(kind), client.refresh("new"), async {
            let mut peer = node.accept().await;
            let connect = peer.connect().await;
            assert_eq!(connect.token.as_deref(), Some("old"));
            let ClientFrame::Refresh(refresh) = former.frame().await else { panic!("no refresh") };
            former.send(ServerFrame::Refreshed(frame::Refreshed { id: refresh.id, expires_at_ms: 1 }));
            peer.send(connected(&connect));
            peer
        });
        moved.unwrap();
        refreshed.unwrap();
        let ClientFrame::Refresh(refresh) = peer.frame().await else { panic!("no refresh") };
        assert_eq!(&*refresh.token, "new");
        // The node has not taken it yet.
        peer.disconnect(CloseCode::TokenExpired);
        let (_peer, connect) = node.welcome().await;
        assert_eq!(connect.token.as_deref(), Some("new"));
    }

    async fn a_token_that_cannot_be_had_ahead_of_expiry_is_asked_for_again(kind: TransportKind) {
        for hangs in [false, true] {
            let mut node = Node::start().await;
            let mut options = node.options(kind);
            options.connect_timeout = Duration::from_millis(300);
            let asked = Arc::new(AtomicU32::new(0));
            options.token = TokenSource::callback(move || {
                let number = asked.fetch_add(1, Ordering::Relaxed);
                async move {
                    match number {
                        1 if hangs => std::future::pending().await,
                        1 => Err(TokenError::Unavailable("signing takes a break".to_owned())),
                        number => Ok(format!("token {number}")),
                    }
                }
            });
            let (_client, mut peer) = client_until(&mut node, options, 2_000).await;
            let ClientFrame::Refresh(refresh) = peer.frame().await else { panic!("no refresh") };
            assert_eq!(&*refresh.token, "token 2");
        }
    }

    async fn a_token_is_refreshed_ahead_of_its_expiry_and_less_and_less_often_if_that_seems_soon(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.token = TokenSource::callback(|| async { Ok("newer".to_owned()) });
        let (_client, mut peer) = client_until(&mut node, options, 400).await;
        let mut before = Instant::now();
        let mut waits = Vec::new();
        // All seem to end soon: the clocks may differ.
        for _ in 0..2 {
            let ClientFrame::Refresh(refresh) = peer.frame().await else { panic!("no refresh") };
            assert_eq!(&*refresh.token, "newer");
            waits.push(before.elapsed());
            before = Instant::now();
            let refreshed = frame::Refreshed { id: refresh.id, expires_at_ms: in_ms(100) };
            peer.send(ServerFrame::Refreshed(refreshed));
        }
        assert!(waits[1] > waits[0] + Duration::from_millis(200), "{waits:?}");
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
