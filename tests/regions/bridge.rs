//! What is published in one region is delivered in the others: in order, each once.

use crate::deployment::{CHANNEL, Deployment, Region, subscribe};
use skywave::{
    broker::{Broker, Publish},
    region::keys::RegionKeys as _,
};
use skywave_client::{ChannelEvent, Json, Publication, SubscribeOptions, Subscription, TransportChoice};
use skywave_protocol::{Channel, Payload};
use skywave_testing::{eventually, node::broker::message, soon};

const TRANSPORTS: [TransportChoice; 2] = [TransportChoice::WebTransport, TransportChoice::WebSocket];

async fn publication(subscription: &mut Subscription) -> Publication {
    loop {
        match soon(subscription.next()).await {
            Some(ChannelEvent::Publication(publication)) => return publication,
            Some(ChannelEvent::Subscribed(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_two_regions_read_each_other_in_order() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    for transport in TRANSPORTS {
        let channel = format!("chat:{transport:?}");
        let (here, there) = (eu.client(transport).await, us.client(transport).await);
        let mut subscriptions = Vec::new();
        for client in [&here, &there] {
            subscriptions.push(soon(client.subscribe(&channel, SubscribeOptions::default())).await.unwrap());
        }
        let publishing = async |client: &skywave_client::Client| {
            for number in 1..=50_u64 {
                soon(client.publish(&channel, Json::of(&number).unwrap())).await.unwrap();
            }
        };
        tokio::join!(publishing(&here), publishing(&there));
        for subscription in &mut subscriptions {
            let mut next = std::collections::BTreeMap::new();
            for _ in 0..100 {
                let publication = publication(subscription).await;
                let offset = next.entry(publication.origin.to_string()).or_insert(0);
                *offset += 1;
                assert_eq!(publication.offset, *offset);
                assert_eq!(publication.data, Json::of(&*offset).unwrap().into());
            }
            assert_eq!(next.into_iter().collect::<Vec<_>>(), [("eu".into(), 50), ("us".into(), 50)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_heard_once_in_every_region() {
    let deployment = Deployment::start(&["eu", "us", "ap"]).await;
    let sender = deployment.region("eu").client(TRANSPORTS[0]).await;
    soon(sender.emit("typing:1", Json::of(&7).unwrap(), None)).await.unwrap();
    for name in ["us", "ap"] {
        let ear = &deployment.region(name).ear;
        eventually("the event", async || !ear.events().is_empty()).await;
    }
    // Events are said in order: had the first gone in circles, it would be there again by now.
    soon(sender.emit("typing:1", Json::of(&8).unwrap(), None)).await.unwrap();
    for name in ["eu", "us", "ap"] {
        let ear = &deployment.region(name).ear;
        eventually("the event", async || ear.events().len() >= 2).await;
        let data: Vec<_> = ear.events().iter().map(|event| event.frame().data.clone()).collect();
        assert_eq!(data, [Json::of(&7).unwrap().into(), Json::of(&8).unwrap().into()], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_crosses_with_all_that_belongs_to_it() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    let bytes: Vec<u8> = (0..=255).collect();
    let publish = Publish {
        channel: Channel::new("chat:1").unwrap(),
        data: Payload::Binary(bytes.into()),
        key: Some(skywave_protocol::Text::new("k:1 ü").unwrap()),
        user: Some("alice".into()),
    };
    soon(eu.node().node().publish(publish)).await.unwrap();
    deployment.deliveries("eu", 1).await;
    deployment.deliveries("us", 1).await;
    assert_eq!(eu.ear.publications()[0].frame(), us.ear.publications()[0].frame());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_known_in_every_region() {
    let deployment = Deployment::start(&["eu", "us", "ap"]).await;
    let first = deployment.region("eu").try_publish("chat:1", 1, Some("k")).await.unwrap();
    for name in ["us", "ap"] {
        deployment.deliveries(name, 1).await;
        let again = deployment.region(name).try_publish("chat:1", 1, Some("k")).await.unwrap();
        assert!(again.duplicate);
        assert_eq!((&again.origin, &again.epoch, again.offset), (&first.origin, &first.epoch, first.offset));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_regions_deliver_everything_once_and_nothing_goes_in_circles() {
    const COUNT: u64 = 300;
    let deployment = Deployment::start(&["eu", "us", "ap"]).await;
    let publishing = async |name: &str| {
        for number in 1..=COUNT {
            deployment.region(name).publish("chat:1", number).await;
            deployment.region(name).publish(&format!("bench:{}", number % 7), number).await;
        }
    };
    tokio::join!(publishing("eu"), publishing("us"), publishing("ap"));
    let all = usize::try_from(3 * 2 * COUNT).unwrap();
    for region in &deployment.regions {
        region.ear.deliveries(all).await;
        for origin in ["eu", "us", "ap"] {
            assert!(region.numbers("chat:1", origin).into_iter().eq(1..=COUNT), "{} {origin}", region.name);
            let offsets: Vec<_> =
                region.delivered("bench:3").into_iter().filter(|one| one.0 == origin).collect();
            assert!(offsets.iter().map(|one| one.2).eq(1..=offsets.len() as u64));
        }
        assert_eq!(region.ear.publications().len(), all);
        for partition in 0..4 {
            let held: u64 = region.redis.run(&format!("XLEN sky:{{{partition}}}:log")).await;
            assert!(held <= all as u64);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_accepts_that_knows_no_other_region_yet_crosses_all_the_same() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    // The ear is configured with no other region, as a node that still has to be restarted with one.
    for number in 1..=100 {
        soon(eu.ear.broker.publish(message("chat:1", number, None))).await.unwrap();
        soon(eu.ear.broker.publish(message("bench:1", number, None))).await.unwrap();
    }
    us.ear.deliveries(200).await;
    for channel in ["chat:1", "bench:1"] {
        assert!(us.numbers(channel, "eu").into_iter().eq(1..=100), "{channel}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_subscribed_loses_nothing_however_long_the_region_that_publishes_is_quiet() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    let client = eu.client(TRANSPORTS[1]).await;
    let mut subscription = subscribe(&client, CHANNEL).await;
    deployment.publish("us", 1..=1).await;
    assert_eq!(publication(&mut subscription).await.offset, 1);
    let key = eu.ear.redis.keys.position(&Channel::new(CHANNEL).unwrap());
    let left = async |region: &Region| region.redis.run_words::<u64>(&["PTTL", &key]).await;
    let whole = left(us).await;
    for region in [eu, us] {
        // As after some days on which nothing was published.
        region.redis.run_words::<u64>(&["PEXPIRE", &key, &(whole / 2).to_string()]).await;
    }
    // So often whoever is subscribed comes again at least.
    let coming_again = eu.client(TRANSPORTS[1]).await;
    drop(subscribe(&coming_again, CHANNEL).await);
    for region in [eu, us] {
        eventually("the renewal", async || left(region).await > whole * 9 / 10).await;
    }
    deployment.publish("us", 2..=2).await;
    assert_eq!(publication(&mut subscription).await.offset, 2);
}
