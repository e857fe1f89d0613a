//! What the HTTP API of one node says and does for all nodes of its region.

use crate::{session::Session, world::Node};
use futures_util::future::join_all;
use serde_json::{Value, json};
use skywave::hub::outbox::Outbox;
use skywave_protocol::{Channel, CloseCode, form};
use skywave_testing::{RedisServer, eventually, node::token};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

async fn nodes(redis: &RedisServer) -> (Node, Node) {
    let (a, b) = tokio::join!(Node::start(redis, "a"), Node::start(redis, "b"));
    a.meets(&["a", "b"]).await;
    b.meets(&["a", "b"]).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_disconnected_on_every_node() {
    let redis = RedisServer::start().await;
    let (a, b) = nodes(&redis).await;
    let mut alices = [Session::of(&a, "alice").await, Session::of(&b, "alice").await];
    let mut bob = Session::of(&b, "bob").await;
    assert_eq!(a.call("disconnect", json!({"user": "alice"})).await, json!({"disconnected": 2}));
    for alice in &mut alices {
        assert_eq!(alice.end().await, u64::from(CloseCode::Disconnected.code()));
    }
    bob.is_served().await;
    let order = json!({"session": bob.connected["session"], "reason": "rotate"});
    assert_eq!(a.call("disconnect", order).await, json!({"disconnected": 1}));
    assert_eq!(bob.end().await, u64::from(CloseCode::Rotate.code()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_are_disconnected_at_once() {
    let redis = RedisServer::start().await;
    let (a, b) = nodes(&redis).await;
    let users: Vec<_> = (0..100).map(|number| format!("user-{number}")).collect();
    let mut sessions = join_all(users.iter().map(|user| Session::of(&b, user))).await;
    join_all(users.iter().map(|user| a.call("disconnect", json!({"user": user})))).await;
    for session in &mut sessions {
        assert_eq!(session.end().await, u64::from(CloseCode::Disconnected.code()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_all_nodes_are_listed_page_by_page() {
    let redis = RedisServer::start().await;
    let (a, b) = nodes(&redis).await;
    let mut expected = Vec::new();
    let mut sessions = Vec::new();
    for number in 0..6 {
        let node = if number % 2 == 0 { &a } else { &b };
        let session = Session::of(node, "alice").await;
        expected.push((session.connected["session"].clone(), json!(node.id)));
        sessions.push(session);
    }
    expected.sort_by_key(|(session, _)| session.to_string());
    let mut listed = Vec::new();
    while listed.len() < expected.len() {
        let mut request = json!({"user": "alice", "limit": 4});
        if let Some((last, _)) = listed.last() {
            request["after"] = Value::clone(last);
        }
        let answer = b.call("sessions", request).await;
        assert_eq!((&answer["count"], answer.get("silent")), (&json!(6), None));
        let page = answer["sessions"].as_array().unwrap().clone();
        assert!(!page.is_empty());
        listed.extend(page.into_iter().map(|one| (one["session"].clone(), one["node"].clone())));
    }
    assert_eq!(listed, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subscribers_of_all_nodes_are_counted() {
    let redis = RedisServer::start().await;
    let (a, b) = nodes(&redis).await;
    let subscribed = async |node: &Node, channels: Value| {
        let count = channels.as_object().unwrap().len();
        let fields = json!({"token": token("alice"), "subscriptions": channels});
        let mut session = Session::with(node, fields).await;
        for _ in 0..count {
            session.receive("subscribed").await;
        }
        session
    };
    let _sessions = [
        subscribed(&a, json!({"chat:1": {}, "chat:2": {}})).await,
        subscribed(&b, json!({"chat:2": {}, "typing:1": {}})).await,
    ];
    let channels = json!([{"channel": "chat:2", "subscribers": 2}, {"channel": "chat:1", "subscribers": 1}]);
    for node in [&a, &b] {
        let answer = node.call("channels", json!({"pattern": "chat:*"})).await;
        assert_eq!(answer, json!({"count": 2, "channels": channels}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_named_after_half_a_second() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let _alice = Session::of(&a, "alice").await;
    let ghost = json!({"region": "local", "state": "ready", "sessions": 0, "limit": 9, "version": "1", "started_ms": 1});
    redis.run_words::<()>(&["HSET", "sky:nodes", "ghost", &format!("9999999999999 {ghost}")]).await;
    redis.run::<()>("PUBLISH sky:nodes ghost").await;
    a.meets(&["a", "ghost"]).await;
    let began = Instant::now();
    let answer = a.call("sessions", json!({})).await;
    assert_eq!((&answer["count"], &answer["silent"]), (&json!(1), &json!(["ghost"])));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(3), "{took:?}");
    let answer = a.call("disconnect", json!({"user": "alice"})).await;
    assert_eq!(answer, json!({"disconnected": 1, "silent": ["ghost"]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_node_answers_for_itself_and_names_the_others() {
    let mut redis = RedisServer::start().await;
    let (a, b) = nodes(&redis).await;
    let _sessions = [Session::of(&a, "alice").await, Session::of(&b, "alice").await];
    redis.kill();
    eventually("it is noticed", async || !a.server.node().broker.is_available()).await;
    let answer = a.call("sessions", json!({})).await;
    assert_eq!((&answer["count"], &answer["silent"]), (&json!(1), &json!(["b"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_disconnected_at_once_however_much_is_asked_meanwhile() {
    let redis = RedisServer::start().await;
    let (a, b) = nodes(&redis).await;
    let hub = &b.server.node().hub;
    let mut many = Vec::new();
    for session in 0..200 {
        let outbox = Arc::new(Outbox::new(&form::JSON, 65_536));
        let channel = |number| Channel::new(&format!("chat:{session} {number}")).unwrap();
        many.extend((0..100).map(|number| hub.join(channel(number), &outbox, false)));
    }
    let mut alice = Session::of(&b, "alice").await;
    // By another node, which is gone before it is answered.
    let question = json!({"channels": {"pattern": "**", "prefix": ""}});
    let asked = format!("ask {}", json!({"number": 1, "from": "ghost", "question": question}));
    let script = "for _ = 1, 5000 do redis.call('PUBLISH', KEYS[1], ARGV[1]) end return 0";
    redis.run_words::<u64>(&["EVAL", script, "1", "sky:inbox", &asked]).await;
    a.call("disconnect", json!({"user": "alice"})).await;
    assert_eq!(alice.end().await, u64::from(CloseCode::Disconnected.code()));
}
