//! A region whose own Redis forgets, and what it tells of another that it had heard before.

use crate::{
    crossing::{CHANNELS, expect, gap, history, publish},
    deployment::{Deployment, subscribe},
};
use futures_util::future::join_all;
use serde_json::json;
use skywave_client::{ChannelEvent, Client, SubscribeOptions, Subscription, TransportChoice};
use skywave_protocol::frame::GapReason;
use skywave_testing::{JsonSocket, eventually, soon};
use std::collections::HashMap;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_redis_forgets_everything_misses_nothing() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    let publish = async |numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            us.publish("chat:1", number).await;
            us.publish("bench:1", number).await;
        }
    };
    publish(1..=50).await;
    eu.ear.deliveries(100).await;
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    publish(51..=80).await;
    eu.redis.run::<()>("FLUSHALL").await;
    deployment.path("eu", "us").heal();
    publish(81..=100).await;
    eu.ear.deliveries(200).await;
    for name in ["chat:1", "bench:1"] {
        assert!(eu.numbers(name, "us").into_iter().eq(1..=100), "{name}: {:?}", eu.numbers(name, "us"));
    }
    assert!(history(&deployment, "eu").await.into_iter().eq(1..=100));
}

/// A node of `eu` that never brought anything from `us` itself, a client there that has 50 publications of `us` on
/// both channels, and 30 more that came to nobody yet when the Redis of `eu` forgot everything.
async fn forgetful() -> (Deployment, Client, Vec<Subscription>) {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    publish(&deployment, 1..=50).await;
    deployment.deliveries("eu", 100).await;
    deployment.add_node("eu").await;
    let leading = deployment.leader("eu", "us").unwrap();
    // Only the other node asks for the cursors: at the second time it has had the answers to the first.
    let redis = &deployment.region("eu").redis;
    redis.keep_commands().await;
    let asked = async || redis.given(&["HGET", "sky:{3}:cursor", "us"]).await;
    eventually("a look at the cursors", async || asked().await >= 2).await;
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    drop(deployment.region_mut("eu").nodes.remove(leading));
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let mut subscriptions = Vec::new();
    for channel in CHANNELS {
        let mut subscription = soon(client.subscribe(channel, SubscribeOptions::default())).await.unwrap();
        let subscribed = soon(subscription.next()).await;
        let Some(ChannelEvent::Subscribed(subscribed)) = subscribed else { panic!("{subscribed:?}") };
        assert_eq!(subscribed.position.get("us").unwrap().offset, 50);
        subscriptions.push(subscription);
    }
    publish(&deployment, 51..=80).await;
    deployment.region("eu").redis.run::<()>("FLUSHALL").await;
    for subscription in &mut subscriptions {
        // Of what `us` published nobody knows yet whether it can be had.
        assert_eq!(gap(subscription).await, ("eu".to_owned(), GapReason::EpochChanged, 0));
    }
    (deployment, client, subscriptions)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_everything_costs_subscribers_nothing_that_another_region_has() {
    let (deployment, _client, mut subscriptions) = forgetful().await;
    deployment.path("eu", "us").heal();
    publish(&deployment, 81..=100).await;
    for subscription in &mut subscriptions {
        expect(subscription, 51..=100).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_redis_has_any_more_is_told_when_the_link_begins_anew_though_nobody_publishes() {
    let (deployment, _client, mut subscriptions) = forgetful().await;
    for partition in 0..4 {
        let trim = format!("XTRIM sky:{{{partition}}}:log MAXLEN = 0");
        deployment.region("us").redis.run::<u64>(&trim).await;
    }
    deployment.path("eu", "us").heal();
    expect(&mut subscriptions[0], 51..=80).await;
    assert_eq!(gap(&mut subscriptions[1]).await, ("us".to_owned(), GapReason::Trimmed, 80));
    publish(&deployment, 81..=81).await;
    for subscription in &mut subscriptions {
        expect(subscription, 81..=81).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_notices_that_its_redis_forgot_everything_though_nobody_publishes() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    publish(&deployment, 1..=10).await;
    deployment.deliveries("eu", 20).await;
    deployment.region("eu").redis.run::<()>("FLUSHALL").await;
    deployment.bridged("eu").await;
    assert!(history(&deployment, "eu").await.into_iter().eq(1..=10));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_has_lost_comes_from_the_histories_or_is_told() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    us.publish("chat:1", 1).await;
    us.publish("bench:1", 1).await;
    eu.ear.deliveries(2).await;
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    for number in 2..=300 {
        us.publish("chat:1", number).await;
        us.publish("bench:1", number).await;
    }
    for partition in 0..4 {
        us.redis.run::<u64>(&format!("XTRIM sky:{{{partition}}}:log MAXLEN = 0")).await;
    }
    us.publish("bench:1", 301).await;
    deployment.path("eu", "us").heal();
    us.publish("chat:1", 301).await;
    eu.ear.deliveries(303).await;
    assert!(eu.numbers("chat:1", "us").into_iter().eq(1..=301));
    assert_eq!(eu.numbers("bench:1", "us"), [1, 301]);
    assert_eq!(eu.delivered("bench:1").last().unwrap().2, 301);
    let link = eu.node().node().metrics.links.of("us");
    eventually("the count", async || (link.gaps.get(), link.repaired.get()) == (1, 299)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_any_more_is_told_though_nothing_follows_it() {
    for transport in [TransportChoice::WebTransport, TransportChoice::WebSocket] {
        let deployment = Deployment::start(&["eu", "us"]).await;
        let (eu, us) = (deployment.region("eu"), deployment.region("us"));
        publish(&deployment, 1..=1).await;
        eu.ear.deliveries(2).await;
        let client = eu.client(transport).await;
        let mut subscription = subscribe(&client, "bench:1").await;
        deployment.path("eu", "us").cut();
        deployment.path("eu", "us").reset();
        publish(&deployment, 2..=5).await;
        for partition in 0..4 {
            us.redis.run::<u64>(&format!("XTRIM sky:{{{partition}}}:log MAXLEN = 0")).await;
        }
        deployment.path("eu", "us").heal();
        let told = soon(subscription.next()).await;
        let Some(ChannelEvent::Gap(gap)) = told else { panic!("{told:?}") };
        assert_eq!((&*gap.origin, gap.reason, gap.offset), ("us", GapReason::Trimmed, 5));
        // Of the channel with history nothing is lost.
        eu.ear.deliveries(6).await;
        assert_eq!(eu.numbers("chat:1", "us"), [1, 2, 3, 4, 5]);
        let link = eu.node().node().metrics.links.of("us");
        eventually("the count", async || (link.gaps.get(), link.repaired.get()) == (1, 4)).await;
        us.publish("bench:1", 6).await;
        let next = soon(subscription.next()).await;
        assert!(matches!(next, Some(ChannelEvent::Publication(ref one)) if one.offset == 6), "{next:?}");
    }
}

/// Reads what a node tells of a channel, up to this publication of `us`, and holds that none comes twice, nor is one
/// missing of which no gap tells.
async fn read_up_to(socket: &mut JsonSocket, channel: &str, last: u64, seen: &mut HashMap<String, u64>) {
    while seen.get(channel) < Some(&last) {
        let frame = socket.frame().await;
        let (kind, told) = frame.as_object().unwrap().iter().next().unwrap();
        let offset = || told["offset"].as_u64().unwrap();
        if told["origin"] != "us" {
            continue;
        }
        let stands = seen.get_mut(told["channel"].as_str().unwrap()).unwrap();
        match kind.as_str() {
            "publication" => assert_eq!(offset(), *stands + 1, "{frame}"),
            "gap" => assert!(offset() > *stands, "{frame} at {stands}"),
            _ => panic!("{frame}"),
        }
        *stands = offset();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_subscription_gets_nothing_twice_when_redis_forgets_everything_while_others_publish() {
    const ROUNDS: u64 = 4;
    const EACH: u64 = 200;
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    deployment.add_node("eu").await;
    publish(&deployment, 1..=10).await;
    deployment.deliveries("eu", 20).await;
    let eu = deployment.region("eu");
    let mut sockets = Vec::new();
    for node in &eu.nodes {
        let mut socket = JsonSocket::open(node.plain().unwrap()).await;
        socket.send(json!({"connect": {"id": 1, "subscriptions": {"chat:1": {}, "bench:1": {}}}})).await;
        socket.receive("connected").await;
        for _ in CHANNELS {
            assert_eq!(socket.receive("subscribed").await["position"]["us"]["offset"], 10);
        }
        sockets.push(socket);
    }
    let publishing = publish(&deployment, 11..=10 + ROUNDS * EACH);
    let forgetting = async {
        for round in 0..ROUNDS {
            let reached = 10 + round * EACH + EACH / 2;
            eventually("progress", async || eu.numbers("bench:1", "us").last() >= Some(&reached)).await;
            eu.redis.run::<()>("FLUSHALL").await;
        }
    };
    let reading = join_all(sockets.iter_mut().map(async |socket| {
        let mut seen: HashMap<_, _> = CHANNELS.map(|channel| (channel.to_owned(), 10)).into();
        for channel in CHANNELS {
            read_up_to(socket, channel, 10 + ROUNDS * EACH, &mut seen).await;
        }
    }));
    tokio::join!(publishing, forgetting, reading);
}
