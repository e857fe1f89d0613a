//! The broker of a single node: positions, history and idempotency keys in memory.

mod keys;

use super::{
    Accepted, Broker, BrokerError, Chunk, Delivery, Lost, MAX_CHUNK, Page, PageLimit, PageOf, Publish,
    ReadFrom, clock::HybridClock, key_age,
};
use crate::{
    broadcast::{Broadcast, Event, Publication},
    namespace::{NamespaceConfig, Namespaces},
};
use futures_util::future::{self, BoxFuture};
use keys::{KeyRoom, Keys};
use parking_lot::Mutex;
use skywave_host::{Chance, Host};
use skywave_protocol::{
    Channel, Point, Position, Text,
    frame::{self, GapReason},
    position::{Epoch, Origin},
};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

const SHARDS: usize = 64;
/// The most bytes that idempotency keys take: over a million of them.
const MAX_KEY_BYTES: usize = 256 << 20;
/// A channel of which nothing is retained keeps its epoch and offset for this long after it was last published on or
/// had a subscriber.
const CHANNEL_AGE: Duration = Duration::from_secs(60 * 60);
/// One that was never published to keeps its epoch for this long after it had a subscriber. A client that is cut off
/// comes back sooner, and one that subscribes to invented names leaves little behind.
const WAITING_AGE: Duration = Duration::from_secs(5 * 60);

type Logs = HashMap<Channel, Arc<Mutex<Log>>>;
type Shard = Mutex<Logs>;

pub struct MemoryBroker {
    origin: Origin,
    namespaces: Namespaces,
    delivery: Arc<dyn Delivery>,
    shards: Vec<Shard>,
    hasher: RandomState,
    clock: HybridClock,
    key_room: Arc<KeyRoom>,
    epochs: Epochs,
}

/// The epochs of channels that have no log. A channel whose log is forgotten gets another one, so that no epoch ever
/// names two lives of it. So do the few that share its place; all others keep theirs.
struct Epochs {
    life: Epoch,
    hasher: RandomState,
    /// How often a log with publications was forgotten at a place; none where never.
    turns: Mutex<HashMap<u16, u32>>,
}

impl Epochs {
    fn new(chance: &Chance) -> Self {
        Self { life: random_epoch(chance), hasher: RandomState::new(), turns: Mutex::default() }
    }

    fn place(&self, channel: &Channel) -> u16 {
        // As many places as there are numbers.
        self.hasher.hash_one(channel) as u16
    }

    fn of(&self, channel: &Channel) -> Epoch {
        let turn = self.turns.lock().get(&self.place(channel)).copied();
        turn.and_then(|turn| Text::new(format!("{}.{turn}", &*self.life)).ok())
            .unwrap_or_else(|| self.life.clone())
    }

    fn forget(&self, channel: &Channel) {
        let mut turns = self.turns.lock();
        let turn = turns.entry(self.place(channel)).or_default();
        *turn = turn.wrapping_add(1);
    }
}

/// What is known of one channel.
struct Log {
    epoch: Epoch,
    /// Of the newest publication; 0 before the first.
    offset: u64,
    retained: VecDeque<(Instant, Arc<Publication>)>,
    keys: Keys,
    used: Instant,
}

