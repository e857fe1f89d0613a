//! The broker of a region: its nodes share a Redis, which orders publications and remembers them.
//!
//! A publication is one script call, atomic in Redis: it gets its offset, and an entry in the log of its
//! partition and in its channel's history. Every node follows all logs, and so delivers all publications in
//! the same order, its own among them.

mod cache;
pub mod doubts;
pub mod entry;
pub mod epoch;
pub mod events;
mod lag;
mod marks;
mod progress;
mod promises;
mod reading;
mod recovery;
pub mod retention;
mod tail;

use super::{Accepted, Broker, BrokerError, Chunk, Delivery, From, Page, PageLimit, PageOf, Publish};
use crate::{
    broadcast::Event,
    config::{NamespaceConfig, Order},
    redis::{
        ConnectError, Malformed, Redis, Request, Script, StreamId, connection::TIMEOUT, pulse::Pulse, reply,
        subscription::Subscription,
    },
};
use cache::{Cache, CacheLimit};
use doubts::Doubts;
use epoch::{is_later, life_of};
use events::Events;
use futures_util::future::{self, BoxFuture};
use marks::Marks;
use parking_lot::Mutex;
use progress::Progress;
use promises::Promises;
pub use reading::point_of;
use reading::{CHUNK, Reading, Retained, is_of, read_cursor};
use recovery::{ChunkLimit, Head};
use redis::Value;
use retention::{LOG_LENGTH, Retention};
use skywave_protocol::{Channel, Point, Position, Text, position::Origin};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tail::{Feed, Tail};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
};

/// The most readers of histories who ask Redis at a time, when many resume: publications go between them. Each holds half
/// a megabyte at most. Partitions have equal parts, so that those whose server does not answer leave the others room.
const MAX_READERS: usize = 64;
/// Of each partition at least.
const MIN_READERS: usize = 4;

/// What a [`RedisBroker`] is made of.
pub struct Options {
    /// How long the log is kept.
    pub log_age: Duration,
    /// The region's name.
    pub origin: Origin,
    pub namespaces: BTreeMap<String, NamespaceConfig>,
    /// The other regions, and the Redis of each.
    pub others: BTreeMap<Origin, Redis>,
}

/// A node's part in the region's broker. Its connections end when it is dropped.
pub struct RedisBroker {
    origin: Origin,
    namespaces: BTreeMap<String, NamespaceConfig>,
    others: BTreeMap<Origin, Redis>,
    redis: Redis,
    log_age: Duration,
    resuming: Arc<Resuming>,
    /// A connection of its own: what is read may be large, and publishing does not wait behind it.
    _reading: Redis,
    /// Of the connections on which this node gets what others publish and emit.
    following: Vec<Arc<Pulse>>,
    _tasks: JoinSet<()>,
}

