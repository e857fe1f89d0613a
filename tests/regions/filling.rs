//! What a region knows of another when its cursor is lost or the other's log no longer reaches back to it.

use crate::{
    crossing::{expect, gap, history, number},
    deployment::Deployment,
};
use skywave::{
    broker::{Broker, Publish, ReadFrom},
    redis::keys::partition_of,
};
use skywave_client::{ChannelEvent, Client, HistoryRange, SubscribeOptions, TransportChoice};
use skywave_protocol::{Channel, Json, frame::GapReason};
use skywave_testing::{RedisServer, eventually, node::broker::channel, soon};
use std::collections::BTreeSet;

/// Two regions, of which the first knows nothing: the second published so much before.
async fn newcomer(before: u64) -> Deployment {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    deployment.region_mut("eu").nodes.clear();
    for number in 1..=before {
        deployment.region("us").publish("chat:1", number).await;
        deployment.region("us").publish("bench:1", number).await;
    }
    // Until the node is gone, it goes on to fill its Redis.
    eventually("the end of the node", async || {
        let eu = &deployment.region("eu").redis;
        let clients: String = eu.run("CLIENT LIST").await;
        clients.lines().filter(|client| client.contains("name=skywave-commands")).count() == 1
    })
    .await;
    deployment.region("eu").redis.run::<()>("FLUSHALL").await;
    deployment
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_before_the_link_is_remembered_and_not_delivered() {
    let mut deployment = newcomer(30).await;
    let delivered = deployment.region("eu").ear.publications().len();
    deployment.add_node("eu").await;
    deployment.bridged("eu").await;
    assert!(history(&deployment, "eu").await.into_iter().eq(1..=30));
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    us.publish("chat:1", 31).await;
    us.publish("bench:1", 31).await;
    // More than once, as where a log is gone through again: subscribers pass over what they have.
    let expected = [("bench:1".to_owned(), 31), ("chat:1".to_owned(), 31)];
    eventually("what is new", async || {
        let new = eu.ear.publications().split_off(delivered);
        let new: BTreeSet<_> =
            new.iter().map(|one| (one.frame().channel.to_string(), one.frame().offset)).collect();
        assert!(new.iter().all(|one| expected.contains(one)), "{new:?}");
        new.len() == expected.len()
    })
    .await;
    assert!(history(&deployment, "eu").await.into_iter().eq(1..=31));
    // The times are those of the publications, not of the filling.
    let times = |chunk: skywave::broker::Chunk| -> Vec<_> {
        chunk.publications.iter().map(|one| one.frame().time_ms).collect()
    };
    let here = eu.ear.broker.read(&channel(), ReadFrom::Latest(100)).await.unwrap();
    let there = us.ear.broker.read(&channel(), ReadFrom::Latest(100)).await.unwrap();
    assert_eq!(times(here), times(there));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_begins_though_what_others_published_before_takes_long_to_come() {
    let mut deployment = newcomer(0).await;
    // All of them come on one connection.
    let channels = (0..).map(|number| Channel::new(&format!("chat:{number}")).unwrap());
    let channels: Vec<_> = channels.filter(|channel| partition_of(channel, 4) == 0).take(16).collect();
    for channel in channels.iter().cycle().take(4 * channels.len()) {
        let data = Json::parse(format!("\"{}\"", "x".repeat(16_000))).unwrap().into();
        let publish = Publish { channel: channel.clone(), data, key: None, user: None };
        soon(deployment.region("us").ear.broker.publish(publish)).await.unwrap();
    }
    deployment.path("eu", "us").set(|weather| weather.rate = Some(90_000));
    deployment.add_node("eu").await;
    deployment.bridged("eu").await;
    for channel in &channels {
        let chunk = deployment.region("eu").ear.broker.read(channel, ReadFrom::Latest(100)).await.unwrap();
        assert_eq!(chunk.publications.len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_subscribes_before_the_link_is_told_of_a_gap_and_gets_nothing_old() {
    for transport in [TransportChoice::WebTransport, TransportChoice::WebSocket] {
        let mut deployment = newcomer(30).await;
        let path = deployment.path("eu", "us");
        path.cut();
        deployment.add_node("eu").await;
        let (eu, us) = (deployment.region("eu"), deployment.region("us"));
        let client = eu.client(transport).await;
        let mut subscription = soon(client.subscribe("chat:1", SubscribeOptions::default())).await.unwrap();
        let subscribed = soon(subscription.next()).await;
        let Some(ChannelEvent::Subscribed(subscribed)) = subscribed else { panic!("{subscribed:?}") };
        let point = subscribed.position.get("us").unwrap();
        assert_eq!((&*point.epoch, point.offset), ("unknown", 0));
        deployment.path("eu", "us").heal();
        deployment.bridged("eu").await;
        let accepted = us.publish("chat:1", 31).await;
        let told = soon(subscription.next()).await;
        let Some(ChannelEvent::Gap(gap)) = told else { panic!("{told:?}") };
        assert_eq!((&*gap.origin, gap.reason, gap.offset), ("us", GapReason::EpochChanged, 30));
        let next = soon(subscription.next()).await;
        let Some(ChannelEvent::Publication(publication)) = next else { panic!("{next:?}") };
        assert_eq!((publication.offset, publication.epoch), (31, accepted.epoch));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_read_a_long_history_before_the_link_gets_nothing_old_either() {
    let mut deployment = newcomer(30).await;
    deployment.path("eu", "us").cut();
    deployment.add_node("eu").await;
    deployment.publish("eu", 1..=600).await;
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let options = SubscribeOptions { history: Some(600), ..SubscribeOptions::default() };
    let mut subscription = soon(client.subscribe("chat:1", options)).await.unwrap();
    let subscribed = soon(subscription.next()).await;
    assert!(matches!(subscribed, Some(ChannelEvent::Subscribed(_))), "{subscribed:?}");
    for number in 1..=600 {
        let next = soon(subscription.next()).await;
        assert!(matches!(next, Some(ChannelEvent::Publication(ref one)) if one.offset == number), "{next:?}");
    }
    deployment.path("eu", "us").heal();
    assert_eq!(gap(&mut subscription).await, ("us".to_owned(), GapReason::EpochChanged, 30));
    deployment.region("us").publish("chat:1", 31).await;
    expect(&mut subscription, 31..=31).await;
}

/// Deletes these keys of all partitions of a region.
async fn forget(deployment: &Deployment, name: &str, keys: &[&str]) {
    for partition in 0..4 {
        for key in keys {
            deployment.region(name).redis.run::<u64>(&format!("DEL sky:{{{partition}}}:{key}")).await;
        }
    }
}

/// How many parts of the channel's history `eu` was asked for, to find how far it goes; what scripts do is not among
/// them.
async fn looks(deployment: &Deployment) -> usize {
    let mut looks = 0;
    for partition in 0..4 {
        let history = format!("sky:{{{partition}}}:hist:chat:1");
        looks += deployment.region("eu").redis.given(&["XREVRANGE", &history]).await;
    }
    looks
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_channel_has_stood_since_before_its_history_nobody_looks_through_that_when_a_link_begins() {
    let mut deployment = newcomer(30).await;
    deployment.path("eu", "us").cut();
    deployment.add_node("eu").await;
    deployment.publish("eu", 101..=300).await;
    let redis = &deployment.region("eu").redis;
    redis.keep_commands().await;
    deployment.path("eu", "us").heal();
    deployment.bridged("eu").await;
    assert_eq!(looks(&deployment).await, 0);
    assert!(
        history(&deployment, "eu").await.into_iter().eq((1..=70).map(|number| number + 130).chain(1..=30))
    );
}

/// The numbers that a region tells of the channel's history.
async fn told(client: &Client) -> Vec<u64> {
    let page = soon(client.history("chat:1", HistoryRange::last(1_000))).await.unwrap();
    page.publications.iter().map(|one| number(&one.data)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_link_began_may_be_forgotten_though_others_publish_and_no_history_tells_anything_twice() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=3).await;
    deployment.deliveries("eu", 3).await;
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    forget(&deployment, "eu", &["cursor", "pos:chat:1"]).await;
    // More than are looked at at once.
    deployment.publish("eu", 4..=400).await;
    deployment.path("eu", "us").heal();
    deployment.bridged("eu").await;
    deployment.publish("us", 401..=401).await;
    deployment.deliveries("eu", 401).await;
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let told = told(&client).await;
    assert!(told.iter().copied().eq(1..=401), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_a_position_left_is_looked_through_once_in_however_many_parts_it_is_filled_in() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    // In `us`, what it published itself comes behind several parts that are all of another region.
    deployment.publish("eu", 1..=300).await;
    deployment.deliveries("us", 300).await;
    deployment.publish("us", 301..=303).await;
    deployment.deliveries("eu", 303).await;
    let redis = &deployment.region("eu").redis;
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    forget(&deployment, "eu", &["cursor", "pos:chat:1"]).await;
    deployment.publish("eu", 304..=500).await;
    deployment.publish("us", 501..=502).await;
    redis.keep_commands().await;
    deployment.path("eu", "us").heal();
    deployment.bridged("eu").await;
    // 32 entries at once.
    assert_eq!(looks(&deployment).await, 7);
    // A link that has begun brings what lies behind its cursor.
    eventually("the last", async || deployment.region("eu").numbers("chat:1", "us").last() == Some(&502))
        .await;
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let told = told(&client).await;
    assert!(told.iter().copied().eq(1..=502), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_brings_again_that_knows_less_than_the_one_before_stands_in_a_history_once() {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    deployment.add_node("eu").await;
    let leading = deployment.leader("eu", "us").unwrap();
    deployment.publish("us", 1..=3).await;
    let redis = &deployment.region("eu").redis;
    redis.keep_commands().await;
    let asked = async || redis.given(&["HGET", "sky:{3}:cursor", "us"]).await;
    eventually("a look at the cursors", async || asked().await >= 2).await;
    deployment.publish("us", 4..=6).await;
    deployment.deliveries("eu", 6).await;
    drop(deployment.region_mut("eu").nodes.remove(leading));
    forget(&deployment, "eu", &["cursor"]).await;
    deployment.bridged("eu").await;
    deployment.publish("us", 7..=7).await;
    let delivered = || deployment.region("eu").numbers("chat:1", "us").last() == Some(&7);
    eventually("the last publication", async || delivered()).await;
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let told = told(&client).await;
    assert!(told.iter().copied().eq(1..=7), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_link_began_may_be_forgotten_alone_and_no_history_tells_anything_twice() {
    // Alone, and together with where the channel stands.
    for gone in [&["cursor"][..], &["cursor", "pos:chat:1"]] {
        let servers = vec![("eu", RedisServer::start().await), ("us", RedisServer::durable().await)];
        let mut deployment = Deployment::on(servers, "", "").await;
        deployment.publish("us", 1..=3).await;
        deployment.region_mut("us").redis.restart().await;
        deployment.publish("us", 4..=6).await;
        deployment.deliveries("eu", 6).await;
        forget(&deployment, "eu", gone).await;
        deployment.publish("us", 7..=7).await;
        deployment.bridged("eu").await;
        deployment.deliveries("eu", 7).await;
        let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
        let told = told(&client).await;
        assert!(told.iter().copied().eq(1..=7), "{gone:?}: {told:?}");
        let options = SubscribeOptions { history: Some(100), ..SubscribeOptions::default() };
        let mut subscription = soon(client.subscribe("chat:1", options)).await.unwrap();
        deployment.publish("us", 8..=8).await;
        let mut got = Vec::new();
        while got.last() != Some(&8) {
            if let Some(ChannelEvent::Publication(one)) = soon(subscription.next()).await {
                got.push(number(&one.data));
            }
        }
        assert!(got.iter().copied().eq(1..=8), "{gone:?}: {got:?}");
    }
}
