//! Which nodes know of which others, and what clients are told of them.

use crate::{
    process,
    session::Session,
    world::{Node, client, config},
};
use serde_json::json;
use skywave::server::Server;
use skywave_client::TransportChoice;
use skywave_testing::{RedisServer, eventually, node::token, process::signal, soon};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::io::AsyncBufReadExt;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_a_region_know_each_other_and_forget_one_that_shuts_down_at_once() {
    let redis = RedisServer::start().await;
    let (a, b, c) =
        tokio::join!(Node::start(&redis, "a"), Node::start(&redis, "b"), Node::start(&redis, "c"));
    for node in [&a, &b, &c] {
        node.meets(&["a", "b", "c"]).await;
    }
    let listed = a.call("info", json!({})).await["nodes"][1].clone();
    assert_eq!((&listed["node"], &listed["url"]), (&json!("b"), &json!(b.url)));
    assert_eq!((&listed["state"], &listed["sessions"]), (&json!("ready"), &json!(0)));

    soon(c.server.drain()).await;
    let forgotten = async {
        a.meets(&["a", "b"]).await;
        b.meets(&["a", "b"]).await;
    };
    // Long before its record would have been renewed, or have expired.
    tokio::time::timeout(Duration::from_secs(1), forgotten).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_knows_the_others_though_the_record_that_is_for_whoever_looks_cannot_be_written() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    // In a cluster, another server may have it, which is away.
    redis.run::<()>("ACL SETUSER default resetkeys ~sky:[^n]* ~sky:nodes").await;
    let b = Node::start(&redis, "b").await;
    a.meets(&["a", "b"]).await;
    b.meets(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_with_one_id_the_second_says_what_it_waits_for_and_exits_with_1() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let second = process::serve(&redis, "a").await;
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let told = String::from_utf8(second.stderr).unwrap();
    let waits = told.find("a node with this `node.id` was here; waiting for its lease to end").unwrap();
    let ends = told.find("another node has the id `a` and is alive").unwrap();
    assert!(waits < ends && second.stdout.is_empty(), "{told}");
    Session::open(&a).await.is_served().await;
    // Once the first has left, its id is free.
    soon(a.server.drain()).await;
    Server::start(config(&redis, "a", "https://localhost", "127.0.0.1:0", &[], &[])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_for_its_id_ends_when_it_is_told_to() {
    let mut redis = RedisServer::start().await;
    let _first = Node::start(&redis, "a").await;
    let (mut second, mut told) = process::begin(&redis, "a");
    let mut line = String::new();
    while !line.contains("waiting for its lease to end") {
        line.clear();
        assert!(soon(told.read_line(&mut line)).await.unwrap() > 0, "it has ended");
    }
    redis.kill();
    signal(&second, "-TERM");
    assert!(soon(second.wait()).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn why_redis_cannot_be_reached_any_more_stands_in_the_log() {
    let redis = RedisServer::start().await;
    let (_node, mut told) = process::start_told(&redis, "a").await;
    // As after a change of its password.
    let told_why = async {
        let mut line = String::new();
        while !line.contains("Authentication required") {
            line.clear();
            assert!(soon(told.read_line(&mut line)).await.unwrap() > 0, "it has ended");
        }
        line
    };
    let (line, ()) = tokio::join!(told_why, redis.lock_out(true, Duration::from_secs(5)));
    assert!(line.contains("WARN") && line.contains(&redis.url()), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_starts_again_with_its_id() {
    let redis = RedisServer::start().await;
    let mut killed = process::start(&redis, "a").await;
    killed.kill().await;
    process::start(&redis, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_vanishes_is_forgotten_within_its_lease() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    a.meets(&["a", "b"]).await;
    drop(b);
    let forgotten = a.meets(&["a"]);
    tokio::time::timeout(Duration::from_secs(11), forgotten).await.unwrap();
    assert_eq!(redis.run::<Vec<String>>("HKEYS sky:nodes").await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_record_was_lost_with_redis_is_known_again() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    a.meets(&["a", "b"]).await;
    redis.run::<()>("FLUSHALL").await;
    eventually("both are there", async || redis.run::<u64>("HLEN sky:nodes").await == 2).await;
    a.meets(&["a", "b"]).await;
    b.meets(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_the_live_peers_first() {
    let redis = RedisServer::start().await;
    let region = ("NODE__REGION", "eu");
    let a = Node::with(&redis, "a", &[region]).await;
    let b = Node::with(&redis, "b", &[region]).await;
    a.meets(&["a", "b"]).await;
    let session = Session::open(&a).await;
    assert_eq!(session.connected["regions"], json!([{"name": "eu", "url": b.url}]));

    b.call("drain", json!({})).await;
    eventually("it is known", async || a.state_of("b").await == "draining").await;
    assert_eq!(Session::open(&a).await.connected["regions"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_sends_a_user_to_the_same_one() {
    let redis = RedisServer::start().await;
    let (a, b, c) =
        tokio::join!(Node::start(&redis, "a"), Node::start(&redis, "b"), Node::start(&redis, "c"));
    let nodes = BTreeMap::from([("a", &a), ("b", &b), ("c", &c)]);
    for node in nodes.values() {
        node.meets(&["a", "b", "c"]).await;
    }
    let mut homes = BTreeMap::new();
    for user in (0..12).map(|number| format!("user-{number}")) {
        for node in nodes.values() {
            let told = Session::of(node, &user).await.connected["prefer_url"].clone();
            let home = told.as_str().unwrap_or(&node.url).to_owned();
            assert_eq!(homes.entry(user.clone()).or_insert_with(|| home.clone()), &home);
        }
    }
    let used: std::collections::BTreeSet<_> = homes.values().collect();
    assert_eq!(used.len(), 3, "{homes:?}");
    // Who has no name suits every node.
    assert!(Session::open(&a).await.connected.get("prefer_url").is_none());

    // A client goes there by itself, on the session that it has.
    let (user, home) = homes.iter().find(|(_, home)| **home != a.url).unwrap();
    let alice = client(&[&a], Some(user), TransportChoice::WebSocket).await;
    let moved =
        async || alice.status().borrow().connected().is_some_and(|it| it.url.to_string().contains(&**home));
    eventually("it has moved", moved).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_moved_is_not_sent_back() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    a.meets(&["a", "b"]).await;
    b.meets(&["a", "b"]).await;
    for user in (0..8).map(|number| format!("user-{number}")) {
        let session = Session::of(&a, &user).await;
        let fields = json!({"token": token(&user), "resume": session.connected["resume"]});
        let moved = Session::with(&b, fields).await;
        assert_eq!((&moved.connected["resumed"], moved.connected.get("prefer_url")), (&json!(true), None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_directory_is_not_trusted() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let record = |region, url| {
        format!(
            r#"{{"region":"{region}","url":"{url}","state":"ready","sessions":0,"limit":9,"version":"1","started_ms":1}}"#
        )
    };
    for (id, text) in [
        ("good", record("local", "https://good.example.com")),
        ("evil", record("local", "javascript:alert(1)")),
        ("far", record("us", "https://far.example.com")),
        ("none", "{}".to_owned()),
    ] {
        redis.run_words::<()>(&["HSET", "sky:nodes", id, &format!("9999999999999 {text}")]).await;
    }
    redis.run::<()>("HSET sky:nodes odd nonsense").await;
    redis.run::<()>("PUBLISH sky:nodes good").await;
    redis.run::<()>("PUBLISH sky:inbox:a nonsense").await;
    redis.run_words::<()>(&["PUBLISH", "sky:inbox:a", ""]).await;
    a.meets(&["a", "good"]).await;
}

/// How many calls for its directory a node has made.
fn reads(node: &Node) -> u64 {
    let metrics = node.server.node().metrics.render().unwrap();
    let line = metrics.lines().find(|line| {
        line.starts_with("skywave_redis_command_seconds_count") && line.contains("\"directory\"")
    });
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_nodes_that_change_one_after_the_other_are_read_a_few_times() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let record = r#"{"region":"local","state":"ready","sessions":0,"limit":9,"version":"1","started_ms":1}"#;
    let ids: Vec<_> = (0..300).map(|number| format!("node-{number:03}")).collect();
    for id in &ids {
        redis.run_words::<()>(&["HSET", "sky:nodes", id, &format!("9999999999999 {record}")]).await;
    }
    redis.run::<()>("PUBLISH sky:nodes node-000").await;
    let all: Vec<_> = ["a"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    a.meets(&all).await;
    let (before, begun) = (reads(&a), Instant::now());
    for id in &ids {
        redis.run::<()>(&format!("PUBLISH sky:nodes {id}")).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let most = begun.elapsed().as_millis() as u64 / 300 + 2;
    let reads = reads(&a) - before;
    assert!((1..=most).contains(&reads), "{reads} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_though_redis_takes_no_writes_and_has_its_id_once_it_does() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    redis.run::<()>("CONFIG SET maxmemory 1").await;
    let b = soon(Node::start(&redis, "b")).await;
    assert_eq!(b.readiness().await, (200, "ready".to_owned()));
    let mut session = Session::open(&b).await;
    session.is_served().await;
    redis.run::<()>("CONFIG SET maxmemory 0").await;
    let has_id = async || redis.run::<Option<String>>("HGET sky:lease:node:b holder").await.is_some();
    eventually("b has its id", has_id).await;
    a.meets(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_its_id_again_and_keeps_it_though_redis_forgot_it() {
    let redis = RedisServer::start().await;
    let _a = Node::start(&redis, "a").await;
    let holder =
        async || redis.run::<Option<String>>("HGET sky:lease:node:a holder").await.unwrap_or_default();
    let first = holder().await;
    redis.run::<()>("DEL sky:lease:node:a").await;
    eventually("a has its id again", async || holder().await == first).await;
    let second = process::serve(&redis, "a").await;
    assert_eq!(second.status.code(), Some(1), "{second:?}");
}