impl MemoryBroker {
    pub fn new(host: &Host, origin: Origin, namespaces: Namespaces, delivery: Arc<dyn Delivery>) -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self {
            origin,
            namespaces,
            delivery,
            shards,
            hasher: RandomState::new(),
            clock: HybridClock::new(host.clock.clone()),
            key_room: KeyRoom::new(MAX_KEY_BYTES),
            epochs: Epochs::new(&host.chance),
        }
    }

    fn namespace(&self, channel: &Channel) -> Result<&NamespaceConfig, BrokerError> {
        let unknown = || BrokerError::UnknownNamespace(channel.namespace().to_owned());
        self.namespaces.of(channel).ok_or_else(unknown)
    }

    fn shard(&self, channel: &Channel) -> &Shard {
        &self.shards[self.hasher.hash_one(channel) as usize % SHARDS]
    }

    /// The channel's log, made on its first publication.
    fn log(&self, channel: &Channel) -> Arc<Mutex<Log>> {
        self.log_among(&mut self.shard(channel).lock(), channel)
    }

    fn log_among(&self, logs: &mut Logs, channel: &Channel) -> Arc<Mutex<Log>> {
        if let Some(log) = logs.get(channel) {
            return log.clone();
        }
        let log = Arc::new(Mutex::new(self.new_log(channel)));
        logs.insert(channel.clone(), log.clone());
        log
    }

    fn new_log(&self, channel: &Channel) -> Log {
        Log::new(self.epochs.of(channel), self.key_room.clone())
    }

    /// Reads the channel's log. Who follows the channel makes it, so that the epoch which it is told stays, whichever
    /// other channels are forgotten. Else reading leaves no trace: channels cost nothing before they are used.
    fn with_log<R>(&self, channel: &Channel, read: impl FnOnce(&mut Log) -> R) -> R {
        let mut logs = self.shard(channel).lock();
        let is_used = logs.contains_key(channel) || self.delivery.is_followed(channel);
        let log = is_used.then(|| self.log_among(&mut logs, channel));
        drop(logs);
        match log {
            Some(log) => read(&mut log.lock()),
            None => read(&mut self.new_log(channel)),
        }
    }

    /// Forgets publications, keys and channels whose time has passed. To be called now and then.
    pub fn expire(&self, now: Instant) {
        for shard in &self.shards {
            shard.lock().retain(|channel, log| {
                let Ok(namespace) = self.namespace(channel) else { return false };
                let mut known = log.lock();
                known.trim(namespace, now);
                if self.delivery.is_followed(channel) {
                    // Whoever is subscribed misses nothing, however long it is quiet.
                    known.used = now;
                }
                let age = if known.offset > 0 { CHANNEL_AGE } else { WAITING_AGE };
                let keep = now.saturating_duration_since(known.used) < age
                    || !known.retained.is_empty()
                    || !known.keys.is_empty()
                    || Arc::strong_count(log) > 1;
                if !keep && known.offset > 0 {
                    self.epochs.forget(channel);
                }
                drop(known);
                keep
            });
        }
    }

    /// How many channels have a log.
    pub fn channels(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn accept(&self, publish: Publish) -> Result<Accepted, BrokerError> {
        let namespace = self.namespace(&publish.channel)?;
        let log = self.log(&publish.channel);
        // Held while delivering, so that all subscribers see the offsets in order.
        let mut log = log.lock();
        let now = Instant::now();
        log.trim(namespace, now);
        log.used = now;
        if let Some(offset) = publish.key.as_ref().and_then(|key| log.keys.find(key)) {
            let (origin, epoch, offset) = (self.origin.clone(), log.epoch.clone(), offset);
            return Ok(Accepted { origin, epoch, offset, duplicate: true });
        }
        let offset = log.offset + 1;
        if let Some(key) = &publish.key {
            log.keys.remember(key, offset, now).map_err(|keys::Full| BrokerError::TooManyKeys)?;
        }
        log.offset = offset;
        let publication = Broadcast::new(frame::Publication {
            channel: publish.channel,
            origin: self.origin.clone(),
            epoch: log.epoch.clone(),
            offset: log.offset,
            time_ms: self.clock.now_ms(),
            key: publish.key.clone(),
            user: publish.user,
            data: publish.data,
        });
        if namespace.history > 0 {
            log.retained.push_back((now, publication.clone()));
        }
        log.trim(namespace, now);
        self.delivery.publication(&publication);
        let (epoch, offset) = (log.epoch.clone(), log.offset);
        Ok(Accepted { origin: self.origin.clone(), epoch, offset, duplicate: false })
    }

    fn chunk(&self, channel: &Channel, from: ReadFrom) -> Result<Chunk, BrokerError> {
        let namespace = self.namespace(channel)?;
        self.with_log(channel, |log| {
            log.trim(namespace, Instant::now());
            Ok(self.chunk_of(log, from))
        })
    }

    fn chunk_of(&self, log: &mut Log, from: ReadFrom) -> Chunk {
        let point = |log: &Log, offset| Point { epoch: log.epoch.clone(), offset };
        let (start, after, lost) = match from {
            ReadFrom::Head => {
                let head = point(log, log.offset);
                return Chunk { start: self.position(head), complete: true, ..Chunk::default() };
            }
            ReadFrom::Latest(count) => {
                let after = log.offset - (count.min(log.retained.len()) as u64);
                (self.position(point(log, after)), after, None)
            }
            ReadFrom::Position(position) => {
                let (after, reason) = log.resume_after(position.get(&self.origin));
                let lost = reason.map(|reason| Lost {
                    origin: self.origin.clone(),
                    reason,
                    point: point(log, after),
                });
                (position, after, lost)
            }
        };
        let publications: Vec<_> = log.after(after).take(MAX_CHUNK).cloned().collect();
        let complete = after + publications.len() as u64 == log.offset;
        let (lost, follows) = (lost.into_iter().collect(), Some(log.offset - after));
        Chunk { start, lost, publications, complete, follows, ..Chunk::default() }
    }

    fn position(&self, point: Point) -> Position {
        [(self.origin.clone(), point)].into_iter().collect()
    }

    fn page(&self, channel: &Channel, page: PageOf, limit: PageLimit) -> Result<Page, BrokerError> {
        let namespace = self.namespace(channel)?;
        self.with_log(channel, |log| {
            log.trim(namespace, Instant::now());
            log.page(&self.origin, page, limit)
        })
    }
}

