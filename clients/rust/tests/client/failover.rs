//! A node that is gone, silent or unwilling: the client is served by another one, quickly and by itself.

use crate::{node::*, over_both_transports};
use skywave_client::{Backoff, Client, ClientOptions, TokenSource, TransportChoice, TransportKind};
use skywave_protocol::{ClientFrame, CloseCode, ErrorCode, ServerFrame, Text, frame};
use skywave_testing::{Port, Relay};
use std::{
    net::{TcpListener, UdpSocket},
    time::{Duration, Instant},
};

/// A host that takes what comes on either transport and never says a word.
struct Silent {
    _tcp: TcpListener,
    udp: UdpSocket,
}

impl Silent {
    fn start() -> Self {
        // Its own until it is bound.
        let port = Port::free();
        let here = ("127.0.0.1", port.number());
        Self { _tcp: TcpListener::bind(here).unwrap(), udp: UdpSocket::bind(here).unwrap() }
    }

    fn url(&self) -> String {
        format!("https://{}", self.udp.local_addr().unwrap())
    }
}

/// Options that come back late wherever there is a wait.
fn patient(options: ClientOptions) -> ClientOptions {
    let backoff = Backoff { first: Duration::from_secs(600), max: Duration::from_secs(600) };
    ClientOptions { backoff, ..options }
}

fn region(name: &str, url: String) -> frame::Region {
    frame::Region { name: Text::new(name).unwrap(), url: url.into() }
}

/// Accepts and tells of other nodes.
async fn welcome_with(node: &mut Node, regions: Vec<frame::Region>) -> Peer {
    let mut peer = node.accept().await;
    let connect = peer.connect().await;
    peer.send(ServerFrame::Connected(frame::Connected { regions, ..connected_frame(&connect) }));
    peer
}

over_both_transports! {
    async fn silent_hosts_cost_less_than_a_second(kind: TransportKind) {
        let silent = [Silent::start(), Silent::start()];
        let mut node = Node::start().await;
        let mut options = patient(node.options(kind));
        options.urls = silent.iter().map(Silent::url).chain([node.url()]).collect();
        let begin = Instant::now();
        let (client, ..) = node.client(options).await;
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        assert_eq!(client.connected().unwrap().url.port(), node.address.port());
    }

    async fn a_node_that_is_full_sends_the_client_on_at_once(kind: TransportKind) {
        let (mut full, mut node) = (Node::start().await, Node::start().await);
        let mut options = patient(full.options(kind));
        options.urls.push(node.url());
        let begin = Instant::now();
        let refusing = async {
            let mut peer = full.accept().await;
            peer.connect().await;
            peer.disconnect(CloseCode::Overloaded);
            peer
        };
        let (client, _peer, _new) = tokio::join!(Client::connect(options), refusing, node.welcome());
        assert_eq!(client.unwrap().connected().unwrap().url.port(), node.address.port());
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    }

    async fn a_node_that_says_nothing_after_the_handshake_is_left(kind: TransportKind) {
        let (mut mute, mut node) = (Node::start().await, Node::start().await);
        let mut options = patient(mute.options(kind));
        options.urls.push(node.url());
        let begin = Instant::now();
        let (client, _mute, _peer) = tokio::join!(Client::connect(options), mute.accept(), node.welcome());
        client.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    }

    async fn a_client_whose_node_is_gone_goes_to_a_peer_that_it_was_told_of(kind: TransportKind) {
        let (mut node, mut peer) = (Node::start().await, Node::start().await);
        let silent = Silent::start();
        let regions = vec![region("us", silent.url()), region("eu", peer.url())];
        let (client, old) = tokio::join!(Client::connect(node.options(kind)), welcome_with(&mut node, regions));
        let _client = client.unwrap();
        let begin = Instant::now();
        drop((node, old));
        let (_new, connect) = peer.welcome().await;
        assert_eq!(connect.resume.as_deref(), Some("secret"));
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    }

    async fn a_client_that_went_elsewhere_stays_there(kind: TransportKind) {
        let (mut first, mut other) = (Node::start().await, Node::start().await);
        let mut options = first.options(kind);
        options.urls.push(other.url());
        let (client, old, _) = first.client(options).await;
        old.send(ServerFrame::Drain(frame::Drain { after_ms: 0, url: Some(other.url().into()) }));
        let (_new, _) = other.welcome().await;
        let moved = client.status().wait_for(|status| {
            status.connected().is_some_and(|connected| connected.connects == 2)
        }).await.is_ok();
        assert!(moved);
        client.cut().await.unwrap();
        let _again = other.welcome().await;
        first.no_further_connection(Duration::from_millis(300)).await;
    }

    async fn a_publish_refused_for_the_moment_is_sent_again_where_the_client_goes(kind: TransportKind) {
        let (mut node, mut other) = (Node::start().await, Node::start().await);
        let (client, mut old, _) = node.client(patient(node.options(kind))).await;
        let publishing = publishes(&client);
        let first = old.publish().await;
        old.send(ServerFrame::Error(frame::Error::new(Some(first.id), ErrorCode::Unavailable, "away")));
        old.send(ServerFrame::Drain(frame::Drain { after_ms: 0, url: Some(other.url().into()) }));
        let mut new = other.accept().await;
        let connect = new.connect().await;
        let connected = frame::Connected { node: "other".into(), ..connected_frame(&connect) };
        new.send(ServerFrame::Connected(connected));
        let again = new.publish().await;
        assert_eq!(first.key, again.key);
        new.send(published(&again, 1));
        assert_eq!(publishing.await.unwrap().unwrap().offset, 1);
    }
}

