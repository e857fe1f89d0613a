//! What a broker in memory forgets of its channels, and when.

use crate::world::{channel, head, memory, message, namespaces, offsets, publish};
use skywave::{
    broker::{Broker, Publish, ReadFrom, memory::MemoryBroker},
    host::Host,
    hub::{Hub, outbox::Outbox},
};
use skywave_protocol::{Channel, Text, form, frame::GapReason};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

#[tokio::test]
async fn a_channel_that_was_forgotten_begins_another_epoch() {
    let broker = memory(|_| {});
    publish(&*broker, 3).await;
    let before = head(&*broker).await;
    broker.expire(Instant::now() + Duration::from_secs(2 * 60 * 60));
    assert_eq!(broker.channels(), 0);
    let chunk = broker.read(&channel(), ReadFrom::Position(before)).await.unwrap();
    assert_eq!(chunk.lost[0].reason, GapReason::EpochChanged);
}

#[tokio::test]
async fn who_is_subscribed_loses_nothing_however_long_a_channel_is_quiet() {
    for history in [0, 10] {
        let hub = Arc::new(Hub::default());
        let namespaces = namespaces(|chat| chat.history = history);
        let broker = MemoryBroker::new(&Host::machine(), Text::new("eu").unwrap(), namespaces, hub.clone());
        let later = |minutes: u64| broker.expire(Instant::now() + Duration::from_secs(60 * minutes));
        let outbox = Arc::new(Outbox::new(&form::JSON, 65_536));
        let subscription = hub.join(channel(), &outbox, false);
        publish(&broker, 3).await;
        let position = head(&broker).await;
        later(120);
        later(24 * 60);
        // Nor whoever is away for a moment.
        drop(subscription);
        later(24 * 60 + 50);
        assert_eq!(head(&broker).await, position, "with a history of {history}");
        later(25 * 60);
        assert_eq!(broker.channels(), 0);
    }
}

#[tokio::test]
async fn forgetting_a_channel_leaves_those_alone_that_were_never_published_to() {
    let broker = memory(|_| {});
    let unused = Channel::new("chat:unused").unwrap();
    let read = async |from| broker.read(&unused, from).await.unwrap();
    let before = read(ReadFrom::Head).await.start;
    publish(&*broker, 3).await;
    broker.expire(Instant::now() + Duration::from_secs(2 * 60 * 60));
    assert_eq!(broker.channels(), 0);
    broker.publish(Publish { channel: unused.clone(), ..message(1, None) }).await.unwrap();
    let chunk = read(ReadFrom::Position(before)).await;
    assert_eq!((offsets(&chunk.publications), chunk.lost), (vec![1], vec![]));
}

#[tokio::test]
async fn reading_an_unused_channel_leaves_no_trace_in_memory() {
    let broker = memory(|_| {});
    let first = head(&*broker).await;
    assert_eq!(broker.channels(), 0);
    publish(&*broker, 1).await;
    let chunk = broker.read(&channel(), ReadFrom::Position(first)).await.unwrap();
    assert_eq!((offsets(&chunk.publications), chunk.lost), (vec![1], vec![]));
}

/// Channels of a name, so many that some of one name are sure to share a place of their epochs with some of another.
fn channels_of(name: &str) -> impl Iterator<Item = Channel> {
    (0..2_000).map(move |number| Channel::new(&format!("chat:{name} {number}")).unwrap())
}

#[tokio::test]
async fn who_waits_for_a_first_publication_loses_nothing_whichever_other_channels_are_forgotten() {
    let hub = Arc::new(Hub::default());
    let broker =
        MemoryBroker::new(&Host::machine(), Text::new("eu").unwrap(), namespaces(|_| {}), hub.clone());
    let outbox = Arc::new(Outbox::new(&form::JSON, 65_536));
    let (mut subscriptions, mut positions) = (Vec::new(), Vec::new());
    for channel in channels_of("quiet") {
        subscriptions.push(hub.join(channel.clone(), &outbox, false));
        positions.push(broker.read(&channel, ReadFrom::Head).await.unwrap().start);
    }
    let publish = async |channel| broker.publish(Publish { channel, ..message(1, None) }).await.unwrap();
    let forget = async |name, minutes: u64| {
        for channel in channels_of(name) {
            publish(channel).await;
        }
        broker.expire(Instant::now() + Duration::from_secs(60 * minutes));
    };
    forget("busy", 120).await;
    // Nor does who is away for a moment.
    drop(subscriptions);
    forget("busy too", 121).await;
    for (channel, position) in channels_of("quiet").zip(positions.clone()) {
        publish(channel.clone()).await;
        let chunk = broker.read(&channel, ReadFrom::Position(position)).await.unwrap();
        assert_eq!((offsets(&chunk.publications), chunk.lost), (vec![1], vec![]), "{channel}");
    }
}

#[tokio::test]
async fn who_waited_for_a_first_publication_in_vain_leaves_nothing_in_memory() {
    let hub = Arc::new(Hub::default());
    let broker =
        MemoryBroker::new(&Host::machine(), Text::new("eu").unwrap(), namespaces(|_| {}), hub.clone());
    let outbox = Arc::new(Outbox::new(&form::JSON, 65_536));
    let subscription = hub.join(channel(), &outbox, false);
    head(&broker).await;
    drop(subscription);
    assert_eq!(broker.channels(), 1);
    broker.expire(Instant::now() + Duration::from_secs(10 * 60));
    assert_eq!(broker.channels(), 0);
}