impl RedisBroker {
    /// Begins to follow the region's log: from then on, every publication of the region goes to `delivery`.
    ///
    /// # Errors
    /// See [`ConnectError`]. Once connected, a connection that breaks is made anew for as long as it takes.
    pub async fn start(
        redis: Redis,
        options: Options,
        delivery: Arc<dyn Delivery>,
    ) -> Result<Self, ConnectError> {
        let Options { log_age, origin, namespaces, others: remotes } = options;
        let reading = redis.beside("reading").await?;
        let Redis { endpoint, keys, metrics, .. } = redis.clone();
        let reconnects = |connection| metrics.reconnects.with_label_values(&[connection]);
        let mut tasks = JoinSet::new();

        let cache = Arc::new(Cache::new(origin.clone(), CacheLimit::default()));
        let marks = Arc::new(Marks::default());
        let progress = Arc::new(Progress::new(keys.partitions()));
        let promises = Arc::new(Promises::new(origin.clone(), keys.partitions()));
        let feed = Feed {
            delivery: delivery.clone(),
            cache: cache.clone(),
            marks: marks.clone(),
            progress: progress.clone(),
            promises: promises.clone(),
        };
        let other_names = remotes.keys().map(|name| &**name).collect::<Vec<_>>().join(",");
        let mut following = Vec::new();
        for (pulse, tail) in Tail::start(&endpoint, &keys, (&other_names, log_age), &feed, &metrics).await? {
            following.push(pulse);
            tasks.spawn(tail);
        }
        let events = events::channels(&keys);
        let listener = Events { delivery, pulse: Arc::new(Pulse::new(true)) };
        following.push(listener.pulse.clone());
        tasks.spawn(Subscription::start(&redis, events, listener, reconnects("events")).await?);

        let (commands, spare) = (reading.commands.clone(), redis.commands.clone());
        let partitions = usize::from(keys.partitions());
        let share = MAX_READERS.div_ceil(partitions.max(1)).max(MIN_READERS);
        let doubts = Doubts::of_all(keys.partitions());
        let resuming = Arc::new(Resuming {
            reading: Reading {
                commands,
                spare,
                keys,
                own: origin.clone(),
                others: remotes.clone(),
                other_names,
                marks,
                progress: progress.clone(),
            },
            doubts,
            cache,
            progress,
            promises,
            turns: Mutex::default(),
            readers: (0..partitions).map(|_| Semaphore::new(share)).collect(),
        });
        Ok(Self {
            origin,
            namespaces,
            others: remotes,
            redis,
            log_age,
            resuming,
            _reading: reading,
            following,
            _tasks: tasks,
        })
    }

    fn namespace(&self, channel: &Channel) -> Result<&NamespaceConfig, BrokerError> {
        let name = channel.namespace();
        self.namespaces.get(name).ok_or_else(|| BrokerError::UnknownNamespace(name.to_owned()))
    }

    fn retained(&self, channel: &Channel) -> Result<Retained, BrokerError> {
        let namespace = self.namespace(channel)?;
        let age = (namespace.history > 0).then_some(namespace.history_age);
        let position_age = Retention::of(Some(namespace)).position_age;
        Ok(Retained { channel: channel.clone(), age, position_age, over: Position::new() })
    }

    /// The region that orders a namespace's publications.
    fn place(&self, namespace: &NamespaceConfig) -> Place<'_> {
        let home = match namespace.order {
            Order::Origin => None,
            Order::Home => namespace.home.as_deref(),
        };
        match home.and_then(|home| self.others.get_key_value(home)) {
            Some((origin, redis)) => Place { origin, redis },
            None => Place { origin: &self.origin, redis: &self.redis },
        }
    }

    fn publish_request(&self, publish: &Publish, place: &Place<'_>) -> Result<Request, BrokerError> {
        let Publish { channel, data, key, user } = publish;
        let retention = Retention::of(Some(self.namespace(channel)?));
        let names = &place.redis.keys;
        let partition = names.partition(channel);
        let mut keys = vec![
            names.life(partition),
            names.log(partition),
            names.position(channel),
            names.history(channel),
            names.begun(partition),
        ];
        keys.extend(key.as_ref().map(|key| names.idempotency(channel, key)));
        let number = |number: u128| number.to_string().into_bytes();
        let log_age = (*place.origin == self.origin).then(|| number(self.log_age.as_millis()));
        let mut args = Vec::with_capacity(13);
        args.extend([place.origin.as_bytes().to_vec(), channel.as_bytes().to_vec()]);
        args.extend(entry::content(data, key.as_ref(), user.as_ref()));
        args.extend([
            number(retention.history as u128),
            number(retention.history_age.as_millis()),
            log_age.unwrap_or_default(),
            number(LOG_LENGTH as u128),
            number(retention.position_age.as_millis()),
            number(retention.key_age.as_millis()),
            names.out(partition).into_bytes(),
        ]);
        Ok(Request::Script { script: Script::Publish, keys, args })
    }
}