impl Log {
    fn page(&self, origin: &Origin, page: PageOf, limit: PageLimit) -> Result<Page, BrokerError> {
        let publications: Vec<_> = match page {
            PageOf::After(position) => {
                let (after, _) = self.resume_after(position.get(origin));
                let publications = limit.take(self.after(after));
                let more = after + (publications.len() as u64) < self.offset;
                return Ok(Page { publications, cursor: None, more });
            }
            PageOf::Last => self.last_before(u64::MAX, limit),
            PageOf::Before(cursor) => self.last_before(self.read_cursor(&cursor)?, limit),
        };
        let first = publications.first().map(|publication| publication.frame().offset);
        let cursor = first.filter(|first| self.oldest() < *first).and_then(|first| self.write_cursor(first));
        let more = cursor.is_some();
        Ok(Page { publications, cursor, more })
    }

    fn new(epoch: Epoch, room: Arc<KeyRoom>) -> Self {
        let now = Instant::now();
        Self { epoch, offset: 0, retained: VecDeque::new(), keys: Keys::new(room), used: now }
    }

    fn trim(&mut self, namespace: &NamespaceConfig, now: Instant) {
        let age = |time: Instant| now.saturating_duration_since(time);
        while self.retained.len() > namespace.history
            || self.retained.front().is_some_and(|(time, _)| age(*time) > namespace.history_age)
        {
            self.retained.pop_front();
        }
        self.keys.forget(key_age(Some(namespace)), now);
    }

    /// The offset of the oldest retained publication; the next one to come if none is retained.
    fn oldest(&self) -> u64 {
        self.offset + 1 - self.retained.len() as u64
    }

    /// The offset after which reading goes on for somebody who stands at `seen`, and why if some are lost.
    fn resume_after(&self, seen: Option<&Point>) -> (u64, Option<GapReason>) {
        let before_oldest = self.oldest() - 1;
        let offset = match seen {
            None => 0,
            Some(seen) if seen.epoch != self.epoch => return (before_oldest, Some(GapReason::EpochChanged)),
            Some(seen) if seen.offset > self.offset => {
                return (self.offset, Some(GapReason::UnknownPosition));
            }
            Some(seen) => seen.offset,
        };
        if offset < before_oldest { (before_oldest, Some(GapReason::Trimmed)) } else { (offset, None) }
    }

    /// Retained publications after `offset`, which is at least the one before the oldest.
    fn after(&self, offset: u64) -> impl Iterator<Item = &Arc<Publication>> {
        let skip = (offset + 1).saturating_sub(self.oldest()) as usize;
        self.retained.iter().skip(skip).map(|(_, publication)| publication)
    }

    fn last_before(&self, before: u64, limit: PageLimit) -> Vec<Arc<Publication>> {
        let count = before.saturating_sub(self.oldest()).min(self.retained.len() as u64) as usize;
        let newest_first = self.retained.iter().take(count).rev().map(|(_, publication)| publication);
        let mut page = limit.take(newest_first);
        page.reverse();
        page
    }

    fn write_cursor(&self, before: u64) -> Option<Text<128>> {
        Text::new(format!("{}:{before}", &*self.epoch)).ok()
    }

    /// The offset in a cursor; one of an earlier epoch leads to nothing.
    fn read_cursor(&self, cursor: &str) -> Result<u64, BrokerError> {
        let (epoch, before) = cursor.split_once(':').ok_or(BrokerError::BadCursor)?;
        let before = before.parse().map_err(|_| BrokerError::BadCursor)?;
        Ok(if epoch == &*self.epoch { before } else { 0 })
    }
}

fn random_epoch(chance: &Chance) -> Epoch {
    // 40 bits: two lives of one channel do not meet by chance.
    Text::new(format!("{:010x}", chance.any::<u64>() >> 24)).unwrap_or_else(|error| unreachable!("{error}"))
}

impl Broker for MemoryBroker {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Accepted, BrokerError>> {
        Box::pin(future::ready(self.accept(publish)))
    }

    fn emit(&self, event: Arc<Event>) -> Result<(), BrokerError> {
        self.delivery.event(&event);
        Ok(())
    }

    fn read(&self, channel: &Channel, from: ReadFrom) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        Box::pin(future::ready(self.chunk(channel, from)))
    }

    fn history(
        &self,
        channel: &Channel,
        page: PageOf,
        limit: PageLimit,
    ) -> BoxFuture<'static, Result<Page, BrokerError>> {
        Box::pin(future::ready(self.page(channel, page, limit)))
    }
}
