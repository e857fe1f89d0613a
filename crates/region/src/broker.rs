//! The broker of a region: its nodes share a Redis, which orders publications and remembers them.
//!
//! A publication is one script call, atomic in Redis: it gets its offset, and an entry in the log of its
//! partition and in its channel's history. Every node follows all logs, and so delivers all publications in
//! the same order, its own among them.

mod cache;
pub(crate) mod doubts;
pub mod entry;
pub mod epoch;
pub mod events;
pub mod lag;
mod marks;
mod progress;
mod promises;
mod reading;
mod recovery;
mod resuming;
pub(crate) mod retention;
pub mod scripts;
mod tail;

use crate::keys::RegionKeys as _;
use cache::{Cache, CacheLimit};
use events::Events;
use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};
use lag::LagMetrics;
use marks::Marks;
use progress::Progress;
use promises::Promises;
pub(crate) use reading::point_of;
use reading::{Reading, Retained, read_cursor};
use recovery::ChunkLimit;
use redis::Value;
use resuming::Resuming;
use retention::{LOG_LENGTH, Retention};
use scripts::PUBLISH;
use skywave_channels::{
    broadcast::Event,
    broker::{Accepted, Broker, BrokerError, Chunk, Delivery, Page, PageLimit, PageOf, Publish, ReadFrom},
    namespace::{NamespaceConfig, Namespaces, Order},
};
use skywave_protocol::{Channel, Point, Position, Text, position::Origin};
use skywave_redis::{
    CallError, ConnectError, Malformed, Redis, Request, pulse::Pulse, reply, subscription::Subscription,
    tasks::Tasks,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tail::{Feed, Tail};

/// What a [`RedisBroker`] is made of.
pub struct Options {
    /// How long the log is kept.
    pub log_age: Duration,
    /// The region's name.
    pub origin: Origin,
    pub namespaces: Namespaces,
    /// The other regions, and the Redis of each.
    pub others: BTreeMap<Origin, Redis>,
}

/// A node's part in the region's broker. Its connections end when it is dropped.
pub struct RedisBroker {
    origin: Origin,
    namespaces: Namespaces,
    others: BTreeMap<Origin, Redis>,
    redis: Redis,
    log_age: Duration,
    resuming: Arc<Resuming>,
    /// Of the connections on which this node gets what others publish and emit.
    following: Vec<Arc<Pulse>>,
    tasks: Tasks,
}

impl RedisBroker {
    /// Begins to follow the region's log: from then on, every publication of the region goes to `delivery`.
    ///
    /// # Errors
    /// See [`ConnectError`]. Once connected, a connection that breaks is made anew for as long as it takes.
    pub async fn start(
        redis: Redis,
        options: Options,
        lag: &LagMetrics,
        delivery: Arc<dyn Delivery>,
    ) -> Result<Self, ConnectError> {
        let Options { log_age, origin, namespaces, others: remotes } = options;
        // What is read may be large, and publishing does not wait behind it.
        let reading = redis.beside("reading").await?;
        let keys = redis.keys.clone();
        let reconnects = |connection| redis.metrics.reconnects.with_label_values(&[connection]);
        let mut tasks = vec![reading.clone().ended().boxed()];

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
        for (pulse, tail) in Tail::start(&redis, (&other_names, log_age), &feed, lag).await? {
            following.push(pulse);
            tasks.push(tail.boxed());
        }
        let events = events::channels(&keys);
        let listener = Events { delivery, pulse: Arc::new(Pulse::new(true)) };
        following.push(listener.pulse.clone());
        tasks.push(Subscription::start(&redis, events, listener, reconnects("events")).await?.boxed());

        let histories = Reading {
            commands: reading.commands.clone(),
            spare: redis.commands.clone(),
            keys,
            own: origin.clone(),
            others: remotes.clone(),
            other_names,
            marks,
            progress,
        };
        let resuming = Arc::new(Resuming::new(histories, cache, promises));
        Ok(Self {
            origin,
            namespaces,
            others: remotes,
            redis,
            log_age,
            resuming,
            following,
            tasks: Tasks::new(tasks),
        })
    }

    /// Waits until what follows the region ends, though it was to go on. A panic goes on in who waits.
    pub async fn ended(&self) {
        self.tasks.ended().await;
    }

    fn namespace(&self, channel: &Channel) -> Result<&NamespaceConfig, BrokerError> {
        let unknown = || BrokerError::UnknownNamespace(channel.namespace().to_owned());
        self.namespaces.of(channel).ok_or_else(unknown)
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
        Ok(Request::Script { script: &PUBLISH, keys, args })
    }
}

/// Where a publication gets its position.
struct Place<'a> {
    origin: &'a Origin,
    redis: &'a Redis,
}

/// What is told of a call that did not do what it was to do; the rest is in the log.
pub fn unavailable(_: CallError) -> BrokerError {
    BrokerError::Unavailable
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
            let value = call.await.map_err(unavailable)?;
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
        let request = Request::command([b"PUBLISH", channel.as_bytes(), &event]);
        self.redis.commands.send(request).map_err(unavailable)
    }

    fn read(&self, channel: &Channel, from: ReadFrom) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        let retained = match self.retained(channel) {
            Ok(retained) => retained,
            Err(error) => return Box::pin(future::ready(Err(error))),
        };
        let resuming = self.resuming.clone();
        Box::pin(async move {
            let chunk = match from {
                ReadFrom::Head => resuming.reading.head(&retained).await?,
                ReadFrom::Latest(count) => {
                    let _reader = resuming.reader(&retained.channel).await?;
                    resuming.reading.latest(&retained, count).await?
                }
                ReadFrom::Position(position) => resuming.after(&retained, position).await?,
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
                PageOf::Before(cursor) => {
                    reading.page(&retained, Some(read_cursor(&reading.own, &cursor)?), limit).await
                }
                PageOf::After(position) => {
                    let limit = ChunkLimit { publications: limit.publications, bytes: limit.bytes };
                    let (chunk, _) = reading.after(&retained, position, limit, |_| Ok(())).await?;
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
