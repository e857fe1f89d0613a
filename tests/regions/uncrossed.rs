//! What a region forgot before another had it is told to the other's subscribers.

use crate::{
    crossing::{expect, gap, publish},
    deployment::{Deployment, subscribe},
};
use skywave::broker::{Broker, ReadFrom};
use skywave_client::{ChannelEvent, Client, SubscribeOptions, Subscription, TransportChoice};
use skywave_protocol::{frame::GapReason, position::Epoch};
use skywave_testing::{eventually, node::broker::channel, soon};
use std::time::Duration;

/// Two regions, a subscriber in the first, and a Redis of the second that has forgotten all, some of which had not
/// crossed. The link is cut.
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
    path.set(|weather| weather.delay = Duration::from_millis(300));
    path.heal();
    let cursor = format!("sky:{{{}}}:cursor", us.node().node().broker.partition(&channel()));
    let fetches = async || eu.redis.run::<bool>(&format!("HEXISTS {cursor} us:replay")).await;
    eventually("the beginning", fetches).await;
    path.cut();
    path.reset();
    us.redis.run::<()>("FLUSHALL").await;
    path.set(|weather| weather.delay = Duration::ZERO);
    path.heal();
    begins_anew(&mut subscription).await;
}
