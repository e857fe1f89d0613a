//! What everything above a broker relies on; each broker passes the same tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

#[path = "redis/cluster.rs"]
mod cluster;
#[path = "broker/forgetting.rs"]
mod forgetting;
#[path = "redis/patience.rs"]
mod patience;
#[path = "redis/server.rs"]
mod server;

use cluster::RedisCluster;
use patience::eventually;
use server::RedisServer;
use skywave::{
    broadcast::{Broadcast, Event, Publication},
    broker::{
        Broker, BrokerError, Delivery, MAX_CHUNK, PageLimit, PageOf, Publish, ReadFrom,
        memory::MemoryBroker,
        redis::{Options, RedisBroker},
    },
    config::{Config, NamespaceConfig, Secret},
    metrics::Metrics,
    redis::{Address, Redis},
    scripts,
};
use skywave_protocol::{
    Channel, Json, Payload, Point, Position, Text,
    frame::{self, GapReason},
};
use std::{
    any::Any,
    collections::BTreeMap,
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Redis,
    Cluster,
}

/// Makes a test for each broker of an `async fn(Kind)`.
macro_rules! on_every_broker {
    ($($test:ident,)+) => {
        $(mod $test {
            use super::Kind;
            #[tokio::test]
            async fn memory() {
                super::$test(Kind::Memory).await;
            }
            #[tokio::test]
            async fn redis() {
                super::$test(Kind::Redis).await;
            }
            #[tokio::test]
            async fn cluster() {
                super::$test(Kind::Cluster).await;
            }
        })+
    };
}

#[derive(Default)]
struct Recorder {
    publications: Mutex<Vec<Arc<Publication>>>,
    events: Mutex<Vec<Arc<Event>>>,
}

impl Recorder {
    fn publications(&self) -> Vec<Arc<Publication>> {
        self.publications.lock().unwrap().clone()
    }
}

impl Delivery for Recorder {
    fn publication(&self, publication: &Arc<Publication>) {
        self.publications.lock().unwrap().push(publication.clone());
    }

    fn event(&self, event: &Arc<Event>) {
        self.events.lock().unwrap().push(event.clone());
    }

    fn uncertain(&self, _: &dyn Fn(&Channel) -> bool) {
        panic!("a broker in memory loses nothing while it lives");
    }

