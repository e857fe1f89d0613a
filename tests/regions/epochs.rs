//! A region's Redis begins another life, of which the regions learn at different times.

use crate::{deployment::Deployment, patience::soon, server::RedisServer};
use skywave_client::{ChannelEvent, Client, SubscribeOptions, Subscription, TransportChoice};
use skywave_protocol::{Point, frame::GapReason};

/// With history, and without.
const CHANNELS: [&str; 2] = ["chat:1", "bench:1"];

/// Publishes these numbers in `us`; gives where the last one of each channel stands.
async fn publish(deployment: &Deployment, numbers: std::ops::RangeInclusive<u64>) -> Vec<Point> {
    let mut points = Vec::new();
    for channel in CHANNELS {
        let mut last = None;
        for number in numbers.clone() {
            let accepted = deployment.region("us").insist(channel, number, &number.to_string()).await;
            last = Some(Point { epoch: accepted.epoch, offset: accepted.offset });
        }
        points.extend(last);
    }
    points
}

/// Subscribes to what follows from now on.
async fn subscribe(client: &Client, channel: &str) -> Subscription {
    let mut subscription = soon(client.subscribe(channel, SubscribeOptions::default())).await.unwrap();
    let subscribed = soon(subscription.next()).await;
    assert!(matches!(subscribed, Some(ChannelEvent::Subscribed(_))), "{subscribed:?}");
    subscription
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_lost_of_a_channel_before_it_crossed_is_told_though_nothing_follows_it() {
    let servers = vec![("eu", RedisServer::durable().await), ("us", RedisServer::start().await)];
    let mut deployment = Deployment::on(servers, "", "").await;
    publish(&deployment, 1..=2).await;
    deployment.region("us").redis.run::<()>("SAVE").await;
    publish(&deployment, 3..=4).await;
    deployment.deliveries("eu", 8).await;
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let mut subscriptions = Vec::new();
    for channel in CHANNELS {
        subscriptions.push(subscribe(&client, channel).await);
    }
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    publish(&deployment, 5..=5).await;
    deployment.region_mut("us").redis.restart().await;
    deployment.path("eu", "us").heal();
    let mut told = Vec::new();
    for subscription in &mut subscriptions {
        let next = soon(subscription.next()).await;
        let Some(ChannelEvent::Gap(gap)) = next else { panic!("{next:?}") };
        assert_eq!((&*gap.origin, gap.reason, gap.offset), ("us", GapReason::EpochChanged, 0));
        told.push(gap.epoch);
    }
    // What follows belongs to what was told.
    let accepted = publish(&deployment, 6..=6).await;
    for (subscription, (told, accepted)) in subscriptions.iter_mut().zip(told.iter().zip(accepted)) {
        assert_eq!((&accepted.epoch, accepted.offset), (told, 1));
        let next = soon(subscription.next()).await;
        assert!(matches!(next, Some(ChannelEvent::Publication(ref one)) if one.offset == 1), "{next:?}");
    }
}
