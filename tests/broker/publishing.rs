//! What is published: where it stands, how often, for whom.

use crate::{
    on_every_broker,
    world::{Kind, World, channel, message, offsets, publish},
};
use skywave::{
    broadcast::Broadcast,
    broker::{BrokerError, Publish, ReadFrom},
};
use skywave_protocol::{Channel, Json, Payload, Text, frame};
use skywave_testing::eventually;
use std::{sync::Arc, time::Duration};

on_every_broker! {
    offsets_begin_at_one_and_have_no_gap,
    a_known_key_is_answered_with_its_first_position_and_published_once,
    a_key_is_remembered_though_many_others_follow,
    a_key_outlives_a_shorter_history,
    an_unknown_namespace_is_refused,
    events_are_delivered_and_not_remembered,
    a_publication_is_delivered_and_remembered_as_it_was_made,
    publications_take_effect_in_the_order_of_the_calls,
    channels_do_not_mix,
}

async fn offsets_begin_at_one_and_have_no_gap(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 3).await;
    assert_eq!(broker.delivered(3).await, [1, 2, 3]);
}

async fn a_known_key_is_answered_with_its_first_position_and_published_once(kind: Kind) {
    let broker = World::new(kind).await;
    let first = broker.publish(message(1, Some("k"))).await.unwrap();
    publish(&*broker, 2).await;
    let second = broker.publish(message(1, Some("k"))).await.unwrap();
    assert!(!first.duplicate && second.duplicate);
    assert_eq!((first.offset, first.epoch), (second.offset, second.epoch));
    publish(&*broker, 1).await;
    assert_eq!(broker.delivered(4).await, [1, 2, 3, 4]);
}

async fn a_key_is_remembered_though_many_others_follow(kind: Kind) {
    let broker = World::new(kind).await;
    let first = broker.publish(message(0, Some("first"))).await.unwrap();
    for thousand in 0..11 {
        let keyed = |number: u64| broker.publish(message(number, Some(&format!("{thousand} {number}"))));
        futures_util::future::try_join_all((0..1000).map(keyed)).await.unwrap();
    }
    let again = broker.publish(message(0, Some("first"))).await.unwrap();
    assert!(again.duplicate && again.offset == first.offset);
}

async fn a_key_outlives_a_shorter_history(kind: Kind) {
    let broker = World::with(kind, |chat| chat.history_age = Duration::from_millis(100)).await;
    let first = broker.publish(message(1, Some("k"))).await.unwrap();
    eventually("expiry", async || {
        let latest = broker.read(&channel(), ReadFrom::Latest(1)).await.unwrap();
        latest.publications.is_empty()
    })
    .await;
    let again = broker.publish(message(1, Some("k"))).await.unwrap();
    assert_eq!((again.duplicate, again.offset), (true, first.offset));
}

async fn an_unknown_namespace_is_refused(kind: Kind) {
    let broker = World::new(kind).await;
    let channel = Channel::new("nowhere:1").unwrap();
    let refused = broker.read(&channel, ReadFrom::Head).await.unwrap_err();
    assert_eq!(refused, BrokerError::UnknownNamespace("nowhere".into()));
}

async fn events_are_delivered_and_not_remembered(kind: Kind) {
    let broker = World::new(kind).await;
    let event = frame::Event {
        channel: channel(),
        session: Text::new("s").unwrap(),
        user: Some("alice".into()),
        slot: Some(Text::new("cursor").unwrap()),
        data: Payload::Binary(vec![0, 255].into()),
    };
    broker.emit(Broadcast::new(event.clone())).unwrap();
    eventually("delivery", async || broker.recorder.events().len() == 1).await;
    assert_eq!(broker.recorder.events()[0].frame(), &event);
    assert!(broker.read(&channel(), ReadFrom::Latest(10)).await.unwrap().publications.is_empty());
}

async fn a_publication_is_delivered_and_remembered_as_it_was_made(kind: Kind) {
    let broker = World::new(kind).await;
    let payloads =
        [Json::parse(r#"{"text":"hé"}"#).unwrap().into(), Payload::Binary(vec![0, 200, 13, 10].into())];
    for (data, key, user) in [(&payloads[0], Some("k:1"), Some("alice")), (&payloads[1], None, None)] {
        let publish = Publish {
            channel: channel(),
            data: data.clone(),
            key: key.map(|key| Text::new(key).unwrap()),
            user: user.map(Arc::from),
        };
        broker.publish(publish).await.unwrap();
    }
    let remembered = broker.read(&channel(), ReadFrom::Latest(2)).await.unwrap().publications;
    broker.delivered(2).await;
    for publications in [remembered.clone(), broker.recorder.publications()] {
        let frames: Vec<_> = publications.iter().map(|publication| publication.frame().clone()).collect();
        assert_eq!((&frames[0].data, &frames[1].data), (&payloads[0], &payloads[1]));
        assert_eq!((frames[0].key.as_deref(), frames[0].user.as_deref()), (Some("k:1"), Some("alice")));
        assert_eq!((frames[1].key.as_deref(), frames[1].user.as_deref()), (None, None));
        assert_eq!((&*frames[0].channel, &*frames[0].origin), ("chat:1", "eu"));
        assert!(frames[0].time_ms > 1_700_000_000_000 && frames[0].time_ms <= frames[1].time_ms);
    }
    assert_eq!(remembered[0].frame(), broker.recorder.publications()[0].frame());
}

async fn publications_take_effect_in_the_order_of_the_calls(kind: Kind) {
    let broker = World::with(kind, |chat| chat.history = 1000).await;
    let publishing: Vec<_> = (1..=1000).map(|number| broker.publish(message(number, None))).collect();
    // Read after they were made, though none has been awaited.
    let read = broker.read(&channel(), ReadFrom::Latest(1));
    let mut accepted = Vec::new();
    for publish in publishing.into_iter().rev() {
        accepted.push(publish.await.unwrap().offset);
    }
    assert!(accepted.iter().rev().copied().eq(1..=1000));
    assert_eq!(offsets(&read.await.unwrap().publications), [1000]);
}

async fn channels_do_not_mix(kind: Kind) {
    let broker = World::new(kind).await;
    for number in 1..=20 {
        let channel = Channel::new(&format!("chat:{number}")).unwrap();
        let accepted = broker.publish(Publish { channel, ..message(number, Some("same")) }).await.unwrap();
        assert_eq!((accepted.offset, accepted.duplicate), (1, false));
    }
    let channel = Channel::new("chat:7").unwrap();
    let last = broker.read(&channel, ReadFrom::Latest(10)).await.unwrap().publications;
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].frame().data, Json::parse("7").unwrap().into());
}
