//! One subscribed channel: its position, the keys seen, and what is handed to its reader.

use crate::{
    ChannelEvent, Ticket, Time,
    channel_event::{Reader, Subscribed},
};
use skywave_protocol::{
    Admission, Position,
    frame::{self, Gap, Key, Publication, ServerFrame, SubscribeOptions},
};
use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// How many keys of a channel are remembered: a publication with one of them is a repetition.
const REMEMBERED_KEYS: usize = 1000;
/// A channel that went so long without being refused or missing anything is well.
const FAILURE_MEMORY: Duration = Duration::from_secs(60);

/// Names a subscription among all that a client has in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// Why a frame could not be handed on, which leaves the position before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The reader has no room.
    Full,
    /// It does not follow on the position, and no `gap` said so.
    OutOfOrder,
}

pub(crate) struct Subscription<R> {
    pub id: SubscriptionId,
    /// What the reader has; none before the first `subscribed`.
    pub position: Option<Position>,
    /// Left on the wire for now: the reader has no room, or the node asked to come back later.
    pub(crate) is_paused: bool,
    /// When a paused one is asked for again; none while the reader has no room.
    pub(crate) resume_at: Option<Time>,
    /// Who waits for the first `subscribed`.
    pub waiter: Option<Ticket>,
    options: SubscribeOptions,
    pub reader: R,
    keys: RecentKeys,
    /// How often in a row it was refused or missed something, and when it was asked for after the last time.
    failures: u32,
    failed_at: Option<Time>,
}

impl<R: Reader> Subscription<R> {
    pub(crate) fn new(id: SubscriptionId, options: SubscribeOptions, reader: R, waiter: Ticket) -> Self {
        Self {
            id,
            position: options.position.clone(),
            is_paused: false,
            resume_at: None,
            waiter: Some(waiter),
            options,
            reader,
            keys: RecentKeys::default(),
            failures: 0,
            failed_at: None,
        }
    }

    /// How to subscribe now: from the position held, or as at first.
    pub(crate) fn request(&self) -> SubscribeOptions {
        let history = if self.position.is_none() { self.options.history } else { None };
        SubscribeOptions { position: self.position.clone(), history, presence: self.options.presence }
    }

    pub(crate) fn subscribed(&mut self, frame: frame::Subscribed) -> Result<(), Obstacle> {
        // One that is held already may be ahead of where the node begins, and is never behind.
        let position = self.position.get_or_insert_with(|| frame.position.clone()).clone();
        self.offer(ChannelEvent::Subscribed(Subscribed::new(frame, position)))
    }

    /// Hands on a frame of this channel that came after `subscribed`, or says why not.
    pub(crate) fn deliver(&mut self, frame: ServerFrame) -> Result<(), Obstacle> {
        match frame {
            ServerFrame::Publication(publication) => self.publication(publication),
            ServerFrame::Gap(gap) => self.gap(gap),
            ServerFrame::PresenceChanged(changed) => self.offer(ChannelEvent::PresenceChanged(changed)),
            ServerFrame::Event(event) => {
                // Ephemeral: for a reader that is too slow it is over.
                let _ = self.offer(ChannelEvent::Event(event));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn publication(&mut self, publication: Publication) -> Result<(), Obstacle> {
        let position = self.position.as_ref().ok_or(Obstacle::OutOfOrder)?;
        match position.admit(&publication.origin, &publication.epoch, publication.offset) {
            Admission::Next => {}
            Admission::Duplicate => return Ok(()),
            Admission::Gap | Admission::NewEpoch => return Err(Obstacle::OutOfOrder),
        }
        let (origin, epoch, offset) =
            (publication.origin.clone(), publication.epoch.clone(), publication.offset);
        let key = publication.key.clone();
        if !key.as_ref().is_some_and(|key| self.keys.contains(key)) {
            self.offer(ChannelEvent::Publication(publication))?;
            if let Some(key) = key {
                self.keys.insert(&key);
            }
        }
        if let Some(position) = &mut self.position {
            position.advance(&origin, &epoch, offset);
        }
        Ok(())
    }

    fn gap(&mut self, gap: Gap) -> Result<(), Obstacle> {
        let position = self.position.get_or_insert_default();
        let known = position.get(&gap.origin);
        if known.is_some_and(|point| point.epoch == gap.epoch && gap.offset <= point.offset) {
            // Told before, on another connection.
            return Ok(());
        }
        let (origin, epoch, offset) = (gap.origin.clone(), gap.epoch.clone(), gap.offset);
        self.offer(ChannelEvent::Gap(gap))?;
        if let Some(position) = &mut self.position {
            position.advance(&origin, &epoch, offset);
        }
        Ok(())
    }

    fn offer(&mut self, event: ChannelEvent) -> Result<(), Obstacle> {
        self.reader.offer(event).map_err(|_| Obstacle::Full)
    }

    /// It was refused for the moment, or missed something. Tells how many times in a row that was so before.
    pub(crate) fn failed(&mut self, now: Time) -> u32 {
        if self.failed_at.is_some_and(|before| now.since(before) > FAILURE_MEMORY) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.failures - 1
    }

    /// Is left on the wire until `until`, or until its reader has room.
    pub(crate) fn pause(&mut self, until: Option<Time>) {
        self.is_paused = true;
        self.resume_at = until;
        self.failed_at = until.or(self.failed_at);
    }
}

/// The last keys of a channel, as hashes with a secret seed: a false match is once in 2⁵⁴.
#[derive(Debug, Default)]
struct RecentKeys {
    seed: RandomState,
    order: VecDeque<u64>,
    known: HashSet<u64>,
}

impl RecentKeys {
    fn contains(&self, key: &Key) -> bool {
        !self.known.is_empty() && self.known.contains(&self.seed.hash_one(&**key))
    }

    fn insert(&mut self, key: &Key) {
        let hash = self.seed.hash_one(&**key);
        if self.known.insert(hash) {
            self.order.push_back(hash);
            if self.order.len() > REMEMBERED_KEYS
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}
