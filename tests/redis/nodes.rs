//! Whole nodes on one Redis, and clients of them.

use skywave::{config::Config, server::Server};
use skywave_client::{
    ChannelEvent, Client, Json, Publication, SubscribeOptions, Subscription, TransportChoice,
};
use skywave_protocol::frame::{Gap, GapReason};
use skywave_testing::{
    RedisServer, eventually,
    node::{self, connect, options, url},
    soon,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const TRANSPORTS: [TransportChoice; 2] = [TransportChoice::WebTransport, TransportChoice::WebSocket];

fn config(redis: &RedisServer) -> Config {
    config_on(&redis.url())
}

pub fn config_on(url: &str) -> Config {
    config_with(url, &[])
}

/// With some keys set besides, as by environment.
pub fn config_with(url: &str, settings: &[(&str, &str)]) -> Config {
    let usual = [("CHANNELS__CHAT__HISTORY", "10000"), ("DRAIN__DEADLINE", "2s")];
    node::config(&[&node::sharing(url)[..], &usual, settings].concat())
}

async fn node(redis: &RedisServer) -> Server {
    node_of(&config(redis)).await
}

pub async fn node_of(config: &Config) -> Server {
    Server::start(config.clone()).await.unwrap()
}

pub async fn client(nodes: &[&Server], transport: TransportChoice) -> Client {
    connect(options(nodes.iter().map(|node| url(node)).collect(), transport)).await
}

pub async fn subscribe(client: &Client, channel: &str) -> Subscription {
    soon(client.subscribe(channel, SubscribeOptions::default())).await.unwrap()
}

pub fn json(number: u64) -> Json {
    Json::of(&number).unwrap()
}

pub fn number(publication: &Publication) -> u64 {
    format!("{:?}", publication.data).trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// The next publication; a subscription that is taken up again before it is passed over.
async fn publication(subscription: &mut Subscription) -> Publication {
    loop {
        match soon(subscription.next()).await {
            Some(ChannelEvent::Publication(publication)) => return publication,
            Some(ChannelEvent::Subscribed(subscribed)) => assert_ne!(subscribed.recovered, Some(false)),
            other => panic!("{other:?}"),
        }
    }
}

/// The next gap, before any publication.
async fn gap(subscription: &mut Subscription) -> Gap {
    loop {
        match soon(subscription.next()).await {
            Some(ChannelEvent::Gap(gap)) => return gap,
            // It stands all the while: nothing has to be recovered.
            Some(ChannelEvent::Subscribed(subscribed)) => assert_eq!(subscribed.recovered, None),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_on_one_node_is_received_on_the_other() {
    let redis = RedisServer::start().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    for transport in TRANSPORTS {
        let (publisher, subscriber) = (client(&[&here], transport).await, client(&[&there], transport).await);
        for channel in ["chat:1", "bench:1"] {
            let mut subscription = subscribe(&subscriber, channel).await;
            for value in 1..=20 {
                soon(publisher.publish(channel, json(value))).await.unwrap();
            }
            for value in 1..=20 {
                assert_eq!(number(&publication(&mut subscription).await), value);
            }
        }
        soon(publisher.emit("typing:1", json(1), None)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_the_other_node() {
    let redis = RedisServer::start().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    let (sender, receiver) = (client(&[&here], TRANSPORTS[0]).await, client(&[&there], TRANSPORTS[1]).await);
    let mut subscription = subscribe(&receiver, "typing:1").await;
    soon(sender.emit("typing:1", json(7), None)).await.unwrap();
    loop {
        if let Some(ChannelEvent::Event(event)) = soon(subscription.next()).await {
            assert_eq!(event.data, json(7).into());
            return;
        }
    }
}

/// Publishes on `channel` until it is told to stop; answers how many were acknowledged.
pub fn keep_publishing(
    client: Client,
    channel: &'static str,
    done: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut count = 0;
        while !done.load(Ordering::Acquire) {
            soon(client.publish(channel, json(count + 1))).await.unwrap();
            count += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        count
    })
}

/// Reads from `last` up to a number, or beyond it over a gap. What is missing has to be told: gives where it got to,
/// and whether something was.
pub async fn read_on(subscription: &mut Subscription, mut last: u64, until: u64) -> (u64, bool) {
    let (mut told, mut may_skip) = (false, false);
    while last < until {
        match soon(subscription.next()).await {
            Some(ChannelEvent::Publication(publication)) => {
                let number = number(&publication);
                assert!(number == last + 1 || may_skip && number > last, "{number} after {last}");
                (last, may_skip) = (number, false);
            }
            Some(ChannelEvent::Gap(gap)) => {
                assert_eq!((gap.reason, gap.offset), (GapReason::EpochChanged, 0));
                (may_skip, told) = (true, true);
            }
            Some(ChannelEvent::Subscribed(subscribed)) => assert_eq!(subscribed.recovered, None),
            other => panic!("{other:?}"),
        }
    }
    (last, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_with_another_node_when_its_own_drains() {
    for transport in TRANSPORTS {
        let redis = RedisServer::start().await;
        let (current, other) = (node(&redis).await, node(&redis).await);
        let done = Arc::new(AtomicBool::new(false));
        let publisher = client(&[&other], transport).await;
        let publishing = keep_publishing(publisher, "chat:1", done.clone());
        let subscriber = client(&[&current, &other], transport).await;
        let mut subscription = subscribe(&subscriber, "chat:1").await;
        let first = number(&publication(&mut subscription).await);
        let mut next = first + 1;
        let draining = async {
            soon(current.drain()).await;
            // Long enough on the other node for a gap to show.
            tokio::time::sleep(Duration::from_millis(300)).await;
            done.store(true, Ordering::Release);
        };
        let reading = async {
            let mut seen = Vec::new();
            loop {
                tokio::select! {
                    received = publication(&mut subscription) => seen.push(number(&received)),
                    () = eventually("the end", async || done.load(Ordering::Acquire)) => return seen,
                }
            }
        };
        let ((), seen) = tokio::join!(draining, reading);
        let count = publishing.await.unwrap();
        for value in seen {
            assert_eq!(value, next);
            next += 1;
        }
        while next <= count {
            assert_eq!(number(&publication(&mut subscription).await), next);
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_with_another_node_when_its_own_is_gone() {
    for transport in TRANSPORTS {
        let redis = RedisServer::start().await;
        let (gone, other) = (node(&redis).await, node(&redis).await);
        let publisher = client(&[&other], transport).await;
        let subscriber = client(&[&gone, &other], transport).await;
        let mut subscription = subscribe(&subscriber, "chat:1").await;
        soon(publisher.publish("chat:1", json(1))).await.unwrap();
        assert_eq!(number(&publication(&mut subscription).await), 1);
        drop(gone);
        for value in 2..=200 {
            soon(publisher.publish("chat:1", json(value))).await.unwrap();
        }
        for value in 2..=200 {
            assert_eq!(number(&publication(&mut subscription).await), value);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_subscription_is_told_of_a_new_epoch_before_its_first_publication() {
    for transport in TRANSPORTS {
        let redis = RedisServer::start().await;
        let (here, there) = (node(&redis).await, node(&redis).await);
        let (publisher, subscriber) = (client(&[&here], transport).await, client(&[&there], transport).await);
        let mut subscription = subscribe(&subscriber, "chat:1").await;
        let before = soon(publisher.publish("chat:1", json(1))).await.unwrap();
        assert_eq!(number(&publication(&mut subscription).await), 1);
        redis.run::<()>("FLUSHALL").await;
        let after = soon(publisher.publish("chat:1", json(2))).await.unwrap();
        assert_ne!(before.epoch, after.epoch);
        let told = soon(subscription.next()).await.unwrap();
        let ChannelEvent::Gap(gap) = told else { panic!("{told:?}") };
        assert_eq!((gap.reason, gap.offset, gap.epoch), (GapReason::EpochChanged, 0, after.epoch));
        assert_eq!(number(&publication(&mut subscription).await), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_subscribers_are_told_of_a_new_epoch_without_a_publication() {
    let mut redis = RedisServer::start().await;
    let node = node(&redis).await;
    let client = client(&[&node], TRANSPORTS[1]).await;
    let mut subscriptions = Vec::new();
    for channel in ["chat:1", "chat:2", "bench:1"] {
        subscriptions.push(subscribe(&client, channel).await);
    }
    for restart in [false, true] {
        if restart {
            // The log is followed again before or after history can be read.
            redis.restart().await;
        } else {
            redis.run::<()>("FLUSHALL").await;
            redis.cut_connections().await;
        }
        for subscription in &mut subscriptions {
            let gap = gap(subscription).await;
            assert_eq!((gap.reason, gap.offset), (GapReason::EpochChanged, 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_thousand_channels_is_told_of_a_new_epoch_in_seconds() {
    let mut redis = RedisServer::start().await;
    let mut config = config(&redis);
    config.limits.channels_per_session = 1_000;
    let node = node_of(&config).await;
    let client = client(&[&node], TRANSPORTS[1]).await;
    let mut subscriptions = Vec::new();
    for channel in 0..1_000 {
        subscriptions.push(subscribe(&client, &format!("bench:{channel}")).await);
    }
    redis.restart().await;
    let told = async {
        for subscription in &mut subscriptions {
            gap(subscription).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), told)
        .await
        .expect("reading on takes the square of the channels");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_begins_an_epoch_is_delivered_after_the_gap_though_nothing_is_retained() {
    for transport in TRANSPORTS {
        let redis = RedisServer::start().await;
        let (here, there) = (node(&redis).await, node(&redis).await);
        let (publisher, subscriber) = (client(&[&here], transport).await, client(&[&there], transport).await);
        let mut subscription = subscribe(&subscriber, "bench:1").await;
        soon(publisher.publish("bench:1", json(1))).await.unwrap();
        assert_eq!(number(&publication(&mut subscription).await), 1);
        redis.run::<()>("FLUSHALL").await;
        for value in 2..=20 {
            soon(publisher.publish("bench:1", json(value))).await.unwrap();
        }
        let told = soon(subscription.next()).await.unwrap();
        let ChannelEvent::Gap(gap) = told else { panic!("{told:?}") };
        assert_eq!((gap.reason, gap.offset), (GapReason::EpochChanged, 0));
        for value in 2..=20 {
            assert_eq!(number(&publication(&mut subscription).await), value);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_to_redis_cost_clients_nothing() {
    for transport in TRANSPORTS {
        let redis = RedisServer::start().await;
        let (here, there) = (node(&redis).await, node(&redis).await);
        let (publisher, subscriber) = (client(&[&here], transport).await, client(&[&there], transport).await);
        let mut subscription = subscribe(&subscriber, "chat:1").await;
        let done = Arc::new(AtomicBool::new(false));
        let publishing = keep_publishing(publisher, "chat:1", done.clone());
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            redis.cut_connections().await;
        }
        done.store(true, Ordering::Release);
        let count = soon(publishing).await.unwrap();
        for value in 1..=count {
            assert_eq!(number(&publication(&mut subscription).await), value);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_restarts_with_its_data_costs_clients_nothing_but_the_news() {
    let mut redis = RedisServer::durable().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    let (publisher, subscriber) =
        (client(&[&here], TRANSPORTS[0]).await, client(&[&there], TRANSPORTS[1]).await);
    let mut subscription = subscribe(&subscriber, "chat:1").await;
    let done = Arc::new(AtomicBool::new(false));
    let publishing = keep_publishing(publisher, "chat:1", done.clone());
    let mut next = 1;
    let mut advance = async |until: u64| loop {
        if next > until {
            return None;
        }
        match soon(subscription.next()).await {
            Some(ChannelEvent::Publication(publication)) => {
                assert_eq!(number(&publication), next);
                next += 1;
            }
            Some(ChannelEvent::Gap(gap)) => return Some((gap.reason, gap.offset)),
            Some(ChannelEvent::Subscribed(subscribed)) => assert_eq!(subscribed.recovered, None),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(advance(20).await, None);
    for _ in 0..3 {
        redis.restart().await;
        assert_eq!(advance(u64::MAX).await, Some((GapReason::EpochChanged, 0)));
    }
    done.store(true, Ordering::Release);
    let count = soon(publishing).await.unwrap();
    assert_eq!(advance(count).await, None);
}

async fn readiness(node: &Server) -> (u16, String) {
    let url = format!("http://{}/readyz", node.admin().unwrap());
    let answer = soon(reqwest::get(url)).await.unwrap();
    (answer.status().as_u16(), soon(answer.text()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_not_ready_while_redis_is_away() {
    let mut redis = RedisServer::start().await;
    let node = node(&redis).await;
    assert_eq!(readiness(&node).await, (200, "ready".to_owned()));
    redis.kill();
    eventually("the loss", async || readiness(&node).await == (503, "broker_away".to_owned())).await;
    redis.relaunch().await;
    eventually("the return", async || readiness(&node).await.0 == 200).await;
}
