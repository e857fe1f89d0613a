//! Tokens that expire, are refused or replaced: the session goes on with a good one, where there is one.

use crate::{node::*, over_both_transports};
use skywave_client::{Client, ClientOptions, RequestError, Status, TokenError, TokenSource, TransportKind};
use skywave_protocol::{ClientFrame, CloseCode, ErrorCode, ServerFrame, frame};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

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
