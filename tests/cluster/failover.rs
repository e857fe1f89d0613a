//! Nodes that cannot serve: their Redis is away, or all other regions are.

use crate::{
    session::Session,
    world::{Node, Other, client, regions},
};
use futures_util::future::join_all;
use serde_json::json;
use skywave::cluster::outlook::View;
use skywave_client::TransportChoice;
use skywave_protocol::{CloseCode, Text};
use skywave_testing::{RedisServer, eventually, soon};
use std::time::{Duration, Instant};

const QUICKLY: (&str, &str) = ("FAILOVER__BROKER_AWAY", "500ms");
const BOTH: [TransportChoice; 2] = [TransportChoice::WebSocket, TransportChoice::WebTransport];

/// Two regions with a node each that know each other.
struct Regions {
    eu_redis: RedisServer,
    _us_redis: RedisServer,
    eu: Node,
    us: Node,
}

impl Regions {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let [(eu_redis, eu), (_us_redis, us)] = regions(["eu", "us"], &[&[QUICKLY], settings].concat()).await;
        Self { eu_redis, _us_redis, eu, us }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_a_node_without_redis_go_to_the_other_region_until_it_is_back() {
    let Regions { mut eu_redis, _us_redis, eu, us } = Regions::start(&[]).await;
    let clients = join_all((0..20).map(async |number| client(&[&eu], None, BOTH[number % 2]).await)).await;
    let mut old = Session::open(&eu).await;
    assert_eq!(old.connected["regions"], json!([{"name": "us", "url": us.url}]));
    eu_redis.kill();
    let began = Instant::now();
    let told = old.receive("drain").await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(told["url"], us.url);
    assert!(told["after_ms"].as_u64().unwrap() <= 1_000, "{told}");
    assert_eq!(eu.readiness().await, (503, "broker_away".to_owned()));
    let mut late = Session::try_with(&eu, json!({})).await;
    assert_eq!(late.end().await, u64::from(CloseCode::Drain.code()));

    eventually("all that can have moved", async || us.sessions() == 20).await;
    let moved = async || {
        clients.iter().all(|client| {
            let status = client.status();
            let status = status.borrow();
            status.connected().is_some_and(|it| (&*it.region, it.resumed) == ("us", true))
        })
    };
    eventually("they know, and are the same sessions", moved).await;
    // Who cannot move is left in peace, and is served again when Redis is back.
    eventually("the others have left", async || eu.sessions() == 1).await;
    eu_redis.relaunch().await;
    eventually("it waits", async || eu.readiness().await == (503, "returning".to_owned())).await;
    eventually("it is ready", async || eu.readiness().await == (200, "ready".to_owned())).await;
    old.is_served().await;
    assert_eq!(Session::open(&eu).await.connected["region"], "eu");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_node_that_cannot_serve_are_told_another_region_when_theirs_is_gone_as_well() {
    let [(mut eu_redis, eu), us, ap] = regions(["eu", "us", "ap"], &[QUICKLY]).await;
    eu.reaches_the_others().await;
    let mut session = Session::open(&eu).await;
    eu_redis.kill();
    let first = session.receive("drain").await["url"].clone();
    let mut others = [us, ap];
    others.sort_by_key(|(_, node)| first != *node.url);
    let [(mut gone, _first), (_redis, left)] = others;
    gone.kill();
    assert_eq!(session.receive("drain").await["url"], left.url);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_other_region_sessions_stay() {
    let mut redis = RedisServer::durable().await;
    let node = Node::with(&redis, "a", &[QUICKLY]).await;
    let mut session = Session::open(&node).await;
    redis.kill();
    eventually("it is away", async || node.state_of("a").await == "away").await;
    assert_eq!(node.readiness().await, (503, "broker_away".to_owned()));
    // Others come all the same: nothing better is to be had.
    let mut other = Session::open(&node).await;
    redis.relaunch().await;
    eventually("it is ready", async || node.readiness().await.0 == 200).await;
    // Neither was told anything meanwhile.
    session.is_served().await;
    other.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_a_node_that_cannot_follow_the_log_go_to_another_of_its_region() {
    let redis = RedisServer::durable().await;
    redis.run::<()>("ACL SETUSER deaf on >secret ~* &* +@all").await;
    let url = redis.url().replace("redis://", "redis://deaf:secret@");
    let deaf = Node::with(&redis, "a", &[QUICKLY, ("BROKER__URL", &url)]).await;
    let other = Node::with(&redis, "b", &[QUICKLY]).await;
    deaf.meets(&["a", "b"]).await;
    let clients = join_all((0..4).map(async |number| client(&[&deaf], None, BOTH[number % 2]).await)).await;
    redis.run::<()>("ACL SETUSER deaf -xread").await;
    eventually("all have moved", async || other.sessions() == clients.len() && deaf.sessions() == 0).await;
    assert_eq!(deaf.readiness().await, (503, "deaf".to_owned()));
    let mut late = Session::try_with(&deaf, json!({})).await;
    assert_eq!(late.end().await, u64::from(CloseCode::Drain.code()));
    redis.run::<()>("ACL SETUSER deaf +xread").await;
    eventually("it is ready", async || deaf.readiness().await.0 == 200).await;
    assert_eq!(Session::open(&deaf).await.connected["node"], "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_silence_of_redis_moves_nobody() {
    let Regions { eu_redis, _us_redis, eu, us } = Regions::start(&[("FAILOVER__BROKER_AWAY", "10s")]).await;
    let mut session = Session::open(&eu).await;
    eu_redis.cut_connections().await;
    let reconnects = eu.server.node().metrics.redis.reconnects.with_label_values(&["commands"]);
    eventually("it is connected anew", async || reconnects.get() > 0).await;
    eventually("it is ready", async || eu.readiness().await.0 == 200).await;
    session.is_served().await;
    assert_eq!((eu.sessions(), us.sessions()), (1, 0));
}

/// What the links would tell.
fn tell(node: &Node, isolated: bool) {
    let near = if isolated { Vec::new() } else { vec![Text::new("us").unwrap()] };
    node.server.node().cluster.outlook.see(View { isolated, near });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_region_is_left_or_goes_on_as_it_is_configured() {
    for leaves in [false, true] {
        let isolated = ("FAILOVER__ISOLATED", if leaves { "leave" } else { "serve" });
        let Regions { eu_redis: _eu_redis, _us_redis, eu, us } = Regions::start(&[isolated]).await;
        let mut session = Session::open(&eu).await;
        tell(&eu, true);
        if leaves {
            assert_eq!(session.receive("drain").await["url"], us.url);
            assert_eq!(eu.readiness().await, (503, "isolated".to_owned()));
            tell(&eu, false);
            eventually("it is ready", async || eu.readiness().await.0 == 200).await;
        } else {
            // Longer than it is looked at.
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(eu.readiness().await, (200, "ready".to_owned()));
        }
        soon(session.is_served()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_resumes_in_another_region_closes_its_older_transport() {
    let Regions { eu_redis: _eu_redis, _us_redis, eu, us } = Regions::start(&[]).await;
    eu.reaches_the_others().await;
    us.reaches_the_others().await;
    let mut first = Session::open(&eu).await;
    let mut second = first.resume(&us).await;
    assert_eq!(first.end().await, u64::from(CloseCode::Replaced.code()));
    let mut third = second.resume(&eu).await;
    assert_eq!(second.end().await, u64::from(CloseCode::Replaced.code()));
    third.is_served().await;
    assert_eq!((eu.sessions(), us.sessions()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_a_node_that_drains_behind_a_balancer_stay_in_their_region() {
    let (eu_redis, us_redis) = (RedisServer::start().await, RedisServer::start().await);
    let (balancer, us_url) = ("https://localhost:1", "https://localhost:2");
    let node = async |id| {
        let others = [Other { name: "us", redis: &us_redis, url: us_url }];
        let settings = [("NODE__REGION", "eu"), ("LISTEN__PUBLIC", "")];
        Node::at(balancer, &eu_redis, id, &settings, &others).await
    };
    let (a, b) = (node("eu-1").await, node("eu-2").await);
    a.meets(&["eu-1", "eu-2"]).await;
    let mut session = Session::open(&a).await;
    let begun = Instant::now();
    a.call("drain", json!({})).await;
    assert_eq!(session.receive("drain").await["url"], balancer);
    assert!(begun.elapsed() > Duration::from_secs(3), "the balancer knows by then");
    // Who does not get anywhere by that address goes to another region.
    assert_eq!(session.receive("drain").await["url"], us_url);
    drop(b);
}
