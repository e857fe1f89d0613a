//! What everything above a broker relies on; each broker passes the same tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

use skywave::{
    broadcast::{Broadcast, Event, Publication},
    broker::{Broker, BrokerError, Delivery, From, PageLimit, PageOf, Publish, memory::MemoryBroker},
    config::{Config, NamespaceConfig},
};
use skywave_protocol::{
    Channel, Json, Point, Position, Text,
    frame::{self, GapReason},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

#[derive(Default)]
struct Recorder {
    publications: Mutex<Vec<(u64, String)>>,
    events: Mutex<usize>,
}

impl Delivery for Recorder {
    fn publication(&self, publication: &Arc<Publication>) {
        let frame = publication.frame();
        self.publications.lock().unwrap().push((frame.offset, format!("{:?}", frame.data)));
    }

    fn event(&self, _: &Arc<Event>) {
        *self.events.lock().unwrap() += 1;
    }
}

fn namespaces(change: impl FnOnce(&mut NamespaceConfig)) -> BTreeMap<String, NamespaceConfig> {
    let mut namespaces = Config::load(None, true, [] as [(&str, &str); 0]).unwrap().channels;
    let chat = namespaces.get_mut("chat").unwrap();
    chat.history = 10;
    chat.history_age = Duration::from_secs(60);
    change(chat);
    namespaces
}

fn memory(change: impl FnOnce(&mut NamespaceConfig)) -> (Arc<MemoryBroker>, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let broker = MemoryBroker::new(Text::new("eu").unwrap(), namespaces(change), recorder.clone());
    (Arc::new(broker), recorder)
}

fn channel() -> Channel {
    Channel::new("chat:1").unwrap()
}

fn message(number: u64, key: Option<&str>) -> Publish {
    Publish {
        channel: channel(),
        data: Json::parse(number.to_string()).unwrap().into(),
        key: key.map(|key| Text::new(key).unwrap()),
        user: None,
    }
}

async fn publish(broker: &dyn Broker, count: u64) {
    for number in 1..=count {
        broker.publish(message(number, None)).await.unwrap();
    }
}

fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
    publications.iter().map(|publication| publication.frame().offset).collect()
}

async fn head(broker: &dyn Broker) -> Position {
    broker.read(&channel(), From::Head).await.unwrap().start
}

fn at(position: &Position, offset: u64) -> Position {
    let point = position.get("eu").unwrap();
    [(Text::new("eu").unwrap(), Point { epoch: point.epoch.clone(), offset })].into_iter().collect()
}

