//! A session has one transport among all nodes.

use crate::{
    server::RedisServer,
    session::Session,
    world::{Node, eventually},
};
use serde_json::json;
use skywave_protocol::CloseCode;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_resumes_on_another_node_closes_its_older_transport() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    let mut first = Session::open(&a).await;
    // There and back: each one replaces the one before, never a newer one.
    let mut second = first.resume(&b).await;
    assert_eq!(first.end().await, u64::from(CloseCode::Replaced.code()));
    let mut third = second.resume(&a).await;
    assert_eq!(second.end().await, u64::from(CloseCode::Replaced.code()));
    third.is_served().await;
    assert_eq!((a.sessions(), b.sessions()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_have_any_name_and_hears_what_is_for_it() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "nodes").await);
    let mut first = Session::open(&b).await;
    let _second = first.resume(&a).await;
    assert_eq!(first.end().await, u64::from(CloseCode::Replaced.code()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outdated_secret_takes_no_session_from_a_newer_transport() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    let first = Session::open(&a).await;
    let second = first.resume(&b).await;
    let mut third = second.resume(&a).await;
    // Where the newer transport is, it is known at once; elsewhere as soon as Redis tells.
    let outdated = json!({"resume": first.connected["resume"]});
    let mut here = Session::try_with(&a, outdated.clone()).await;
    assert_eq!(here.end().await, u64::from(CloseCode::Replaced.code()));
    let mut elsewhere = Session::with(&b, outdated).await;
    assert_eq!(elsewhere.end().await, u64::from(CloseCode::Replaced.code()));
    third.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_transports_at_once_one_is_left() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    let first = Session::open(&a).await;
    let mut transports = Vec::new();
    for _ in 0..5 {
        let (one, other) = tokio::join!(first.resume(&a), first.resume(&b));
        transports.extend([one, other]);
    }
    eventually("one is left", async || a.sessions() + b.sessions() == 1).await;
    let left = if a.sessions() == 1 { &a } else { &b };
    let mut last = first.resume(left).await;
    last.is_served().await;
    eventually("nothing but it is left", async || a.sessions() + b.sessions() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_word_of_an_old_takeover_closes_nothing() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let first = Session::open(&a).await;
    let session = first.connected["session"].as_str().unwrap().to_owned();
    let holder = async || redis.run::<String>(&format!("GET sky:session:{session}")).await;
    eventually("it is claimed", async || redis.run::<bool>(&format!("EXISTS sky:session:{session}")).await)
        .await;
    let before = holder().await;
    let number: u64 = before.split(' ').nth(2).unwrap().parse().unwrap();
    let mut second = first.resume(&a).await;
    eventually("it is claimed anew", async || holder().await != before).await;
    let told = format!("replaced {number} {session}");
    redis.run_words::<()>(&["PUBLISH", "sky:inbox:a", &told]).await;
    second.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_leaves_nothing_in_redis() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let keys = async || redis.run::<Vec<String>>("KEYS sky:session:*").await.len();
    let sessions = [Session::open(&a).await, Session::open(&a).await];
    eventually("they are claimed", async || keys().await == 2).await;
    sessions.into_iter().for_each(Session::cut);
    eventually("they are released", async || keys().await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_open_without_redis_and_the_newest_transport_wins_when_it_is_back() {
    let mut redis = RedisServer::durable().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    let mut first = Session::open(&a).await;
    redis.kill();
    eventually("it is noticed", async || {
        !a.server.node().broker.is_available() && !b.server.node().broker.is_available()
    })
    .await;
    let mut second = first.resume(&b).await;
    assert_eq!((a.sessions(), b.sessions()), (1, 1));
    redis.relaunch().await;
    assert_eq!(first.end().await, u64::from(CloseCode::Replaced.code()));
    second.is_served().await;
}
