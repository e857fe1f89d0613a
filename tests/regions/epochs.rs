//! A region's Redis begins another life, of which the regions learn at different times.

use crate::deployment::{CHANNEL, Deployment, ear, subscribe};
use skywave::redis::keys::partition_of;
use skywave_client::{ChannelEvent, Client, SubscribeOptions, Subscribed, Subscription, TransportChoice};
use skywave_protocol::{Channel, Point, Position, frame::GapReason, position::Origin};
use skywave_testing::{PATIENCE, RedisServer, cluster::is_linked, eventually, soon};
use tokio::time::timeout;

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

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_lost_of_a_channel_is_told_though_others_of_its_log_were_left_that_had_not_crossed() {
    let servers = vec![("eu", RedisServer::durable().await), ("us", RedisServer::start().await)];
    let mut deployment = Deployment::on(servers, "", "").await;
    publish(&deployment, 1..=2).await;
    deployment.deliveries("eu", 4).await;
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let mut subscription = subscribe(&client, "chat:1").await;
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    // In all its partitions.
    for number in 0..16 {
        deployment
            .region("us")
            .insist(&format!("chat:other {number}"), number, &format!("key {number}"))
            .await;
    }
    deployment.region("us").redis.run::<()>("SAVE").await;
    publish(&deployment, 3..=3).await;
    deployment.region_mut("us").redis.restart().await;
    deployment.path("eu", "us").heal();
    let next = soon(subscription.next()).await;
    let Some(ChannelEvent::Gap(gap)) = next else { panic!("{next:?}") };
    assert_eq!((&*gap.origin, gap.reason, gap.offset), ("us", GapReason::EpochChanged, 0));
}

/// Subscribes to what follows what was seen of `us`.
async fn take_up(client: &Client, channel: &str, seen: &Point) -> (Subscribed, Subscription) {
    let position = [(Origin::new("us").unwrap(), seen.clone())].into_iter().collect();
    let options = SubscribeOptions { position: Some(position), ..SubscribeOptions::default() };
    let mut subscription = soon(client.subscribe(channel, options)).await.unwrap();
    let subscribed = soon(subscription.next()).await;
    let Some(ChannelEvent::Subscribed(subscribed)) = subscribed else { panic!("{subscribed:?}") };
    (subscribed, subscription)
}

/// What a subscription gets until it stands at the publication `until`, and with it.
async fn gets(subscription: &mut Subscription, until: &Point) -> Vec<ChannelEvent> {
    let mut got = Vec::new();
    loop {
        // Once for the link, which doubts a server in an earlier life, and once for who saw a later one.
        let next = timeout(2 * PATIENCE, subscription.next()).await.unwrap().unwrap();
        let is_last = matches!(&next, ChannelEvent::Publication(one) if one.epoch == until.epoch && one.offset >= until.offset);
        got.push(next);
        if is_last {
            return got;
        }
    }
}

