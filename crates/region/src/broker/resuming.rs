//! Reads for those who resume: many at a time, and what they have seen may not have come here yet.

use super::{
    cache::Cache,
    doubts::Doubts,
    epoch::{is_later, life_of},
    progress::Progress,
    promises::Promises,
    reading::{CHUNK, Halt, Reading, Retained, is_of},
    recovery::Head,
};
use parking_lot::Mutex;
use skywave_channels::broker::{BrokerError, Chunk};
use skywave_protocol::{Channel, Position, position::Origin};
use skywave_redis::{Request, StreamId, errors::TIMEOUT, reply};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The most readers of histories that ask Redis at a time, when many resume: publications go between them. Each holds
/// half a megabyte at most. Partitions have equal parts, so that those whose server does not answer leave room for the
/// others.
const MAX_READERS: usize = 64;
/// Of each partition at least.
const MIN_READERS: usize = 4;

/// Reads for those who resume: from the cache where it suffices, else from Redis. One reader per channel at a time, so
/// that the others find the cache filled.
pub(crate) struct Resuming {
    pub reading: Reading,
    /// Of readers who saw a later life of another region than its Redis tells of; by partition.
    doubts: Vec<Mutex<Doubts>>,
    pub cache: Arc<Cache>,
    progress: Arc<Progress>,
    pub promises: Arc<Promises>,
    turns: Mutex<HashMap<Channel, Arc<tokio::sync::Mutex<()>>>>,
    /// By partition.
    readers: Vec<Semaphore>,
}

impl Resuming {
    pub(crate) fn new(reading: Reading, cache: Arc<Cache>, promises: Arc<Promises>) -> Self {
        let partitions = reading.keys.partitions();
        let share = MAX_READERS.div_ceil(usize::from(partitions).max(1)).max(MIN_READERS);
        Self {
            doubts: Doubts::of_all(partitions),
            cache,
            progress: reading.progress.clone(),
            promises,
            turns: Mutex::default(),
            readers: (0..partitions).map(|_| Semaphore::new(share)).collect(),
            reading,
        }
    }

    /// A place among those who ask Redis.
    pub(crate) async fn reader(&self, channel: &Channel) -> Result<SemaphorePermit<'_>, BrokerError> {
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

    /// Whether a reader saw an epoch of this region that is later, by its name, than the one that is told here. Then it
    /// waits: others may have taken over from the server that tells.
    fn is_to_wait(&self, channel: &Channel, seen: &str, head: &Head) -> bool {
        let told = head.position.get(&self.reading.own);
        told.is_some_and(|told| is_later(seen, &told.epoch))
            && self.progress.is_to_wait(self.reading.keys.partition(channel), seen)
    }

    /// What follows `position`. A reader that saw an epoch of another region which has not come here waits for it. Not
    /// so if that region has left the epoch: its name may be a later one all the same.
    ///
    /// # Errors
    /// Also `Unavailable` while it is doubted that the region has.
    pub(crate) async fn after(&self, retained: &Retained, position: Position) -> Result<Chunk, BrokerError> {
        let is_plain = |head: &Head| head.awaited(&position).is_empty();
        let head = match self.read_after(retained, position.clone(), is_plain).await {
            Err(Halt::Doubted(head)) => head,
            read => return Ok(read?),
        };
        // Nobody is held up by the question to the other region.
        let over = self.over(retained, &head, &position).await?;
        Ok(self.read_after(&Retained { over, ..retained.clone() }, position, |_| true).await?)
    }

    /// The epochs of other regions in `position` that those regions have left, though no later one, by its name, has
    /// come here.
    async fn over(
        &self,
        retained: &Retained,
        head: &Head,
        position: &Position,
    ) -> Result<Position, BrokerError> {
        let mut over = Position::new();
        for (origin, seen) in head.awaited(position).iter() {
            if self.has_left(retained, head, origin, &seen.epoch).await {
                // Whoever brings it here has doubted already that it went on under an earlier name.
                let is_known = head.succession.latest.get(origin).is_some();
                let doubts = self.doubts(&retained.channel);
                if !is_known && doubts.lock().wait_for(life_of(&seen.epoch)) {
                    return Err(BrokerError::Unavailable);
                }
                over.set(origin.clone(), seen.clone());
            }
        }
        Ok(over)
    }

    /// Whether another region's Redis says that it is in a life that has come here, and not in that of this epoch. No
    /// life comes back.
    async fn has_left(&self, retained: &Retained, head: &Head, origin: &Origin, epoch: &str) -> bool {
        let Some(redis) = self.reading.others.get(origin) else { return false };
        let life = redis.keys.life(redis.keys.partition(&retained.channel));
        let present = redis.commands.call(Request::command(["HGET", &life, "life"])).await.map(reply::text);
        let Ok(Ok(present)) = present else { return false };
        self.doubts(&retained.channel).lock().came(|life| life == present);
        head.stands(origin).is_some_and(|point| is_of(&present, &point.epoch)) && !is_of(&present, epoch)
    }

    /// From the cache, or from Redis; where the channel stands there, `is_to_be_read` judges before more is read.
    async fn read_after(
        &self,
        retained: &Retained,
        position: Position,
        is_to_be_read: impl Fn(&Head) -> bool,
    ) -> Result<Chunk, Halt> {
        let channel = &retained.channel;
        if let Some(chunk) = self.cache.serve(channel, &position) {
            return Ok(chunk);
        }
        let turn = Turn::of(self, channel);
        let guard = turn.lock.lock().await;
        if let Some(chunk) = self.cache.serve(channel, &position) {
            return Ok(chunk);
        }
        let reader = self.reader(channel).await?;
        let expected = Expected::of(&self.cache, channel);
        let seen = position.get(&self.reading.own).map(|seen| seen.epoch.clone());
        let judge = |head: &Head| match &seen {
            Some(seen) if self.is_to_wait(channel, seen, head) => Err(BrokerError::Unavailable.into()),
            _ if is_to_be_read(head) => Ok(()),
            _ => Err(Halt::Doubted(Box::new(head.clone()))),
        };
        let (chunk, head) = self.reading.after(retained, position, CHUNK, judge).await?;
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
        Ok(chunk)
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