/// Where a publication gets its position.
struct Place<'a> {
    origin: &'a Origin,
    redis: &'a Redis,
}

impl Broker for RedisBroker {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Accepted, BrokerError>> {
        let request = self.namespace(&publish.channel).and_then(|namespace| {
            let place = self.place(namespace);
            let request = self.publish_request(&publish, &place)?;
            Ok((request, place))
        });
        let (request, place) = match request {
            Ok(request) => request,
            Err(error) => return Box::pin(future::ready(Err(error))),
        };
        let call = place.redis.commands.call(request);
        let is_own = *place.origin == self.origin;
        let (own, channel, resuming) = (self.origin.clone(), publish.channel, self.resuming.clone());
        Box::pin(async move {
            let value = call.await?;
            let (accepted, life) = accepted(value).map_err(|error| {
                tracing::error!(%error, "a publication's outcome is not known");
                BrokerError::Unavailable
            })?;
            let reading = &resuming.reading;
            if is_own && reading.is_past(&reading.spare, &channel, &life) {
                // What it accepted is lost with it.
                return Err(BrokerError::Unavailable);
            }
            // What another region accepted comes here in its own time.
            if !accepted.duplicate && accepted.origin == own {
                let point = Point { epoch: accepted.epoch.clone(), offset: accepted.offset };
                resuming.cache.promise(&channel, point);
            }
            Ok(accepted)
        })
    }

    fn emit(&self, event: Arc<Event>) -> Result<(), BrokerError> {
        let channel = self.redis.keys.event(self.redis.keys.partition(&event.frame().channel));
        let event = events::encode(&self.origin, event.frame()).map_err(|error| {
            tracing::error!(%error, "an event could not be encoded");
            BrokerError::Unavailable
        })?;
        self.redis.commands.send(Request::command([b"PUBLISH", channel.as_bytes(), &event]))
    }

    fn read(&self, channel: &Channel, from: From) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        let retained = match self.retained(channel) {
            Ok(retained) => retained,
            Err(error) => return Box::pin(future::ready(Err(error))),
        };
        let resuming = self.resuming.clone();
        Box::pin(async move {
            let chunk = match from {
                From::Head => resuming.reading.head(&retained).await?,
                From::Latest(count) => {
                    let _reader = resuming.reader(&retained.channel).await?;
                    resuming.reading.latest(&retained, count).await?
                }
                From::Position(position) => resuming.after(&retained, position).await?,
            };
            if !chunk.coming.is_empty() {
                resuming.promises.give(resuming.reading.keys.partition(&retained.channel), &chunk.coming);
            }
            Ok(chunk)
        })
    }

    fn history(
        &self,
        channel: &Channel,
        page: PageOf,
        limit: PageLimit,
    ) -> BoxFuture<'static, Result<Page, BrokerError>> {
        let retained = match self.retained(channel) {
            Ok(retained) => retained,
            Err(error) => return Box::pin(future::ready(Err(error))),
        };
        let resuming = self.resuming.clone();
        Box::pin(async move {
            let (_reader, reading) = (resuming.reader(&retained.channel).await?, &resuming.reading);
            match page {
                PageOf::Last => reading.page(&retained, None, limit).await,
                PageOf::Before(cursor) => reading.page(&retained, Some(read_cursor(&cursor)?), limit).await,
                PageOf::After(position) => {
                    let limit = ChunkLimit { publications: limit.publications, bytes: limit.bytes };
                    let (chunk, _) = reading.after(&retained, position, limit).await?;
                    Ok(Page { publications: chunk.publications, cursor: None, more: !chunk.complete })
                }
            }
        })
    }

    fn partitions(&self) -> u16 {
        self.redis.keys.partitions()
    }

    fn partition(&self, channel: &Channel) -> u16 {
        self.redis.keys.partition(channel)
    }

    fn is_available(&self) -> bool {
        self.redis.commands.is_available()
    }

    fn away_for(&self) -> Duration {
        self.redis.commands.away_for()
    }

    fn deaf_for(&self) -> Duration {
        self.following.iter().map(|pulse| pulse.away_for()).max().unwrap_or_default()
    }
}

