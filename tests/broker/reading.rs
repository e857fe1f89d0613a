//! Reading on from a position, and what it tells of what is lost.

use crate::{
    on_every_broker,
    world::{Kind, World, at, channel, head, message, offsets, publish},
};
use skywave::broker::{MAX_CHUNK, Publish, ReadFrom};
use skywave_protocol::{Json, Point, Position, Text, frame::GapReason};
use skywave_testing::eventually;
use std::time::Duration;

on_every_broker! {
    reading_after_a_position_brings_exactly_what_followed,
    an_absent_origin_means_from_its_beginning,
    what_was_trimmed_is_told_and_the_rest_recovered,
    a_position_of_another_epoch_is_told,
    a_position_from_the_future_is_told,
    a_namespace_without_history_recovers_nothing_and_says_so,
    the_last_few_begin_where_asked,
    publications_expire_with_age,
    a_long_history_is_read_in_chunks,
    the_last_many_are_read_in_chunks_as_well,
    large_publications_are_read_part_by_part,
    who_read_an_unused_channel_gets_its_first_publication,
}

async fn reading_after_a_position_brings_exactly_what_followed(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 5).await;
    let position = at(&head(&*broker).await, 2);
    let chunk = broker.read(&channel(), ReadFrom::Position(position.clone())).await.unwrap();
    assert_eq!(offsets(&chunk.publications), [3, 4, 5]);
    assert_eq!(chunk.start, position);
    assert!(chunk.complete && chunk.lost.is_empty());
}

async fn an_absent_origin_means_from_its_beginning(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 2).await;
    let chunk = broker.read(&channel(), ReadFrom::Position(Position::new())).await.unwrap();
    assert_eq!(offsets(&chunk.publications), [1, 2]);
    assert!(chunk.lost.is_empty());
}

async fn what_was_trimmed_is_told_and_the_rest_recovered(kind: Kind) {
    let broker = World::with(kind, |chat| chat.history = 3).await;
    publish(&*broker, 10).await;
    let position = at(&head(&*broker).await, 2);
    let chunk = broker.read(&channel(), ReadFrom::Position(position)).await.unwrap();
    assert_eq!(chunk.lost[0].reason, GapReason::Trimmed);
    assert_eq!(chunk.lost[0].point.offset, 7);
    assert_eq!(offsets(&chunk.publications), [8, 9, 10]);
}

async fn a_position_of_another_epoch_is_told(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 2).await;
    let old = Point { epoch: Text::new("old").unwrap(), offset: 40 };
    let position = [(Text::new("eu").unwrap(), old)].into_iter().collect();
    let chunk = broker.read(&channel(), ReadFrom::Position(position)).await.unwrap();
    assert_eq!(chunk.lost[0].reason, GapReason::EpochChanged);
    assert_eq!(chunk.lost[0].point, *at(&head(&*broker).await, 0).get("eu").unwrap());
    assert_eq!(offsets(&chunk.publications), [1, 2]);
}

async fn a_position_from_the_future_is_told(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 2).await;
    let position = at(&head(&*broker).await, 9);
    let chunk = broker.read(&channel(), ReadFrom::Position(position)).await.unwrap();
    assert_eq!((chunk.lost[0].reason, chunk.lost[0].point.offset), (GapReason::UnknownPosition, 2));
    assert!(chunk.publications.is_empty());
}

async fn a_namespace_without_history_recovers_nothing_and_says_so(kind: Kind) {
    let broker = World::with(kind, |chat| chat.history = 0).await;
    publish(&*broker, 3).await;
    let position = at(&head(&*broker).await, 1);
    let chunk = broker.read(&channel(), ReadFrom::Position(position)).await.unwrap();
    assert_eq!((chunk.lost[0].reason, chunk.lost[0].point.offset), (GapReason::Trimmed, 3));
    assert!(chunk.publications.is_empty() && chunk.complete);
}