/// A client of `node` over a path, whose port is closed when it ends; it knows of `other` as well.
async fn client_over_a_path(node: &mut Node, other: &Node) -> (Client, Peer, Relay) {
    let path = Relay::tcp_and_udp(node.address.port()).await;
    let mut options = node.options(TransportKind::WebTransport);
    options.urls = vec![path.url("https"), other.url()];
    let (client, peer, _) = node.client(options).await;
    (client, peer, path)
}

#[tokio::test]
async fn a_node_whose_port_is_closed_is_left_though_it_said_no_word() {
    let (mut node, mut other) = (Node::start().await, Node::start().await);
    let (client, _peer, path) = client_over_a_path(&mut node, &other).await;
    drop(path);
    let begin = Instant::now();
    let publishing = tokio::spawn(async move { client.publish("chat:1", json("1")).await });
    let (mut peer, _) = other.welcome().await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let publish = peer.publish().await;
    peer.send(published(&publish, 1));
    publishing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_whose_port_closes_after_it_said_something_else_is_left_as_soon() {
    let (mut node, mut other) = (Node::start().await, Node::start().await);
    let (client, mut peer, path) = client_over_a_path(&mut node, &other).await;
    let publishing = tokio::spawn(async move { client.publish("chat:1", json("1")).await });
    peer.publish().await;
    // No answer to that.
    beaten_slowly(&mut peer).await;
    drop(path);
    let begin = Instant::now();
    let (mut peer, _) = other.welcome().await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let publish = peer.publish().await;
    peer.send(published(&publish, 1));
    publishing.await.unwrap().unwrap();
}

#[tokio::test]
async fn nodes_without_webtransport_are_found_among_silent_ones() {
    let silent = Silent::start();
    let mut node = Node::start_with(Udp::Silent).await;
    let mut options = patient(node.options(TransportKind::WebSocket));
    options.transport = TransportChoice::Auto;
    options.urls.insert(0, silent.url());
    let begin = Instant::now();
    let _client = node.client(options).await;
    assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
}

/// The machine sleeps: the clock by which timers go stands still, and the other one goes on.
async fn the_machine_sleeps() {
    tokio::time::pause();
    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1_200))).await.unwrap();
    tokio::time::resume();
}

/// Answers a `ping` that promises a word within ten minutes and a second.
async fn beaten_slowly(peer: &mut Peer) {
    peer.send(ServerFrame::Ping(frame::Ping { seq: 1, interval_ms: 600_000, timeout_ms: 1_000 }));
    assert_eq!(peer.next().await, Some(ClientFrame::Pong(frame::Pong { seq: 1 })));
}

over_both_transports! {
    async fn a_connection_that_the_machines_sleep_has_cost_is_given_up_soon_after(kind: TransportKind) {
        let mut node = Node::start().await;
        let (_client, mut gone, _) = node.client(node.options(kind)).await;
        beaten_slowly(&mut gone).await;
        the_machine_sleeps().await;
        let (_peer, connect) = node.welcome().await;
        assert!(connect.resume.is_some());
    }

    async fn a_connection_that_survived_the_machines_sleep_is_kept(kind: TransportKind) {
        let mut node = Node::start().await;
        let (client, mut peer, _) = node.client(node.options(kind)).await;
        beaten_slowly(&mut peer).await;
        the_machine_sleeps().await;
        // Whatever happens, it notices.
        client.network(Default::default()).await.unwrap();
        let asked = peer.unsubscribe().await;
        peer.send(refusal(asked.id, ErrorCode::NotSubscribed));
        node.no_further_connection(Duration::from_millis(1_500)).await;
    }

    async fn a_node_that_owes_an_answer_and_falls_silent_is_left_within_seconds(kind: TransportKind) {
        let mut node = Node::start().await;
        let (client, mut silent, _) = node.client(node.options(kind)).await;
        beaten_slowly(&mut silent).await;
        let begin = Instant::now();
        let publishing = tokio::spawn(async move { client.publish("chat:1", json("1")).await });
        let first = silent.publish().await;
        let (mut peer, connect) = node.welcome().await;
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        assert!(connect.resume.is_some());
        let again = peer.publish().await;
        assert_eq!(again.key, first.key);
        peer.send(published(&again, 1));
        publishing.await.unwrap().unwrap();
    }

    async fn a_node_that_falls_silent_long_before_it_is_to_be_left_is_left_at_once(kind: TransportKind) {
        let (mut node, mut other) = (Node::start().await, Node::start().await);
        let (client, mut silent, _) = node.client(node.options(kind)).await;
        // Half an hour at most, at random.
        silent.send(ServerFrame::Drain(frame::Drain { after_ms: 3_600_000, url: Some(other.url().into()) }));
        beaten_slowly(&mut silent).await;
        let publishing = publishes(&client);
        let first = silent.publish().await;
        silent.unsubscribe().await;
        let mut peer = other.accept().await;
        let connect = peer.connect().await;
        assert!(client.connected().is_some(), "the old connection may live");
        peer.send(connected(&connect));
        let again = peer.publish().await;
        assert_eq!(again.key, first.key);
        peer.send(published(&again, 1));
        publishing.await.unwrap().unwrap();
    }

    async fn a_node_that_is_slow_to_answer_is_kept_where_it_says_that_it_is_there(kind: TransportKind) {
        let mut node = Node::start().await;
        let (client, mut peer, _) = node.client(node.options(kind)).await;
        beaten_slowly(&mut peer).await;
        let publishing = tokio::spawn(async move { client.publish("chat:1", json("1")).await });
        let publish = peer.publish().await;
        for _ in 0..3 {
            let asked = peer.unsubscribe().await;
            peer.send(refusal(asked.id, ErrorCode::NotSubscribed));
        }
        peer.send(published(&publish, 1));
        publishing.await.unwrap().unwrap();
        node.no_further_connection(Duration::from_millis(100)).await;
    }
}

