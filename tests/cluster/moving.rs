//! Sessions that are moved to other nodes while they are in use.

use crate::{
    process::{self, drain},
    session::Session,
    world::{Node, client},
};
use futures_util::future::join_all;
use serde_json::json;
use skywave_client::{ChannelEvent, Client, Json, Status, SubscribeOptions, Subscription, TransportChoice};
use skywave_protocol::CloseCode;
use skywave_testing::{RedisServer, eventually, soon};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

const BOTH: [TransportChoice; 2] = [TransportChoice::WebSocket, TransportChoice::WebTransport];
const ROOMS: usize = 6;

fn room(number: usize) -> String {
    format!("chat:{}", number % ROOMS)
}

/// A client in use: it publishes and receives in one room.
struct Talker {
    client: Client,
    /// Gives the number of publications acknowledged.
    publishing: JoinHandle<u64>,
    /// Gives how many publications were received when no more come, after it is done.
    reading: JoinHandle<u64>,
    /// Fails if the session is ever cut.
    watching: JoinHandle<()>,
}

/// Publishes until it is told to stop.
async fn publish(client: Client, room: String, done: Arc<AtomicBool>) -> u64 {
    let mut count = 0;
    while !done.load(Ordering::Acquire) {
        soon(client.publish(&room, Json::of(&count).unwrap())).await.unwrap();
        count += 1;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    count
}

/// Reads up to the publication whose offset `last` tells in the end, and checks that none is missing, twice or early.
async fn read(mut subscription: Subscription, mut last: tokio::sync::watch::Receiver<Option<u64>>) -> u64 {
    let mut offset = 0;
    loop {
        if *last.borrow() == Some(offset) {
            return offset;
        }
        tokio::select! {
            event = subscription.next() => match event.unwrap() {
                ChannelEvent::Publication(publication) => {
                    assert_eq!(publication.offset, offset + 1);
                    offset += 1;
                }
                ChannelEvent::Subscribed(subscribed) => assert_ne!(subscribed.recovered, Some(false)),
                other => panic!("{other:?}"),
            },
            changed = last.changed() => changed.unwrap(),
        }
    }
}

async fn watch(client: Client, done: Arc<AtomicBool>) {
    let mut status = client.status();
    while !done.load(Ordering::Acquire) {
        match &*status.borrow_and_update() {
            // The old node may say that the new one has the session before the new one says so.
            Status::Disconnected { code, .. } if *code == Some(CloseCode::Replaced.code()) => {}
            cut @ (Status::Disconnected { .. } | Status::Closed { .. }) => panic!("{cut:?}"),
            Status::Connecting { .. } | Status::Connected(_) => {}
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn node_of(client: &Client) -> Option<String> {
    client.status().borrow().connected().map(|connected| connected.node.to_string())
}

/// Sixty clients in use at `a`, which `moving` brings to `last`: nothing is lost, repeated or reordered.
async fn sixty_clients_in_use_move(a: &Node, last: &Node, moving: impl AsyncFnOnce()) {
    let done = Arc::new(AtomicBool::new(false));
    let ends: Vec<_> = (0..ROOMS).map(|_| tokio::sync::watch::Sender::new(None)).collect();
    let subscribed = join_all((0..60).map(async |number| {
        let client = client(&[a], None, BOTH[number % 2]).await;
        let subscription = soon(client.subscribe(&room(number), SubscribeOptions::default())).await.unwrap();
        (client, subscription)
    }))
    .await;
    let talkers = subscribed.into_iter().enumerate().map(|(number, (client, subscription))| Talker {
        publishing: tokio::spawn(publish(client.clone(), room(number), done.clone())),
        reading: tokio::spawn(read(subscription, ends[number % ROOMS].subscribe())),
        watching: tokio::spawn(watch(client.clone(), done.clone())),
        client,
    });
    let talkers: Vec<_> = talkers.collect();

    moving().await;
    eventually("all have moved", async || a.sessions() == 0 && last.sessions() == 60).await;
    // Long enough at the other node for a gap to show.
    tokio::time::sleep(Duration::from_millis(200)).await;

    done.store(true, Ordering::Release);
    let mut published = [0; ROOMS];
    let mut readings = Vec::new();
    for (number, talker) in talkers.into_iter().enumerate() {
        assert_eq!(node_of(&talker.client).as_deref(), Some(&*last.server.node().cluster.id));
        published[number % ROOMS] += soon(talker.publishing).await.unwrap();
        readings.push((number, talker.reading, talker.watching, talker.client));
    }
    for (end, count) in ends.iter().zip(published) {
        end.send_replace(Some(count));
    }
    for (number, reading, watching, client) in readings {
        assert_eq!(soon(reading).await.unwrap(), published[number % ROOMS]);
        soon(client.close()).await;
        soon(watching).await.unwrap();
    }
    assert!(published.iter().all(|count| *count > 50), "{published:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_clients_in_use_move_gradually_and_nothing_is_lost_repeated_or_reordered() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    a.meets(&["a", "b"]).await;
    sixty_clients_in_use_move(&a, &b, async || {
        assert_eq!(a.call("drain", json!({"sessions_per_second": 40})).await, json!({"sessions": 60}));
    })
    .await;
    assert_eq!(a.call("info", json!({})).await["moving"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_use_whose_next_node_drains_as_well_end_up_at_the_one_that_is_left() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    let c = Node::with(&redis, "c", &[("LIMITS__HANDSHAKES_PER_SECOND", "20")]).await;
    a.meets(&["a", "b", "c"]).await;
    sixty_clients_in_use_move(&a, &c, async || {
        a.call("drain", json!({"sessions_per_second": 60})).await;
        eventually("the first have moved", async || b.sessions() > 5).await;
        b.call("drain", json!({})).await;
    })
    .await;
    assert_eq!(b.sessions(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_sessions_moves_and_the_node_goes_on() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    a.meets(&["a", "b"]).await;
    let clients = join_all((0..10).map(async |_| client(&[&a], None, BOTH[0]).await)).await;
    assert_eq!(
        a.call("drain", json!({"sessions": 4, "sessions_per_second": 100})).await,
        json!({"sessions": 4})
    );
    eventually("four have moved", async || (a.sessions(), b.sessions()) == (6, 4)).await;
    assert_eq!(a.state_of("a").await, "ready");
    assert_eq!(Session::open(&a).await.connected["node"], "a");
    drop(clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_leave_spread_over_the_live_peers_and_go_where_they_are_told() {
    let redis = RedisServer::start().await;
    let (a, b, c) =
        tokio::join!(Node::start(&redis, "a"), Node::start(&redis, "b"), Node::start(&redis, "c"));
    a.meets(&["a", "b", "c"]).await;
    let mut sessions = join_all((0..30).map(|_| Session::open(&a))).await;
    assert_eq!(a.call("drain", json!({"sessions": 20})).await, json!({"sessions": 20}));
    assert_eq!(a.call("drain", json!({"sessions": 20, "url": c.url})).await, json!({"sessions": 10}));
    assert_eq!(a.call("info", json!({})).await["moving"], 10);
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for session in &mut sessions {
        let url = session.receive("drain").await["url"].as_str().unwrap().to_owned();
        *told.entry(url).or_default() += 1;
    }
    assert_eq!(told, BTreeMap::from([(b.url.clone(), 10), (c.url.clone(), 20)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_move_to_a_node_under_a_path_that_its_region_knows_or_an_operator_names() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::under("/realtime/", &redis, "b", &[]).await);
    a.meets(&["a", "b"]).await;
    for order in [json!({"sessions": 2}), json!({"sessions": 2, "url": b.url})] {
        let clients = join_all(BOTH.map(async |transport| client(&[&a], None, transport).await)).await;
        assert_eq!(a.call("drain", order).await, json!({"sessions": 2}));
        eventually("both have moved", async || {
            clients.iter().all(|client| node_of(client).as_deref() == Some("b"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_not_moved_where_there_is_no_other_node() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let mut session = Session::open(&a).await;
    let (status, answer) = a.post("drain", json!({"sessions": 1})).await;
    assert_eq!((status, &answer["error"]["reason"]), (409, &json!("not_available")));
    for wrong in [
        json!({"sessions": 0}),
        json!({"sessions_per_second": 0}),
        json!({"sessions": 1, "url": "http://b.example.com"}),
        json!({"sessions": 1, "exit": true}),
    ] {
        assert_eq!(a.post("drain", wrong.clone()).await.0, 400, "{wrong}");
    }
    session.is_served().await;
}

/// How many of the sessions are told to go to each address, next.
async fn told(sessions: &mut [Session]) -> BTreeMap<String, usize> {
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for session in sessions {
        let drain = session.receive("drain").await;
        *told.entry(drain["url"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_sends_no_more_to_another_than_it_has_places_for() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let b = Node::with(&redis, "b", &[("LIMITS__SESSIONS", "2")]).await;
    let c = Node::start(&redis, "c").await;
    a.meets(&["a", "b", "c"]).await;
    let mut sessions = join_all((0..20).map(|_| Session::open(&a))).await;
    a.call("drain", json!({})).await;
    assert_eq!(told(&mut sessions).await, BTreeMap::from([(b.url.clone(), 2), (c.url.clone(), 18)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_place_to_go_or_was_refused_there_is_told_a_node_that_joins_while_its_own_drains() {
    let redis = RedisServer::start().await;
    let a = Node::with(&redis, "a", &[("DRAIN__DEADLINE", "1s")]).await;
    let b = Node::with(&redis, "b", &[("LIMITS__SESSIONS", "3")]).await;
    a.meets(&["a", "b"]).await;
    let mut sessions = join_all((0..8).map(|_| Session::open(&a))).await;
    a.call("drain", json!({})).await;
    assert_eq!(told(&mut sessions).await, BTreeMap::from([(b.url.clone(), 3), ("none".to_owned(), 5)]));
    // The three are refused.
    let _full = join_all((0..3).map(|_| Session::open(&b))).await;
    let c = Node::start(&redis, "c").await;
    for session in &mut sessions {
        while session.receive("drain").await["url"] != c.url {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_still_there_long_after_it_should_have_moved_is_told_another_node() {
    let redis = RedisServer::start().await;
    let a = Node::with(&redis, "a", &[("DRAIN__DEADLINE", "1s")]).await;
    let (_b, _c) = (Node::start(&redis, "b").await, Node::start(&redis, "c").await);
    a.meets(&["a", "b", "c"]).await;
    let mut session = Session::open(&a).await;
    a.call("drain", json!({})).await;
    let [first, second] = [session.receive("drain").await, session.receive("drain").await];
    assert_ne!(first["url"], second["url"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_moves_all_though_it_was_told_to_move_a_part_while_it_drained() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let mut sessions = join_all((0..4).map(|_| Session::open(&a))).await;
    a.call("drain", json!({})).await;
    assert_eq!(told(&mut sessions).await, BTreeMap::from([("none".to_owned(), 4)]));
    a.call("drain", json!({"sessions": 1, "url": "https://localhost:1"})).await;
    let b = Node::start(&redis, "b").await;
    a.meets(&["a", "b"]).await;
    skywave::server::start_drain(a.server.node());
    for session in &mut sessions {
        while session.receive("drain").await["url"] != b.url {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_node_sheds_no_more_sessions_than_others_have_places_for() {
    let redis = RedisServer::start().await;
    let a = Node::with(&redis, "a", &[("DRAIN__REBALANCE_PERCENT_PER_SECOND", "100")]).await;
    let b = Node::with(&redis, "b", &[("LIMITS__SESSIONS", "20")]).await;
    a.meets(&["a", "b"]).await;
    let _sessions = join_all((0..130).map(|_| Session::open(&a))).await;
    let shed = || a.server.node().metrics.cluster.sessions_shed.get();
    eventually("it sheds", async || shed() > 0).await;
    // Another round.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((shed(), b.sessions()), (20, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_asked_twice_to_end_closes_what_is_left_with_a_code() {
    let redis = RedisServer::start().await;
    let mut node = process::start(&redis, "a").await;
    let mut sessions = join_all((0..200).map(|_| Session::try_at(node.plain(), json!({})))).await;
    for session in &mut sessions {
        session.receive("connected").await;
    }
    node.terminate();
    for session in &mut sessions {
        session.receive("drain").await;
    }
    node.terminate();
    for session in &mut sessions {
        assert_eq!(session.end().await, u64::from(CloseCode::Shutdown.code()));
    }
    // Each of them ends its own side.
    drop(sessions);
    assert_eq!(node.ended().await.code(), Some(0));
}

/// One of two nodes has all of 130 sessions, and sheds so many percent of them a second.
async fn sheds_its_surplus_and_then_stops(percent: &str) {
    let redis = RedisServer::start().await;
    let rate = ("DRAIN__REBALANCE_PERCENT_PER_SECOND", percent);
    let a = Node::with(&redis, "a", &[rate]).await;
    let b = Node::with(&redis, "b", &[rate]).await;
    a.meets(&["a", "b"]).await;
    let clients = join_all((0..130).map(async |_| client(&[&a], None, BOTH[0]).await)).await;
    // The mean is 65: it begins beyond 115 and ends at 90.
    eventually("the surplus has moved", async || (a.sessions(), b.sessions()) == (90, 40)).await;
    let shed = || a.server.node().metrics.cluster.sessions_shed.get();
    assert_eq!(shed(), 40);
    // Some rounds later nothing has changed.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((a.sessions(), b.sessions(), shed()), (90, 40, 40));
    drop(clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_node_sheds_its_surplus_and_then_stops() {
    sheds_its_surplus_and_then_stops("20").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_node_that_sheds_in_many_rounds_sheds_no_more_and_no_less() {
    sheds_its_surplus_and_then_stops("8").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_takes_over_from_an_old_one_that_ends_when_all_have_moved() {
    let redis = RedisServer::start().await;
    let mut blue = process::start(&redis, "blue").await;
    let green = Node::start(&redis, "green").await;
    green.meets(&["blue", "green"]).await;
    let clients = join_all((0..20).map(|number| process::client(&blue, BOTH[number % 2]))).await;
    let ended = drain(&blue, &["--rate", "50/s", "--wait", "--exit"]).await;
    assert!(ended.status.success(), "{ended:?}");
    let told = String::from_utf8(ended.stdout).unwrap();
    assert!(told.starts_with("20 sessions have moved in "), "{told}");
    assert_eq!(blue.ended().await.code(), Some(0));
    assert!(clients.iter().all(|client| node_of(client).as_deref() == Some("green")));
    assert_eq!(green.sessions(), 20);
    green.meets(&["green"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_went_wrong() {
    let redis = RedisServer::start().await;
    let blue = process::start(&redis, "blue").await;
    let refused = drain(&blue, &["--sessions", "1"]).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("not_available (409): no other node is known"), "{said}");
    let wrong = drain(&blue, &["--rate", "fast"]).await;
    assert_eq!(wrong.status.code(), Some(2));
}