/// Subscribes in `eu` from where it stood before `us` published anything.
async fn come_back(client: &Client, channel: &str, before: &Position) -> Subscription {
    let options = SubscribeOptions { position: Some(before.clone()), ..SubscribeOptions::default() };
    let mut subscription = soon(client.subscribe(channel, options)).await.unwrap();
    let subscribed = soon(subscription.next()).await;
    assert!(matches!(subscribed, Some(ChannelEvent::Subscribed(_))), "{subscribed:?}");
    subscription
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_since_before_a_region_published_is_told_what_is_gone_of_its_life_that_is_over() {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let mut before = Vec::new();
    for channel in CHANNELS {
        let mut subscription = soon(client.subscribe(channel, SubscribeOptions::default())).await.unwrap();
        let subscribed = soon(subscription.next()).await;
        let Some(ChannelEvent::Subscribed(subscribed)) = subscribed else { panic!("{subscribed:?}") };
        assert!(subscribed.position.get("us").is_none(), "{subscribed:?}");
        before.push(subscribed.position);
    }
    publish(&deployment, 1..=2).await;
    deployment.deliveries("eu", 4).await;
    deployment.region_mut("us").redis.restart().await;
    // Nothing follows on one of them; the history of the other holds but what followed.
    let accepted = deployment.region("us").insist("chat:1", 3, "3").await;
    deployment.deliveries("eu", 5).await;
    let partition = partition_of(&Channel::new("chat:1").unwrap(), 4);
    let history = format!("XTRIM sky:{{{partition}}}:hist:chat:1 MAXLEN 1");
    deployment.region("eu").redis.run::<u64>(&history).await;
    for (channel, before) in CHANNELS.into_iter().zip(&before) {
        let mut subscription = come_back(&client, channel, before).await;
        let next = soon(subscription.next()).await;
        let Some(ChannelEvent::Gap(gap)) = next else { panic!("{channel}: {next:?}") };
        assert_eq!((&*gap.origin, gap.reason, gap.offset), ("us", GapReason::EpochChanged, 0));
        if channel == "chat:1" {
            assert_eq!(gap.epoch, accepted.epoch);
            let next = soon(subscription.next()).await;
            assert!(matches!(next, Some(ChannelEvent::Publication(ref one)) if one.offset == 1), "{next:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_a_new_epoch_and_goes_on_where_it_has_not_come_yet_gets_nothing_again() {
    let servers = vec![("eu", RedisServer::start().await), ("us", RedisServer::durable().await)];
    let mut deployment = Deployment::on(servers, "", "").await;
    publish(&deployment, 1..=2).await;
    deployment.deliveries("eu", 4).await;
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    // Still of the epoch that has come to the other region.
    publish(&deployment, 3..=3).await;
    deployment.region("us").redis.run::<()>("SAVE").await;
    deployment.region_mut("us").redis.restart().await;
    let seen = publish(&deployment, 4..=5).await;
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let mut subscriptions = Vec::new();
    for (channel, point) in CHANNELS.into_iter().zip(seen) {
        let (subscribed, subscription) = take_up(&client, channel, &point).await;
        assert_eq!((subscribed.recovered, subscribed.recovers), (Some(true), Some(0)));
        subscriptions.push(subscription);
    }
    deployment.path("eu", "us").heal();
    let last = publish(&deployment, 6..=6).await;
    for (subscription, last) in subscriptions.iter_mut().zip(last) {
        let got = gets(subscription, &last).await;
        assert!(matches!(&*got, [ChannelEvent::Publication(_)]), "{got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_begins_anew_with_a_clock_behind_is_heard_as_any_other() {
    let servers = vec![("eu", RedisServer::start().await), ("us", RedisServer::with_clock().await)];
    let mut deployment = Deployment::on(servers, "", "").await;
    let seen = publish(&deployment, 1..=2).await;
    deployment.deliveries("eu", 4).await;
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let mut standing = Vec::new();
    for channel in CHANNELS {
        standing.push(subscribe(&client, channel).await);
    }
    // Nobody is left who knows of the life before.
    deployment.region_mut("us").nodes.clear();
    deployment.region_mut("us").ear = ear("eu", &deployment.region("eu").redis).await;
    deployment.region("us").redis.set_clock(-3_600).await;
    deployment.region("us").redis.run::<()>("FLUSHALL").await;
    deployment.add_node("us").await;
    let last = publish(&deployment, 3..=4).await;
    for (subscription, last) in standing.iter_mut().zip(&last) {
        let got = gets(subscription, last).await;
        let [ChannelEvent::Gap(gap), rest @ ..] = &*got else { panic!("{got:?}") };
        assert_eq!((gap.reason, rest.len()), (GapReason::EpochChanged, 2), "{got:?}");
    }
    let returned = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let mut subscription = take_up(&returned, CHANNELS[0], &seen[0]).await.1;
    let got = gets(&mut subscription, &last[0]).await;
    assert!(matches!(&*got, [ChannelEvent::Gap(_), _, _]), "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_what_a_region_with_a_clock_behind_began_gets_nothing_again_where_it_has_not_come_yet() {
    let servers = vec![("eu", RedisServer::start().await), ("us", RedisServer::with_clock().await)];
    let deployment = Deployment::on(servers, "", "").await;
    publish(&deployment, 1..=2).await;
    deployment.deliveries("eu", 4).await;
    deployment.path("eu", "us").cut();
    deployment.path("eu", "us").reset();
    deployment.region("us").redis.set_clock(-3_600).await;
    deployment.region("us").redis.run::<()>("FLUSHALL").await;
    let seen = publish(&deployment, 3..=4).await;
    let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
    let mut subscriptions = Vec::new();
    for (channel, point) in CHANNELS.into_iter().zip(seen) {
        let (subscribed, subscription) = take_up(&client, channel, &point).await;
        assert_eq!((subscribed.recovered, subscribed.recovers), (Some(true), Some(0)), "{subscribed:?}");
        subscriptions.push(subscription);
    }
    deployment.path("eu", "us").heal();
    let last = publish(&deployment, 5..=5).await;
    for (subscription, last) in subscriptions.iter_mut().zip(last) {
        let got = gets(subscription, &last).await;
        assert!(matches!(&*got, [ChannelEvent::Publication(_)]), "{got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_a_life_that_nobody_else_knew_is_told_that_it_ended_though_the_next_has_an_earlier_name() {
    for loses_all in [false, true] {
        let servers = vec![("eu", RedisServer::start().await), ("us", RedisServer::with_clock().await)];
        let mut deployment = Deployment::on(servers, "", "").await;
        publish(&deployment, 1..=2).await;
        deployment.deliveries("eu", 4).await;
        deployment.path("eu", "us").cut();
        deployment.path("eu", "us").reset();
        deployment.region("us").redis.run::<()>("SAVE").await;
        deployment.region_mut("us").redis.restart().await;
        let seen = publish(&deployment, 3..=4).await;
        let client = deployment.region("eu").client(TransportChoice::WebSocket).await;
        let mut subscriptions = Vec::new();
        for (channel, point) in CHANNELS.into_iter().zip(&seen) {
            subscriptions.push(take_up(&client, channel, point).await.1);
        }
        // Nobody is left who knows of the life before.
        deployment.region_mut("us").nodes.clear();
        deployment.region_mut("us").ear = ear("eu", &deployment.region("eu").redis).await;
        deployment.region("us").redis.set_clock(-3_600).await;
        deployment.region("us").redis.run::<()>("FLUSHALL").await;
        if loses_all {
            deployment.region("eu").redis.run::<()>("FLUSHALL").await;
        }
        deployment.add_node("us").await;
        let last = publish(&deployment, 5..=6).await;
        deployment.path("eu", "us").heal();
        for (subscription, last) in subscriptions.iter_mut().zip(&last) {
            let got = gets(subscription, last).await;
            let of_us =
                |event: &&ChannelEvent| !matches!(event, ChannelEvent::Gap(gap) if &*gap.origin == "eu");
            let got: Vec<_> = got.iter().filter(of_us).collect();
            let [ChannelEvent::Gap(gap), rest @ ..] = &*got else { panic!("{got:?}") };
            assert_eq!((gap.reason, rest.len()), (GapReason::EpochChanged, 2), "{got:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_another_took_over_from_is_not_followed_again_though_whoever_is_asked_names_it() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (old, path) = (&deployment.region("us").redis, deployment.path("eu", "us"));
    deployment.publish("us", 1..=1).await;
    deployment.all_arrive("eu", "us", 1).await;
    let new = RedisServer::with(&["--replicaof", "127.0.0.1", &old.port().to_string()]).await;
    eventually("replication", async || is_linked(&new).await).await;
    new.run::<()>("REPLICAOF NO ONE").await;
    let lead_to = |server: &RedisServer| {
        path.lead_to(server.port());
        path.reset();
    };
    lead_to(&new);
    let successor = ear("us", &new).await;
    successor.publish(2).await;
    deployment.all_arrive("eu", "us", 2).await;
    lead_to(old);
    deployment.region("us").insist(CHANNEL, 9, "lost").await;
    let interruptions = || deployment.region("eu").node().node().metrics.links.of("us").interruptions.get();
    let before = interruptions();
    eventually("doubts", async || interruptions() >= before + 3).await;
    lead_to(&new);
    successor.publish(3).await;
    deployment.all_arrive("eu", "us", 3).await;
}
