//! A subscription of this client: its position, the keys seen, and what reaches its reader.

use crate::{
    error::RequestError,
    subscription::{ChannelEvent, Subscribed},
};
use skywave_protocol::{
    Admission, Position,
    frame::{self, Gap, Key, Publication, ServerFrame, SubscribeOptions},
};
use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// How many keys of a channel are remembered: a publication with one of them is a repetition.
const REMEMBERED_KEYS: usize = 1000;
/// A channel that went without a fault for so long has none behind it.
const FAULT_MEMORY: Duration = Duration::from_secs(60);

/// One subscription of this client.
#[derive(Debug)]
pub(super) struct Entry {
    pub id: u64,
    options: SubscribeOptions,
    /// What the reader has, or has in its queue; none before the first `subscribed`.
    position: Option<Position>,
    keys: RecentKeys,
    events: mpsc::Sender<ChannelEvent>,
    ended: Arc<OnceLock<ChannelEvent>>,
    waiter: Option<oneshot::Sender<Result<(), RequestError>>>,
    /// Left on the wire for now: the reader's queue is full, or the node asked to come back later.
    pub paused: bool,
    /// Faults in a row, and the last one.
    faults: u32,
    faulted_at: Option<Instant>,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Done,
    /// The reader's queue is full; the frame was not taken, and the position stands before it.
    Full,
    /// It does not follow on the position, and no `gap` said so.
    OutOfOrder,
}

impl Entry {
    pub fn new(
        id: u64,
        options: SubscribeOptions,
        events: mpsc::Sender<ChannelEvent>,
        ended: Arc<OnceLock<ChannelEvent>>,
        waiter: oneshot::Sender<Result<(), RequestError>>,
    ) -> Self {
        let position = options.position.clone();
        let keys = RecentKeys::default();
        Self {
            id,
            options,
            position,
            keys,
            events,
            ended,
            waiter: Some(waiter),
            paused: false,
            faults: 0,
            faulted_at: None,
        }
    }

    /// How to subscribe now: from the position held, or as at first.
    pub fn request(&self) -> SubscribeOptions {
        let history = if self.position.is_none() { self.options.history } else { None };
        SubscribeOptions { position: self.position.clone(), history, presence: self.options.presence }
    }

    pub fn subscribed(&mut self, subscribed: frame::Subscribed) -> Delivery {
        if subscribed.recovered.is_none() && self.is_behind(&subscribed.position) {
            return Delivery::OutOfOrder;
        }
        // Held already: what the reader has may be ahead of where the node begins.
        let position = self.position.get_or_insert_with(|| subscribed.position.clone()).clone();
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.send(Ok(()));
        }
        self.push(ChannelEvent::Subscribed(Subscribed {
            position,
            recovered: subscribed.recovered,
            reason: subscribed.reason,
            recovers: subscribed.recovers,
            presence: subscribed.presence,
        }))
    }

    /// Whether a subscription that begins afresh at `start` leaves out what the reader has not got: one that was asked for
    /// before another connection confirmed the channel may.
    fn is_behind(&self, start: &Position) -> bool {
        let Some(held) = &self.position else { return false };
        start.iter().any(|(origin, point)| match held.get(origin) {
            Some(known) => known.epoch != point.epoch || known.offset < point.offset,
            None => point.offset > 0,
        })
    }

    /// Hands on a frame of this channel that came after `subscribed`.
    pub fn deliver(&mut self, frame: ServerFrame) -> Delivery {
        match frame {
            ServerFrame::Publication(publication) => self.publication(publication),
            ServerFrame::Gap(gap) => self.gap(gap),
            ServerFrame::PresenceChanged(changed) => self.push(ChannelEvent::PresenceChanged(changed)),
            ServerFrame::Event(event) => {
                // Ephemeral: for a reader that is too slow it is over.
                let _ = self.push(ChannelEvent::Event(event));
                Delivery::Done
            }
            _ => Delivery::Done,
        }
    }

    fn publication(&mut self, publication: Publication) -> Delivery {
        let Some(position) = &mut self.position else { return Delivery::OutOfOrder };
        match position.admit(&publication.origin, &publication.epoch, publication.offset) {
            Admission::Next => {}
            Admission::Duplicate => return Delivery::Done,
            Admission::Gap | Admission::NewEpoch => return Delivery::OutOfOrder,
        }
        let (origin, epoch, offset) =
            (publication.origin.clone(), publication.epoch.clone(), publication.offset);
        let key = publication.key.clone();
        if !key.as_ref().is_some_and(|key| self.keys.contains(key)) {
            match self.push(ChannelEvent::Publication(publication)) {
                Delivery::Done => {}
                other => return other,
            }
            if let Some(key) = key {
                self.keys.insert(&key);
            }
        }
        if let Some(position) = &mut self.position {
            position.advance(&origin, &epoch, offset);
        }
        Delivery::Done
    }

    fn gap(&mut self, gap: Gap) -> Delivery {
        let position = self.position.get_or_insert_default();
        let known = position.get(&gap.origin);
        if known.is_some_and(|point| point.epoch == gap.epoch && gap.offset <= point.offset) {
            // Told before, on another connection.
            return Delivery::Done;
        }
        let (origin, epoch, offset) = (gap.origin.clone(), gap.epoch.clone(), gap.offset);
        let delivery = self.push(ChannelEvent::Gap(gap));
        if let (Delivery::Done, Some(position)) = (delivery, &mut self.position) {
            position.advance(&origin, &epoch, offset);
        }
        delivery
    }

    fn push(&self, event: ChannelEvent) -> Delivery {
        match self.events.try_send(event) {
            // A reader that has gone is told of by its drop.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Delivery::Done,
            Err(mpsc::error::TrySendError::Full(_)) => Delivery::Full,
        }
    }

    /// Waits until half of the reader's queue is free; at once when the reader is gone.
    pub fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        let events = self.events.clone();
        async move {
            // The permits go back unused; an error says that the reader is gone.
            let _ = events.reserve_many(events.max_capacity() / 2).await;
        }
    }

    /// A publication was missing, or the node refused the channel for the moment. Tells how many times in a row that was so
    /// before.
    pub fn faulted(&mut self) -> u32 {
        let now = Instant::now();
        if self.faulted_at.replace(now).is_none_or(|before| now - before > FAULT_MEMORY) {
            self.faults = 0;
        }
        self.faults = self.faults.saturating_add(1);
        self.faults - 1
    }

    /// Whether `subscribe` still waits for its answer.
    pub fn is_new(&self) -> bool {
        self.waiter.is_some()
    }

    /// Tells the reader, or whoever waits for the subscription, that this is the end.
    pub fn end(mut self, error: RequestError, code: Option<u16>) {
        let unsubscribed = ChannelEvent::Unsubscribed { code, reason: error.reason.clone() };
        // Set once: an entry ends once.
        let _ = self.ended.set(unsubscribed);
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.send(Err(error));
        }
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
