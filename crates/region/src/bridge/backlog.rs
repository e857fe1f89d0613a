//! What another region's log holds of a partition, read in its order: several slices at once, and ahead of its turn.
//!
//! Looking through all channels for what a log has lost takes time, and meanwhile the log goes on losing its oldest
//! entries. So what is needed of it is read at the same time and held, within a bound. However long it takes, the link
//! is further on afterwards.

use super::{
    course::{Interruption, Link, is_trimmed},
    pull::{Head, MAX_VISITED, Part, PullError, Pulled},
    slices::{Slice, Slices},
};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use skywave_redis::{StreamId, reply};
use std::collections::VecDeque;

/// How many slices are read at once.
const READS: usize = 8;
/// To begin with: the first answers tell how wide a slice may be.
const FIRST_READS: usize = 2;
/// Bytes that are held ahead of their turn, of all partitions of a link.
const MAX_BYTES: usize = 32 << 20;
/// What an entry takes beside its content, in bytes.
const OVERHEAD: usize = 1_024;

/// A part of the log.
pub(crate) struct Stretch {
    pub(crate) pulled: Pulled,
    /// All up to there was read.
    pub reached: StreamId,
    bytes: usize,
}

impl Stretch {
    fn new(pulled: Pulled, until: StreamId) -> Self {
        let reached = if pulled.exhausted { until } else { pulled.last };
        let bytes = pulled.entries.iter().map(|(_, fields)| OVERHEAD + reply::size(fields)).sum();
        Self { pulled, reached, bytes }
    }
}

type Reading<'a> = BoxFuture<'a, Result<(Pulled, Slice), PullError>>;

pub(crate) struct Backlog<'a> {
    link: &'a Link,
    partition: u16,
    /// Where the log stood when it began to be read, up to where it is.
    pub head: Head,
    slices: Slices,
    reading: FuturesOrdered<Reading<'a>>,
    at_once: usize,
    /// What was read before its turn.
    held: VecDeque<Stretch>,
    held_bytes: usize,
}

impl<'a> Backlog<'a> {
    /// All after an id; `head` is where the log stands.
    pub(crate) fn new(link: &'a Link, partition: u16, after: StreamId, head: Head) -> Self {
        let mut slices = Slices::new(after, head.newest, MAX_VISITED);
        if let Some(oldest) = head.oldest {
            slices.skip_to(oldest);
        }
        let (reading, held) = (FuturesOrdered::new(), VecDeque::new());
        Self { link, partition, head, slices, reading, at_once: FIRST_READS, held, held_bytes: 0 }
    }

    /// All that the log holds. What it begins with is read together with where it begins.
    ///
    /// # Errors
    /// See [`PullError`].
    pub(crate) async fn whole(link: &'a Link, partition: u16) -> Result<Self, PullError> {
        let part = Part { after: StreamId::MIN, until: None, count: MAX_VISITED };
        let pulled = link.log.pull(partition, part).await?;
        let head = pulled.head.clone();
        let first = Stretch::new(pulled, head.newest);
        let mut backlog = Self::new(link, partition, first.reached, head);
        backlog.hold(first);
        Ok(backlog)
    }

    /// Where the log begins: nothing up to there is left.
    pub(crate) fn begins_after(&self) -> StreamId {
        self.head.oldest.unwrap_or(self.head.newest.next()).previous()
    }

    /// The next part; `None` when all was read.
    ///
    /// # Errors
    /// See [`Interruption`].
    pub(crate) async fn next(&mut self) -> Result<Option<Stretch>, Interruption> {
        let Some(stretch) = self.held.pop_front() else { return self.read().await };
        self.held_bytes -= stretch.bytes;
        Ok(Some(stretch))
    }

    /// Reads as much ahead as may be held.
    ///
    /// # Errors
    /// See [`Interruption`].
    pub(crate) async fn read_ahead(&mut self) -> Result<(), Interruption> {
        let max_bytes = MAX_BYTES / usize::from(self.link.applying.local.keys.partitions());
        while self.held_bytes < max_bytes {
            match self.read().await? {
                Some(stretch) => self.hold(stretch),
                None => break,
            }
        }
        Ok(())
    }

    fn hold(&mut self, stretch: Stretch) {
        self.held_bytes += stretch.bytes;
        self.held.push_back(stretch);
    }

    async fn read(&mut self) -> Result<Option<Stretch>, Interruption> {
        while self.reading.len() < self.at_once {
            let Some(slice) = self.slices.next() else { break };
            self.reading.push_back(self.pull(slice));
        }
        let Some(answer) = self.reading.next().await else { return Ok(None) };
        let (pulled, Slice { after, until }) = answer?;
        if pulled.head.life != self.head.life {
            return Err(Interruption::LifeChanged);
        }
        if is_trimmed(&pulled.head, after) {
            return Err(Interruption::Trimmed);
        }
        self.at_once = READS;
        self.slices.learn(pulled.visited, pulled.exhausted);
        if !pulled.exhausted {
            self.reading.push_front(self.pull(Slice { after: pulled.last, until }));
        }
        Ok(Some(Stretch::new(pulled, until)))
    }

    fn pull(&self, slice: Slice) -> Reading<'a> {
        let (link, partition) = (self.link, self.partition);
        let part = Part { after: slice.after, until: Some(slice.until), count: MAX_VISITED };
        Box::pin(async move { Ok((link.log.pull(partition, part).await?, slice)) })
    }
}