/// A client of `node` that publishes and is answered nothing, until it comes again: both connections as the node sees them.
async fn doubted(node: &mut Node, options: ClientOptions) -> (Client, Peer, Peer) {
    let (client, mut silent, _) = node.client(options).await;
    beaten_slowly(&mut silent).await;
    let publishing = client.clone();
    tokio::spawn(async move { publishing.publish("chat:1", json("1")).await });
    silent.publish().await;
    silent.unsubscribe().await;
    let second = node.accept().await;
    (client, silent, second)
}

over_both_transports! {
    async fn a_node_that_is_overloaded_and_silent_is_not_asked_again_beside_the_old_connection(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (_client, _silent, second) = doubted(&mut node, options).await;
        second.refuse(CloseCode::Overloaded).await;
        // A moment before the silent one counts as dead.
        node.no_further_connection(Duration::from_millis(700)).await;
    }

    async fn a_node_that_takes_no_token_is_not_asked_again_beside_the_old_connection(kind: TransportKind) {
        let mut node = Node::start().await;
        let mut options = node.options(kind);
        options.token = TokenSource::callback(|| async { Ok("expired".to_owned()) });
        let (_client, _silent, second) = doubted(&mut node, options).await;
        second.refuse(CloseCode::TokenExpired).await;
        node.no_further_connection(Duration::from_millis(700)).await;
    }

    async fn a_node_that_falls_silent_again_and_again_is_doubted_once_in_half_a_minute(kind: TransportKind) {
        let mut node = Node::start().await;
        let options = node.options(kind);
        let (client, mut slow, second) = doubted(&mut node, options).await;
        second.refuse(CloseCode::Overloaded).await;
        slow.send(ServerFrame::Ping(frame::Ping { seq: 2, interval_ms: 600_000, timeout_ms: 1_000 }));
        assert_eq!(slow.next().await, Some(ClientFrame::Pong(frame::Pong { seq: 2 })));
        // Not even until it would count as dead.
        node.no_further_connection(Duration::from_millis(4_000)).await;
        slow.send(ServerFrame::Ping(frame::Ping { seq: 3, interval_ms: 600_000, timeout_ms: 1_000 }));
        assert_eq!(slow.next().await, Some(ClientFrame::Pong(frame::Pong { seq: 3 })));
        assert_eq!(client.connected().unwrap().connects, 1);
    }

    async fn a_token_that_has_expired_when_a_connection_breaks_is_no_reason_to_leave_a_node(kind: TransportKind) {
        let (mut node, mut other) = (Node::start().await, Node::start().await);
        let mut options = node.options(kind);
        options.urls.push(other.url());
        options.token = TokenSource::callback(|| async { Ok("kept somewhere".to_owned()) });
        let (client, peer, _) = node.client(options).await;
        drop(peer);
        node.accept().await.refuse(CloseCode::TokenExpired).await;
        let (_peer, connect) = node.welcome().await;
        assert!(connect.resume.is_some());
        connected_again(&client, 2).await;
        other.no_further_connection(Duration::from_millis(100)).await;
    }

    async fn those_that_are_left_are_asked_where_one_refuses(kind: TransportKind) {
        let (mut node, mut other) = (Node::start().await, Node::start().await);
        let mut options = node.options(kind);
        options.urls.push(other.url());
        let (client, mut silent, _) = node.client(options).await;
        beaten_slowly(&mut silent).await;
        let _publishing = publishes(&client);
        silent.publish().await;
        silent.unsubscribe().await;
        let second = other.accept().await;
        let (_, (_new, connect)) = tokio::join!(second.refuse(CloseCode::Shutdown), node.welcome());
        assert!(connect.resume.is_some());
        let mut status = client.status();
        status.wait_for(|status| status.connected().is_some_and(|now| now.connects == 2)).await.unwrap();
    }
}