/// What was accepted, and in which life.
fn accepted(value: Value) -> Result<(Accepted, String), Malformed> {
    let Value::Array(parts) = value else { return Err(Malformed("answer")) };
    let Ok([epoch, offset, duplicate, origin, life]) = <[Value; 5]>::try_from(parts) else {
        return Err(Malformed("answer"));
    };
    let point = format!("{}:{}", reply::text(epoch)?, reply::text(offset)?);
    let Point { epoch, offset } = point_of(&point).ok_or(Malformed("position"))?;
    let origin = Text::new(reply::text(origin)?).map_err(|_| Malformed("origin"))?;
    let duplicate = duplicate == Value::Int(1);
    Ok((Accepted { origin, epoch, offset, duplicate }, reply::text(life)?))
}

/// Reads for those who resume: from the cache where it suffices, else from Redis, one reader per channel at a time, so
/// that the others find the cache filled.
struct Resuming {
    reading: Reading,
    /// Of readers who saw a later life of another region than its Redis tells of; by partition.
    doubts: Vec<Mutex<Doubts>>,
    cache: Arc<Cache>,
    progress: Arc<Progress>,
    promises: Arc<Promises>,
    turns: Mutex<HashMap<Channel, Arc<tokio::sync::Mutex<()>>>>,
    /// By partition.
    readers: Vec<Semaphore>,
}

