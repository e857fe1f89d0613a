//! A session has one transport among all nodes.

use crate::{
    session::Session,
    world::{Node, regions},
};
use futures_util::future::join_all;
use serde_json::json;
use skywave::cluster::scripts::CLAIM;
use skywave_protocol::CloseCode;
use skywave_testing::{RedisServer, eventually};

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

/// Of transports that were opened with one secret, `newest` is served and the others have been replaced.
async fn only_the_newest_is_left(mut transports: Vec<(u64, Session)>, newest: u64, nodes: &[&Node]) {
    for (attempt, transport) in &mut transports {
        if *attempt == newest {
            transport.receive("connected").await;
            transport.is_served().await;
        } else {
            assert_eq!(transport.ends_at_last().await, u64::from(CloseCode::Replaced.code()), "{attempt}");
        }
    }
    let sessions = || nodes.iter().map(|node| node.sessions()).sum::<usize>();
    assert_eq!(sessions(), 1);
    drop(transports);
    eventually("nothing is left", async || sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_that_arrives_late_never_ends_the_newer_transport_of_its_session() {
    let [(_eu_redis, eu), (us_redis, us)] = regions(["eu", "us"], &[]).await;
    let us_2 = Node::with(&us_redis, "us-2", &[("NODE__REGION", "us")]).await;
    eu.reaches_the_others().await;
    us.reaches_the_others().await;
    let first = Session::with(&eu, json!({"attempt": 1})).await;
    let mut newer = first.resume_as(&us, 3).await;
    newer.receive("connected").await;
    // It was on its way to the same node, another one of its region, or another region.
    for node in [&us, &us_2, &eu] {
        let mut late = first.resume_as(node, 2).await;
        assert_eq!(late.ends_at_last().await, u64::from(CloseCode::Replaced.code()), "{}", node.id);
    }
    newer.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_connects_with_one_secret_at_once_in_several_regions_that_of_the_highest_attempt_is_left() {
    let [(_eu_redis, eu), (_us_redis, us), (_ap_redis, ap)] = regions(["eu", "us", "ap"], &[]).await;
    let nodes = [&eu, &us, &ap];
    join_all(nodes.map(Node::reaches_the_others)).await;
    for round in 0..12 {
        let first = Session::with(nodes[round % 3], json!({"attempt": 1})).await;
        let attempts = (0..3).map(|place| (2 + (place + round as u64) % 3, nodes[place as usize]));
        let transports = join_all(attempts.map(async |(n, node)| (n, first.resume_as(node, n).await))).await;
        only_the_newest_is_left(transports, 4, &nodes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_connects_with_one_secret_at_once_one_is_left_though_their_clients_count_no_attempts() {
    let [(_eu_redis, eu), (_us_redis, us), (_ap_redis, ap)] = regions(["eu", "us", "ap"], &[]).await;
    let nodes = [&eu, &us, &ap];
    join_all(nodes.map(Node::reaches_the_others)).await;
    for round in 0..12 {
        let first = Session::open(nodes[round % 3]).await;
        let secret = json!({"resume": first.connected["resume"]});
        let mut transports = join_all(nodes.map(|node| Session::try_with(node, secret.clone()))).await;
        join_all(transports.iter_mut().map(Session::is_answered)).await;
        join_all(nodes.map(Node::has_claimed)).await;
        let sessions = || nodes.iter().map(|node| node.sessions()).sum::<usize>();
        eventually("one is left", async || sessions() <= 1).await;
        assert_eq!(sessions(), 1, "in round {round}");
        drop(transports);
        eventually("nothing is left", async || nodes.iter().all(|node| node.sessions() == 0)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_attempt_is_left_though_the_redis_of_a_region_was_away_meanwhile() {
    let [(mut eu_redis, eu), (_us_redis, us)] = regions(["eu", "us"], &[]).await;
    join_all([&eu, &us].map(Node::reaches_the_others)).await;
    for newest in [&eu, &us] {
        let first = Session::with(&us, json!({"attempt": 1})).await;
        eu_redis.kill();
        let away = async || !eu.server.node().cluster.sharing.redis().unwrap().commands.is_available();
        eventually("it is noticed", away).await;
        let attempt = |node: &Node| if node.id == newest.id { 3 } else { 2 };
        // The one of the highest attempt is not the last to come.
        let older = if newest.id == eu.id { &us } else { &eu };
        let transports = vec![
            (3, first.resume_as(newest, attempt(newest)).await),
            (2, first.resume_as(older, attempt(older)).await),
        ];
        eu_redis.relaunch().await;
        eventually("it is back", async || !away().await).await;
        join_all([&eu, &us].map(Node::reaches_the_others)).await;
        only_the_newest_is_left(transports, 3, &[&eu, &us]).await;
    }
}

/// The key of a session's holder, once it has one.
async fn holder_of(redis: &RedisServer, session: &Session) -> String {
    let pattern = format!("sky:{{*}}:session:{}", session.connected["session"].as_str().unwrap());
    let mut keys = Vec::new();
    eventually("it is claimed", async || {
        keys = redis.run::<Vec<String>>(&format!("KEYS {pattern}")).await;
        !keys.is_empty()
    })
    .await;
    keys.remove(0)
}

/// Gives a session to a transport of another node, as if the word that says so were never heard.
async fn is_taken_unheard(redis: &RedisServer, session: &Session) {
    let holder = holder_of(redis, session).await;
    let (partition, _) = holder.split_once(":session:").unwrap();
    let told = format!("{partition}:told:a");
    eventually("it counts", async || redis.run::<bool>(&format!("EXISTS {told}")).await).await;
    let theirs = "9 9 9999999999999 9 b";
    let take = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('HINCRBY', KEYS[2], 'said', 1)";
    redis.run_words::<u64>(&["EVAL", take, "2", &holder, &told, theirs]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_is_replaced_by_a_word_that_is_not_heard_ends_all_the_same() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let mut session = Session::open(&a).await;
    let mut other = Session::open(&a).await;
    is_taken_unheard(&redis, &session).await;
    assert_eq!(session.end().await, u64::from(CloseCode::Replaced.code()));
    other.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_is_replaced_unheard_ends_though_other_partitions_cannot_be_asked() {
    let redis = RedisServer::start().await;
    let a = Node::with(&redis, "a", &[("BROKER__PARTITIONS", "4")]).await;
    let mut first = Session::open(&a).await;
    is_taken_unheard(&redis, &first).await;
    // From then on the node knows all that it was told, and looks at no claim for another reason.
    assert_eq!(first.end().await, u64::from(CloseCode::Replaced.code()));
    let mut session = Session::open(&a).await;
    let mut key = holder_of(&redis, &session).await;
    // Not in the first one.
    while key.starts_with("sky:{0}") {
        session = Session::open(&a).await;
        key = holder_of(&redis, &session).await;
    }
    for partition in (0..4).map(|partition| format!("sky:{{{partition}}}:")) {
        if !key.starts_with(&partition) {
            redis.run::<()>(&format!("SET {partition}told:a nothing")).await;
        }
    }
    is_taken_unheard(&redis, &session).await;
    assert_eq!(session.end().await, u64::from(CloseCode::Replaced.code()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_is_replaced_by_one_of_another_node_that_was_given_the_same_id() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let mut first = Session::open(&a).await;
    is_taken_unheard(&redis, &first).await;
    // From then on the node knows all that it was told, and looks at no claim for another reason.
    assert_eq!(first.end().await, u64::from(CloseCode::Replaced.code()));
    let mut session = Session::open(&a).await;
    let key = holder_of(&redis, &session).await;
    let (tag, id) = key.split_once(":session:").unwrap();
    let partition = tag.split(['{', '}']).nth(1).unwrap();
    let told = format!("{tag}:told:");
    let claim = ["9", "9", "9999999999999", "9", "a", "60000", id, "sky:inbox:", partition, &told];
    let words = ["EVAL", CLAIM.source(), "1", &key].into_iter().chain(claim);
    assert_eq!(redis.run_words::<u64>(&words.collect::<Vec<_>>()).await, 1);
    assert_eq!(session.end().await, u64::from(CloseCode::Replaced.code()));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_fenced_still_when_redis_forgets_everything() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    let mut first = Session::open(&a).await;
    holder_of(&redis, &first).await;
    redis.run::<()>("FLUSHALL").await;
    holder_of(&redis, &first).await;
    let mut second = first.resume(&b).await;
    assert_eq!(first.end().await, u64::from(CloseCode::Replaced.code()));
    second.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_word_of_an_old_takeover_closes_nothing() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let first = Session::open(&a).await;
    let session = first.connected["session"].as_str().unwrap().to_owned();
    let key = holder_of(&redis, &first).await;
    let holder = async || redis.run::<String>(&format!("GET {key}")).await;
    let before = holder().await;
    let number: u64 = before.split(' ').nth(3).unwrap().parse().unwrap();
    let mut second = first.resume(&a).await;
    eventually("it is claimed anew", async || holder().await != before).await;
    let told = format!("replaced 0 0 {number} {session}");
    redis.run_words::<()>(&["PUBLISH", "sky:inbox:a", &told]).await;
    second.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_leaves_nothing_in_redis() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis, "a").await;
    let keys = async || redis.run::<Vec<String>>("KEYS sky:*:session:*").await.len();
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