#[tokio::test]
async fn offsets_begin_at_one_and_have_no_gap() {
    let (broker, recorder) = memory(|_| {});
    publish(&*broker, 3).await;
    let delivered = recorder.publications.lock().unwrap().clone();
    assert_eq!(delivered.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_known_key_is_answered_with_its_first_position_and_published_once() {
    let (broker, recorder) = memory(|_| {});
    let first = broker.publish(message(1, Some("k"))).await.unwrap();
    publish(&*broker, 2).await;
    let second = broker.publish(message(1, Some("k"))).await.unwrap();
    assert!(!first.duplicate && second.duplicate);
    assert_eq!((first.offset, first.epoch), (second.offset, second.epoch));
    assert_eq!(recorder.publications.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn reading_after_a_position_brings_exactly_what_followed() {
    let (broker, _) = memory(|_| {});
    publish(&*broker, 5).await;
    let position = at(&head(&*broker).await, 2);
    let chunk = broker.read(&channel(), From::Position(position.clone())).await.unwrap();
    assert_eq!(offsets(&chunk.publications), [3, 4, 5]);
    assert_eq!(chunk.start, position);
    assert!(chunk.complete && chunk.lost.is_empty());
}

#[tokio::test]
async fn an_absent_origin_means_from_its_beginning() {
    let (broker, _) = memory(|_| {});
    publish(&*broker, 2).await;
    let chunk = broker.read(&channel(), From::Position(Position::new())).await.unwrap();
    assert_eq!(offsets(&chunk.publications), [1, 2]);
    assert!(chunk.lost.is_empty());
}

#[tokio::test]
async fn what_was_trimmed_is_told_and_the_rest_recovered() {
    let (broker, _) = memory(|chat| chat.history = 3);
    publish(&*broker, 10).await;
    let position = at(&head(&*broker).await, 2);
    let chunk = broker.read(&channel(), From::Position(position)).await.unwrap();
    assert_eq!(chunk.lost[0].reason, GapReason::Trimmed);
    assert_eq!(chunk.lost[0].point.offset, 7);
    assert_eq!(offsets(&chunk.publications), [8, 9, 10]);
}

#[tokio::test]
async fn a_position_of_another_epoch_is_told() {
    let (broker, _) = memory(|_| {});
    publish(&*broker, 2).await;
    let old = Point { epoch: Text::new("old").unwrap(), offset: 40 };
    let position = [(Text::new("eu").unwrap(), old)].into_iter().collect();
    let chunk = broker.read(&channel(), From::Position(position)).await.unwrap();
    assert_eq!(chunk.lost[0].reason, GapReason::EpochChanged);
    assert_eq!(chunk.lost[0].point, *at(&head(&*broker).await, 0).get("eu").unwrap());
    assert_eq!(offsets(&chunk.publications), [1, 2]);
}

#[tokio::test]
async fn a_position_from_the_future_is_told() {
    let (broker, _) = memory(|_| {});
    publish(&*broker, 2).await;
    let position = at(&head(&*broker).await, 9);
    let chunk = broker.read(&channel(), From::Position(position)).await.unwrap();
    assert_eq!((chunk.lost[0].reason, chunk.lost[0].point.offset), (GapReason::UnknownPosition, 2));
    assert!(chunk.publications.is_empty());
}

#[tokio::test]
async fn a_namespace_without_history_recovers_nothing_and_says_so() {
    let (broker, _) = memory(|chat| chat.history = 0);
    publish(&*broker, 3).await;
    let position = at(&head(&*broker).await, 1);
    let chunk = broker.read(&channel(), From::Position(position)).await.unwrap();
    assert_eq!((chunk.lost[0].reason, chunk.lost[0].point.offset), (GapReason::Trimmed, 3));
    assert!(chunk.publications.is_empty() && chunk.complete);
}

#[tokio::test]
async fn the_last_few_begin_where_asked() {
    let (broker, _) = memory(|_| {});
    publish(&*broker, 5).await;
    let chunk = broker.read(&channel(), From::Latest(2)).await.unwrap();
    assert_eq!(offsets(&chunk.publications), [4, 5]);
    assert_eq!(chunk.start, at(&head(&*broker).await, 3));
    let all = broker.read(&channel(), From::Latest(1000)).await.unwrap();
    assert_eq!(offsets(&all.publications), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn history_is_paged_backward_by_cursor() {
    let (broker, _) = memory(|_| {});
    publish(&*broker, 5).await;
    let limit = PageLimit { publications: 2, bytes: 1000 };
    let mut page = broker.history(&channel(), PageOf::Last, limit).await.unwrap();
    let mut seen = vec![offsets(&page.publications)];
    while let Some(cursor) = page.cursor {
        page = broker.history(&channel(), PageOf::Before(cursor), limit).await.unwrap();
        seen.push(offsets(&page.publications));
    }
    assert_eq!(seen, [vec![4, 5], vec![2, 3], vec![1]]);
}

#[tokio::test]
async fn a_page_keeps_within_its_bytes_but_is_never_empty() {
    let (broker, _) = memory(|_| {});
    publish(&*broker, 5).await;
    let limit = PageLimit { publications: 100, bytes: 3 };
    let page = broker.history(&channel(), PageOf::Last, limit).await.unwrap();
    assert_eq!(offsets(&page.publications), [3, 4, 5]);
    let limit = PageLimit { publications: 100, bytes: 0 };
    let page = broker.history(&channel(), PageOf::After(Position::new()), limit).await.unwrap();
    assert_eq!(offsets(&page.publications), [1]);
}

#[tokio::test]
async fn a_foreign_cursor_is_refused() {
    let (broker, _) = memory(|_| {});
    let limit = PageLimit { publications: 2, bytes: 1000 };
    let cursor = PageOf::Before(Text::new("nonsense").unwrap());
    let refused = broker.history(&channel(), cursor, limit).await;
    assert_eq!(refused.unwrap_err(), BrokerError::BadCursor);
}

#[tokio::test]
async fn an_unknown_namespace_is_refused() {
    let (broker, _) = memory(|_| {});
    let channel = Channel::new("nowhere:1").unwrap();
    let refused = broker.read(&channel, From::Head).await.unwrap_err();
    assert_eq!(refused, BrokerError::UnknownNamespace("nowhere".into()));
}

#[tokio::test]
async fn events_are_delivered_and_not_remembered() {
    let (broker, recorder) = memory(|_| {});
    let event = frame::Event {
        channel: channel(),
        session: Text::new("s").unwrap(),
        user: None,
        slot: None,
        data: Json::parse("1").unwrap().into(),
    };
    broker.emit(Broadcast::new(event)).await.unwrap();
    assert_eq!(*recorder.events.lock().unwrap(), 1);
    assert!(broker.read(&channel(), From::Latest(10)).await.unwrap().publications.is_empty());
}

#[tokio::test]
async fn publications_expire_with_age() {
    let (broker, _) = memory(|chat| chat.history_age = Duration::from_secs(5));
    publish(&*broker, 3).await;
    broker.expire(Instant::now() + Duration::from_secs(6));
    let chunk = broker.read(&channel(), From::Position(Position::new())).await.unwrap();
    assert_eq!((chunk.lost[0].reason, chunk.lost[0].point.offset), (GapReason::Trimmed, 3));
}

#[tokio::test]
async fn a_channel_that_was_forgotten_begins_another_epoch() {
    let (broker, _) = memory(|_| {});
    publish(&*broker, 3).await;
    let before = head(&*broker).await;
    broker.expire(Instant::now() + Duration::from_secs(2 * 60 * 60));
    assert_eq!(broker.channels(), 0);
    let chunk = broker.read(&channel(), From::Position(before)).await.unwrap();
    assert_eq!(chunk.lost[0].reason, GapReason::EpochChanged);
}

#[tokio::test]
async fn reading_an_unused_channel_leaves_no_trace() {
    let (broker, _) = memory(|_| {});
    let first = head(&*broker).await;
    assert_eq!(broker.channels(), 0);
    publish(&*broker, 1).await;
    let chunk = broker.read(&channel(), From::Position(first)).await.unwrap();
    assert_eq!((offsets(&chunk.publications), chunk.lost), (vec![1], vec![]));
}