async fn the_last_few_begin_where_asked(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 5).await;
    let chunk = broker.read(&channel(), ReadFrom::Latest(2)).await.unwrap();
    assert_eq!(offsets(&chunk.publications), [4, 5]);
    assert_eq!(chunk.start, at(&head(&*broker).await, 3));
    let all = broker.read(&channel(), ReadFrom::Latest(1000)).await.unwrap();
    assert_eq!(offsets(&all.publications), [1, 2, 3, 4, 5]);
}

async fn publications_expire_with_age(kind: Kind) {
    let broker = World::with(kind, |chat| chat.history_age = Duration::from_millis(200)).await;
    publish(&*broker, 3).await;
    eventually("expiry", async || {
        let chunk = broker.read(&channel(), ReadFrom::Position(Position::new())).await.unwrap();
        chunk.lost.first().is_some_and(|lost| (lost.reason, lost.point.offset) == (GapReason::Trimmed, 3))
    })
    .await;
    assert_eq!(broker.publish(message(4, None)).await.unwrap().offset, 4);
}

async fn a_long_history_is_read_in_chunks(kind: Kind) {
    let broker = World::with(kind, |chat| chat.history = 2000).await;
    futures_util::future::try_join_all((1..=1500).map(|number| broker.publish(message(number, None))))
        .await
        .unwrap();
    let mut position = at(&head(&*broker).await, 99);
    let mut seen = Vec::new();
    loop {
        let chunk = broker.read(&channel(), ReadFrom::Position(position.clone())).await.unwrap();
        assert!(chunk.lost.is_empty() && chunk.publications.len() <= MAX_CHUNK);
        // A session may have room for a part of it only.
        let taken = chunk.publications.len().min(100);
        seen.extend(offsets(&chunk.publications[..taken]));
        if chunk.complete && taken == chunk.publications.len() {
            break;
        }
        position = at(&position, *seen.last().unwrap());
    }
    assert!(seen.into_iter().eq(100..=1500));
}

async fn the_last_many_are_read_in_chunks_as_well(kind: Kind) {
    let broker = World::with(kind, |chat| chat.history = 2000).await;
    futures_util::future::try_join_all((1..=1500).map(|number| broker.publish(message(number, None))))
        .await
        .unwrap();
    let first = broker.read(&channel(), ReadFrom::Latest(1000)).await.unwrap();
    assert_eq!(first.start.get("eu").unwrap().offset, 500);
    assert!(!first.complete && offsets(&first.publications).into_iter().eq(501..=756));
    assert_eq!(first.follows, Some(1000));
}

async fn large_publications_are_read_part_by_part(kind: Kind) {
    let broker = World::with(kind, |chat| chat.history = 100).await;
    let large = || Publish { data: Json::of(&"x".repeat(60_000)).unwrap().into(), ..message(0, None) };
    for _ in 1..=40 {
        broker.publish(large()).await.unwrap();
    }
    let position = at(&head(&*broker).await, 5);
    for (from, first) in [(ReadFrom::Latest(30), 11), (ReadFrom::Position(position), 6)] {
        let mut chunk = broker.read(&channel(), from).await.unwrap();
        let mut position = chunk.start.clone();
        let mut seen = Vec::new();
        loop {
            assert!(chunk.lost.is_empty());
            seen.extend(offsets(&chunk.publications));
            position = at(&position, *seen.last().unwrap());
            if chunk.complete {
                break;
            }
            chunk = broker.read(&channel(), ReadFrom::Position(position.clone())).await.unwrap();
        }
        assert!(seen.iter().copied().eq(first..=40), "{seen:?}");
    }
}

async fn who_read_an_unused_channel_gets_its_first_publication(kind: Kind) {
    let broker = World::new(kind).await;
    let first = head(&*broker).await;
    publish(&*broker, 1).await;
    let chunk = broker.read(&channel(), ReadFrom::Position(first)).await.unwrap();
    assert_eq!((offsets(&chunk.publications), chunk.lost), (vec![1], vec![]));
}
