//! Channels whose publications one region orders for all.

use crate::deployment::{Deployment, Region};
use serde_json::{Value, json};
use skywave::broker::BrokerError;
use skywave_client::{ChannelEvent, Json, SubscribeOptions, Subscription, TransportChoice};
use skywave_testing::{JsonSocket, eventually, soon};
use std::collections::BTreeSet;

const CHANNEL: &str = "vote:1";
/// `eu` orders what is published on these channels.
const ORDERED: &str =
    "\n[channels.vote]\nhistory = 1000\npresence = false\norder = \"home\"\nhome = \"eu\"\n";

async fn regions() -> Deployment {
    Deployment::with(&["eu", "us", "ap"], ORDERED).await
}

/// So many publications of a subscription: their origin, epoch, offset and payload.
async fn take(subscription: &mut Subscription, count: usize) -> Vec<(String, String, u64, String)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        match soon(subscription.next()).await {
            Some(ChannelEvent::Publication(one)) => taken.push((
                one.origin.to_string(),
                one.epoch.to_string(),
                one.offset,
                format!("{:?}", one.data),
            )),
            Some(ChannelEvent::Subscribed(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    taken
}

/// The offsets that a region's nodes were given, in order; all are the home's.
fn offsets(region: &Region) -> Vec<u64> {
    let delivered = region.delivered(CHANNEL);
    assert!(delivered.iter().all(|one| one.0 == "eu"), "{delivered:?}");
    delivered.into_iter().map(|one| one.2).collect()
}

async fn session(region: &Region) -> JsonSocket {
    let mut socket = JsonSocket::open(region.node().plain().unwrap()).await;
    socket.send(json!({"connect": {"id": 1}})).await;
    socket.receive("connected").await;
    socket
}

fn publish(id: u64) -> Value {
    json!({"publish": {"id": id, "channel": CHANNEL, "data": 1, "key": "k"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn all_subscribers_of_all_regions_see_one_order_whoever_publishes_where() {
    const COUNT: u64 = 100;
    let deployment = regions().await;
    let mut subscriptions = Vec::new();
    let mut clients = Vec::new();
    for region in &deployment.regions {
        for transport in [TransportChoice::WebTransport, TransportChoice::WebSocket] {
            let client = region.client(transport).await;
            let subscribing = client.subscribe(CHANNEL, SubscribeOptions::default());
            subscriptions.push(soon(subscribing).await.unwrap());
            clients.push(client);
        }
    }
    let publishing = clients.iter().enumerate().map(async |(publisher, client)| {
        let mut last = 0;
        for number in 0..COUNT {
            let data = Json::of(&(publisher, number)).unwrap();
            let published = soon(client.publish(CHANNEL, data)).await.unwrap();
            assert_eq!(&*published.origin, "eu");
            assert!(published.offset > last);
            last = published.offset;
        }
    });
    futures_util::future::join_all(publishing).await;

    let all = clients.len() * usize::try_from(COUNT).unwrap();
    let expected = take(&mut subscriptions[0], all).await;
    assert!(expected.iter().map(|one| one.2).eq(1..=all as u64));
    assert_eq!(expected.iter().map(|one| &one.3).collect::<BTreeSet<_>>().len(), all);
    for subscription in &mut subscriptions[1..] {
        assert_eq!(take(subscription, all).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_home_is_away_a_publish_elsewhere_is_answered_so_and_its_retry_is_delivered_once() {
    let deployment = regions().await;
    let us = deployment.region("us");
    let mut socket = session(us).await;
    let path = deployment.path("us", "eu");
    path.cut();
    path.reset();
    // The first may be on its way when the connection breaks, the second meets none.
    for id in 2..=3 {
        socket.send(publish(id)).await;
        let error = socket.receive("error").await;
        assert_eq!(error["id"], id);
        assert_eq!((&error["code"], &error["transient"]), (&json!(110), &json!(true)), "{error}");
    }
    path.heal();
    let mut id = 3;
    let published = loop {
        id += 1;
        socket.send(publish(id)).await;
        let answer = socket.frame().await;
        match answer.get("published") {
            Some(published) => break published.clone(),
            None => assert_eq!(answer["error"]["code"], 110, "{answer}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!((&published["origin"], &published["offset"]), (&json!("eu"), &json!(1)));
    us.publish(CHANNEL, 2).await;
    for region in &deployment.regions {
        eventually("the second", async || offsets(region).len() >= 2).await;
        assert_eq!(offsets(region), [1, 2], "{}", region.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_whose_answer_was_lost_is_delivered_once_though_it_is_retried_in_another_region() {
    let deployment = regions().await;
    let us = deployment.region("us");
    // It arrives, and nothing comes back.
    deployment.path("us", "eu").set(|weather| weather.tcp_replies = false);
    assert_eq!(us.try_publish(CHANNEL, 1, Some("k")).await, Err(BrokerError::Unavailable));
    let accepted = deployment.region("ap").insist(CHANNEL, 1, "k").await;
    assert!(accepted.duplicate);
    assert_eq!((&*accepted.origin, accepted.offset), ("eu", 1));
    deployment.path("us", "eu").heal();
    assert_eq!(us.insist(CHANNEL, 1, "k").await, accepted);
    us.publish(CHANNEL, 2).await;
    for region in &deployment.regions {
        eventually("the second", async || offsets(region).len() >= 2).await;
        assert_eq!(offsets(region), [1, 2], "{}", region.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_home_goes_on_alone_and_the_others_get_all_of_it_when_they_are_back() {
    let deployment = regions().await;
    let eu = deployment.region("eu");
    deployment.region("us").publish(CHANNEL, 1).await;
    for path in deployment.paths.values() {
        path.cut();
        path.reset();
    }
    for number in 2..=100 {
        eu.publish(CHANNEL, number).await;
    }
    eventually("the home's own", async || offsets(eu).len() == 100).await;
    assert_eq!(deployment.region("us").try_publish(CHANNEL, 0, None).await, Err(BrokerError::Unavailable));
    // What the home does not order goes on where it was.
    deployment.region("us").publish("chat:1", 1).await;
    for path in deployment.paths.values() {
        path.heal();
    }
    deployment.region("ap").insist(CHANNEL, 101, "k").await;
    for region in &deployment.regions {
        eventually("all", async || offsets(region).len() >= 101).await;
        assert!(offsets(region).into_iter().eq(1..=101), "{}: {:?}", region.name, offsets(region));
        assert_eq!(region.delivered(CHANNEL), eu.delivered(CHANNEL));
    }
}