    fn is_followed(&self, _: &Channel) -> bool {
        false
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

fn memory(change: impl FnOnce(&mut NamespaceConfig)) -> Arc<MemoryBroker> {
    let broker = MemoryBroker::new(Text::new("eu").unwrap(), namespaces(change), Arc::<Recorder>::default());
    Arc::new(broker)
}

/// A broker, what it delivers, and what it needs.
struct World {
    broker: Arc<dyn Broker>,
    recorder: Arc<Recorder>,
    _redis: Option<Box<dyn Any + Send>>,
}

impl Deref for World {
    type Target = dyn Broker;
    fn deref(&self) -> &Self::Target {
        &*self.broker
    }
}

/// The URL of a Redis, a prefix for keys that nobody else has, and what is to be kept meanwhile.
async fn redis_of(kind: Kind) -> (String, String, Box<dyn Any + Send>) {
    static TESTS: AtomicUsize = AtomicUsize::new(0);
    let prefix = format!("sky{}", TESTS.fetch_add(1, Ordering::Relaxed));
    if kind == Kind::Cluster {
        let cluster = RedisCluster::shared().await;
        (cluster.url(), prefix, Box::new(cluster))
    } else {
        let server = RedisServer::start().await;
        (server.url(), prefix, Box::new(server))
    }
}

impl World {
    async fn new(kind: Kind) -> Self {
        Self::with(kind, |_| {}).await
    }

    async fn with(kind: Kind, change: impl FnOnce(&mut NamespaceConfig)) -> Self {
        let recorder = Arc::new(Recorder::default());
        let (origin, namespaces) = (Text::new("eu").unwrap(), namespaces(change));
        if kind == Kind::Memory {
            let broker = Arc::new(MemoryBroker::new(origin, namespaces, recorder.clone()));
            return Self { broker, recorder, _redis: None };
        }
        let (url, prefix, keep) = redis_of(kind).await;
        let region = origin.clone();
        let address =
            Address { url: Secret::new(url), ca: None, prefix, partitions: 4, region, scripts: scripts::ALL };
        let redis = Redis::connect(&address, "commands", Metrics::new().unwrap().redis).await.unwrap();
        let options = Options {
            log_age: Duration::from_secs(60),
            origin,
            namespaces,
            others: std::collections::BTreeMap::new(),
        };
        let broker = Arc::new(RedisBroker::start(redis, options, recorder.clone()).await.unwrap());
        Self { broker, recorder, _redis: Some(keep) }
    }

    /// The offsets of the first `count` publications that are delivered.
    async fn delivered(&self, count: usize) -> Vec<u64> {
        eventually("delivery", async || self.recorder.publications().len() >= count).await;
        offsets(&self.recorder.publications())
    }
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
    broker.read(&channel(), ReadFrom::Head).await.unwrap().start
}

fn at(position: &Position, offset: u64) -> Position {
    let point = position.get("eu").unwrap();
    [(Text::new("eu").unwrap(), Point { epoch: point.epoch.clone(), offset })].into_iter().collect()
}

on_every_broker! {
    offsets_begin_at_one_and_have_no_gap,
    a_known_key_is_answered_with_its_first_position_and_published_once,
    a_key_is_remembered_though_many_others_follow,
    a_key_outlives_a_shorter_history,
    reading_after_a_position_brings_exactly_what_followed,
    an_absent_origin_means_from_its_beginning,
    what_was_trimmed_is_told_and_the_rest_recovered,
    a_position_of_another_epoch_is_told,
    a_position_from_the_future_is_told,
    a_namespace_without_history_recovers_nothing_and_says_so,
    the_last_few_begin_where_asked,
    history_is_paged_backward_by_cursor,
    a_page_keeps_within_its_bytes_but_is_never_empty,
    a_page_says_whether_more_is_retained,
    a_foreign_cursor_is_refused,
    an_unknown_namespace_is_refused,
    events_are_delivered_and_not_remembered,
    publications_expire_with_age,
    a_publication_is_delivered_and_remembered_as_it_was_made,
    publications_take_effect_in_the_order_of_the_calls,
    a_long_history_is_read_in_chunks,
    the_last_many_are_read_in_chunks_as_well,
    large_publications_are_read_part_by_part,
    channels_do_not_mix,
    who_read_an_unused_channel_gets_its_first_publication,
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

async fn history_is_paged_backward_by_cursor(kind: Kind) {
    let broker = World::new(kind).await;
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

async fn a_page_keeps_within_its_bytes_but_is_never_empty(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 5).await;
    let limit = PageLimit { publications: 100, bytes: 3 };
    let page = broker.history(&channel(), PageOf::Last, limit).await.unwrap();
    assert_eq!(offsets(&page.publications), [3, 4, 5]);
    let limit = PageLimit { publications: 100, bytes: 0 };
    let page = broker.history(&channel(), PageOf::After(Position::new()), limit).await.unwrap();
    assert_eq!(offsets(&page.publications), [1]);
}

async fn a_page_says_whether_more_is_retained(kind: Kind) {
    let broker = World::new(kind).await;
    publish(&*broker, 5).await;
    let after = |offset, position: &Position| PageOf::After(at(position, offset));
    let position = head(&*broker).await;
    // Each payload has one byte.
    let limit = |publications, bytes| PageLimit { publications, bytes };
    for (page, limit, more) in [
        (PageOf::Last, limit(4, 100), true),
        (PageOf::Last, limit(5, 100), false),
        (PageOf::Last, limit(10, 3), true),
        (after(0, &position), limit(4, 100), true),
        (after(0, &position), limit(10, 3), true),
        (after(0, &position), limit(5, 100), false),
        (after(2, &position), limit(3, 3), false),
        (after(5, &position), limit(3, 3), false),
    ] {
        let read = broker.history(&channel(), page.clone(), limit).await.unwrap();
        assert_eq!(read.more, more, "{page:?} {limit:?}");
    }
}

async fn a_foreign_cursor_is_refused(kind: Kind) {
    let broker = World::new(kind).await;
    let limit = PageLimit { publications: 2, bytes: 1000 };
    let cursor = PageOf::Before(Text::new("nonsense").unwrap());
    let refused = broker.history(&channel(), cursor, limit).await;
    assert_eq!(refused.unwrap_err(), BrokerError::BadCursor);
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
    eventually("delivery", async || broker.recorder.events.lock().unwrap().len() == 1).await;
    assert_eq!(broker.recorder.events.lock().unwrap()[0].frame(), &event);
    assert!(broker.read(&channel(), ReadFrom::Latest(10)).await.unwrap().publications.is_empty());
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

async fn who_read_an_unused_channel_gets_its_first_publication(kind: Kind) {
    let broker = World::new(kind).await;
    let first = head(&*broker).await;
    publish(&*broker, 1).await;
    let chunk = broker.read(&channel(), ReadFrom::Position(first)).await.unwrap();
    assert_eq!((offsets(&chunk.publications), chunk.lost), (vec![1], vec![]));
}
