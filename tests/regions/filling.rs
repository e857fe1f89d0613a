//! What a region knows of another when its cursor is lost or the other's log no longer reaches back to it.

use crate::{
    deployment::{Deployment, subscribe},
    json_socket::JsonSocket,
    patience::{eventually, soon},
    server::RedisServer,
    world::channel,
};
use futures_util::future::join_all;
use serde_json::json;
use skywave::{
    broker::{Broker, Publish, ReadFrom},
    redis::keys::partition_of,
};
use skywave_client::{ChannelEvent, Client, HistoryRange, SubscribeOptions, Subscription, TransportChoice};
use skywave_protocol::{Channel, Json, Payload, frame::GapReason, position::Epoch};
use std::{
    collections::{BTreeSet, HashMap},
    ops::RangeInclusive,
    time::Duration,
};

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

async fn history(deployment: &Deployment, name: &str) -> Vec<u64> {
    let chunk = deployment.region(name).ear.broker.read(&channel(), ReadFrom::Latest(100)).await.unwrap();
    chunk.publications.iter().map(|publication| publication.frame().offset).collect()
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
    deployment.path("eu", "us").narrow(90_000);
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

/// How many parts of the channel's history `eu` was asked for, to find how far it goes; what scripts do is not among them.
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

/// The number that was published.
fn number(data: &Payload) -> u64 {
    format!("{data:?}").trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

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

/// With history, and without.
const CHANNELS: [&str; 2] = ["chat:1", "bench:1"];

/// Publishes these numbers in `us`.
async fn publish(deployment: &Deployment, numbers: RangeInclusive<u64>) {
    for number in numbers {
        for channel in CHANNELS {
            deployment.region("us").publish(channel, number).await;
        }
    }
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

/// The next event, which is a gap: origin, reason, offset.
async fn gap(subscription: &mut Subscription) -> (String, GapReason, u64) {
    let event = soon(subscription.next()).await;
    let Some(ChannelEvent::Gap(gap)) = event else { panic!("{event:?}") };
    (gap.origin.to_string(), gap.reason, gap.offset)
}

/// The next events are these publications of `us`.
async fn expect(subscription: &mut Subscription, offsets: RangeInclusive<u64>) {
    for offset in offsets {
        let event = soon(subscription.next()).await;
        let Some(ChannelEvent::Publication(publication)) = event else { panic!("{offset}: {event:?}") };
        assert_eq!((&*publication.origin, publication.offset), ("us", offset));
    }
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
    let link = eu.node().node().metrics.link("us");
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
        let link = eu.node().node().metrics.link("us");
        eventually("the count", async || (link.gaps.get(), link.repaired.get()) == (1, 4)).await;
        us.publish("bench:1", 6).await;
        let next = soon(subscription.next()).await;
        assert!(matches!(next, Some(ChannelEvent::Publication(ref one)) if one.offset == 6), "{next:?}");
    }
}

/// Two regions, a subscriber in the first, and a Redis of the second that has forgotten all, some of which had not crossed.
/// The link is cut.
async fn forgotten() -> (Deployment, Client, Subscription) {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    publish(&deployment, 1..=2).await;
    eu.ear.deliveries(4).await;
    let client = eu.client(TransportChoice::WebSocket).await;
    let subscription = subscribe(&client, "chat:1").await;
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    publish(&deployment, 3..=4).await;
    us.redis.run::<()>("FLUSHALL").await;
    (deployment, client, subscription)
}

/// The subscriber is told that the channel begins anew; gives the epoch.
async fn begins_anew(subscription: &mut Subscription) -> Epoch {
    let told = soon(subscription.next()).await;
    let Some(ChannelEvent::Gap(gap)) = told else { panic!("{told:?}") };
    assert_eq!((&*gap.origin, gap.reason, gap.offset), ("us", GapReason::EpochChanged, 0));
    gap.epoch
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_forgot_before_it_crossed_is_told_though_nothing_follows_it() {
    let (deployment, _client, mut subscription) = forgotten().await;
    let us = deployment.region("us");
    deployment.path("eu", "us").heal();
    let epoch = begins_anew(&mut subscription).await;
    // What follows belongs to what was told.
    let accepted = us.publish("chat:1", 5).await;
    assert_eq!((&accepted.epoch, accepted.offset), (&epoch, 1));
    let next = soon(subscription.next()).await;
    assert!(matches!(next, Some(ChannelEvent::Publication(ref one)) if one.offset == 1), "{next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_forgot_before_it_crossed_is_told_though_this_one_forgot_everything_as_well() {
    let (deployment, _client, mut subscription) = forgotten().await;
    deployment.region("eu").redis.run::<()>("FLUSHALL").await;
    assert_eq!(gap(&mut subscription).await.0, "eu");
    deployment.path("eu", "us").heal();
    let epoch = begins_anew(&mut subscription).await;
    let accepted = deployment.region("us").publish("chat:1", 5).await;
    assert_eq!((&accepted.epoch, accepted.offset), (&epoch, 1));
    expect(&mut subscription, 1..=1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_forgot_is_told_to_who_saw_some_of_it_there_and_goes_on_where_nothing_has_crossed() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    publish(&deployment, 1..=2).await;
    let seen = us.ear.broker.read(&channel(), ReadFrom::Head).await.unwrap().start;
    let options = SubscribeOptions { position: Some(seen), ..SubscribeOptions::default() };
    let client = eu.client(TransportChoice::WebSocket).await;
    let mut subscription = soon(client.subscribe("chat:1", options)).await.unwrap();
    let subscribed = soon(subscription.next()).await;
    let Some(ChannelEvent::Subscribed(subscribed)) = subscribed else { panic!("{subscribed:?}") };
    assert_eq!(subscribed.recovered, Some(true));
    publish(&deployment, 3..=4).await;
    us.redis.run::<()>("FLUSHALL").await;
    deployment.path("eu", "us").heal();
    begins_anew(&mut subscription).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_forgot_before_it_crossed_is_told_though_somebody_there_has_read_the_channel_since() {
    let (deployment, _client, mut subscription) = forgotten().await;
    let us = deployment.region("us");
    // Of all its partitions channels begin, so many that this one cannot be told from them.
    for number in 0..16 {
        us.insist(&format!("chat:other {number}"), number, &format!("key {number}")).await;
    }
    for partition in 0..4 {
        let bits = vec![255_u8; 262_144 / 8];
        let begun = format!("sky:{{{partition}}}:begun");
        us.redis.run_words::<u64>(&[b"SETRANGE".as_slice(), begun.as_bytes(), b"0", &bits]).await;
    }
    let there = us.ear.broker.read(&channel(), ReadFrom::Head).await.unwrap().start;
    let goes_on = there.get("us").unwrap();
    assert_eq!(goes_on.offset, 0);
    deployment.path("eu", "us").heal();
    begins_anew(&mut subscription).await;
    let accepted = us.publish("chat:1", 5).await;
    assert_eq!((&accepted.epoch, accepted.offset), (&goes_on.epoch, 1));
    // It goes on in an epoch of its own, of which nobody here knew.
    assert_eq!(begins_anew(&mut subscription).await, accepted.epoch);
    expect(&mut subscription, 1..=1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_forgot_while_it_was_fetched_from_there_is_told_though_nothing_follows_it() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    publish(&deployment, 1..=2).await;
    eu.ear.deliveries(4).await;
    let client = eu.client(TransportChoice::WebSocket).await;
    let mut subscription = subscribe(&client, "chat:1").await;
    let path = deployment.path("eu", "us");
    path.cut();
    path.reset();
    publish(&deployment, 3..=4).await;
    eu.redis.run::<()>("FLUSHALL").await;
    assert_eq!(gap(&mut subscription).await.0, "eu");
    // So slow that the link has begun, and nothing was fetched yet.
    path.delay(Duration::from_millis(300));
    path.heal();
    let cursor = format!("sky:{{{}}}:cursor", us.node().node().broker.partition(&channel()));
    let fetches = async || eu.redis.run::<bool>(&format!("HEXISTS {cursor} us:replay")).await;
    eventually("the beginning", fetches).await;
    path.cut();
    path.reset();
    us.redis.run::<()>("FLUSHALL").await;
    path.delay(Duration::ZERO);
    path.heal();
    begins_anew(&mut subscription).await;
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