impl Resuming {
    /// A place among those who ask Redis.
    async fn reader(&self, channel: &Channel) -> Result<SemaphorePermit<'_>, BrokerError> {
        let readers = &self.readers[usize::from(self.reading.keys.partition(channel))];
        readers.acquire().await.map_err(|_| BrokerError::Unavailable)
    }

    fn doubts(&self, channel: &Channel) -> &Mutex<Doubts> {
        &self.doubts[usize::from(self.reading.keys.partition(channel))]
    }

    /// The last entry of the channel's log, if this node has not delivered it yet.
    async fn unread(&self, channel: &Channel) -> Result<Option<StreamId>, BrokerError> {
        let partition = self.reading.keys.partition(channel);
        let newest = self.reading.newest_of_log(partition).await?;
        Ok(newest.filter(|newest| !self.progress.has_passed(partition, *newest)))
    }

    /// Waits until this node has delivered the log up to an entry.
    ///
    /// # Errors
    /// `Unavailable` when it is not read on: as long as the log cannot be read, nobody knows what is lost.
    async fn log_was_read(&self, channel: &Channel, up_to: StreamId) -> Result<(), BrokerError> {
        let partition = self.reading.keys.partition(channel);
        let was_read = self.progress.passes(partition, up_to, TIMEOUT).await;
        if was_read { Ok(()) } else { Err(BrokerError::Unavailable) }
    }

    /// Whether a reader saw an epoch of this region that came after the one which is told here, as far as the name tells, and
    /// waits for it: others may have taken over from who tells.
    fn is_to_wait(&self, channel: &Channel, seen: &str, head: &Head) -> bool {
        let told = head.position.get(&self.reading.own);
        told.is_some_and(|told| is_later(seen, &told.epoch))
            && self.progress.is_to_wait(self.reading.keys.partition(channel), seen)
    }

    /// What follows `position`. Whoever saw an epoch of another region that has not come here waits for it, unless that region
    /// has left it: its name may be a later one all the same.
    ///
    /// # Errors
    /// Also `Unavailable` while it is doubted that the region has.
    async fn after(&self, retained: &Retained, position: Position) -> Result<Chunk, BrokerError> {
        let (chunk, head) = self.read_after(retained, position.clone()).await?;
        let Some(head) = head else { return Ok(chunk) };
        let doubts = self.doubts(&retained.channel);
        let mut over = Position::new();
        for (origin, seen) in head.awaited(&position).iter() {
            if self.has_left(retained, &head, origin, &seen.epoch).await {
                // Whoever brings it here has doubted already that it went on under an earlier name.
                let is_known = head.succession.latest.get(origin).is_some();
                if !is_known && doubts.lock().wait_for(life_of(&seen.epoch)) {
                    return Err(BrokerError::Unavailable);
                }
                over.set(origin.clone(), seen.clone());
            }
        }
        if over.is_empty() {
            return Ok(chunk);
        }
        Ok(self.read_after(&Retained { over, ..retained.clone() }, position).await?.0)
    }

    /// Whether another region is in a life that has come here, by what its Redis says now, and not in that of this epoch. No
    /// life comes back.
    async fn has_left(&self, retained: &Retained, head: &Head, origin: &Origin, epoch: &str) -> bool {
        let Some(redis) = self.reading.others.get(origin) else { return false };
        let life = redis.keys.life(redis.keys.partition(&retained.channel));
        let present = redis.commands.call(Request::command(["HGET", &life, "life"])).await.map(reply::text);
        let Ok(Ok(present)) = present else { return false };
        self.doubts(&retained.channel).lock().came(|life| life == present);
        head.stands(origin).is_some_and(|point| is_of(&present, &point.epoch)) && !is_of(&present, epoch)
    }

    /// From the cache, or from Redis, which also says where the channel stands.
    async fn read_after(
        &self,
        retained: &Retained,
        position: Position,
    ) -> Result<(Chunk, Option<Head>), BrokerError> {
        let channel = &retained.channel;
        if let Some(chunk) = self.cache.serve(channel, &position) {
            return Ok((chunk, None));
        }
        let turn = Turn::of(self, channel);
        let guard = turn.lock.lock().await;
        if let Some(chunk) = self.cache.serve(channel, &position) {
            return Ok((chunk, None));
        }
        let reader = self.reader(channel).await?;
        let expected = Expected::of(&self.cache, channel);
        let seen = position.get(&self.reading.own).map(|seen| seen.epoch.clone());
        let (chunk, head) = self.reading.after(retained, position, CHUNK).await?;
        if seen.is_some_and(|seen| self.is_to_wait(channel, &seen, &head)) {
            return Err(BrokerError::Unavailable);
        }
        // What is told as lost may stand in the part of the log that is still to be read.
        let unread = if chunk.loss().is_some() { self.unread(channel).await? } else { None };
        drop(reader);
        // Nor is what is still to come of other regions in the window, unless nothing of them is here at all.
        let is_whole = head.coming.iter().all(|region| head.is_without(region));
        if unread.is_none() && chunk.complete && is_whole {
            self.cache.fill(channel, &chunk, &head, retained.age);
        }
        drop(expected);
        drop(guard);
        if let Some(newest) = unread {
            self.log_was_read(channel, newest).await?;
        }
        Ok((chunk, Some(head)))
    }
}

/// A place in the line of a channel's readers.
struct Turn<'a> {
    resuming: &'a Resuming,
    channel: &'a Channel,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl<'a> Turn<'a> {
    fn of(resuming: &'a Resuming, channel: &'a Channel) -> Self {
        let lock = resuming.turns.lock().entry(channel.clone()).or_default().clone();
        Self { resuming, channel, lock }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.resuming.turns.lock();
        // The map's and this one: nobody else is in the line.
        if Arc::strong_count(&self.lock) == 2 {
            turns.remove(self.channel);
        }
    }
}

/// A reading that the cache expects; dropped, it expects no more.
struct Expected<'a> {
    cache: &'a Cache,
    channel: &'a Channel,
}

impl<'a> Expected<'a> {
    fn of(cache: &'a Cache, channel: &'a Channel) -> Self {
        cache.expect(channel);
        Self { cache, channel }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.cache.abandon(self.channel);
    }
}
