//! The newest publications of channels that somebody resumed, so that a resume storm is answered by the node.
//!
//! A channel's window begins before its history is read from Redis, and the tail keeps it up to date from then on. So
//! for a subscriber that joined the hub before it asked, the window holds everything that does not come live. An answer
//! is given only where the window provably holds all that follows the asked position.

use super::{epoch::is_later, recovery::Head};
use parking_lot::Mutex;
use skywave_channels::{
    broadcast::Publication,
    broker::{Chunk, Lost, MAX_CHUNK},
};
use skywave_protocol::{Admission, Channel, Point, Position, position::Origin};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// A window that nobody asked for this long is dropped.
const IDLE: Duration = Duration::from_secs(60);
/// A window is read anew after that time: a channel's position stays for as long as it is read now and then.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The most positions of a channel for which a loss is remembered.
const MAX_LOSSES: usize = 8;

/// The bounds of a [`Cache`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheLimit {
    pub channels: usize,
    /// Of payloads, per channel.
    pub(crate) channel_bytes: usize,
    /// Of payloads, of all channels.
    pub bytes: usize,
}

impl Default for CacheLimit {
    fn default() -> Self {
        Self { channels: 4_096, channel_bytes: 1 << 20, bytes: 64 << 20 }
    }
}

pub(crate) struct Cache {
    own: Origin,
    limit: CacheLimit,
    windows: Mutex<Windows>,
}

#[derive(Default)]
struct Windows {
    by_channel: HashMap<Channel, Window>,
    /// Least recently used first.
    by_use: BTreeMap<u64, Channel>,
    uses: u64,
    bytes: usize,
}

struct Window {
    /// `None` while the history is being read.
    coverage: Option<Coverage>,
    publications: VecDeque<Arc<Publication>>,
    bytes: usize,
    /// What those who stand at a position have lost, when all that they still get is in the window. After a change of
    /// life, all subscribers of the channel ask from the same position.
    losses: VecDeque<(Position, Vec<Lost>)>,
    /// What this node's publisher was told; the tail is about to bring it.
    promised: Option<Point>,
    /// Regions that have yet to be reached for the first time: who reads is told so.
    coming: Vec<Origin>,
    /// When it has to be read anew.
    stale_at: Option<Instant>,
    used: u64,
    used_at: Instant,
}

/// All publications after `start` up to `head` are in the window. An origin that is absent in `start` is there
/// from its beginning.
struct Coverage {
    start: Position,
    head: Position,
    /// Of other origins that are absent in `head`.
    beginnings: Position,
}

impl Cache {
    pub(crate) fn new(own: Origin, limit: CacheLimit) -> Self {
        Self { own, limit, windows: Mutex::default() }
    }

    /// All that follows `position`, if that is known.
    pub(crate) fn serve(&self, channel: &Channel, position: &Position) -> Option<Chunk> {
        let mut windows = self.windows.lock();
        let window = windows.by_channel.get(channel)?;
        if window.stale_at.is_some_and(|at| at <= Instant::now()) {
            return None;
        }
        let lost = window.losses.iter().find(|(from, _)| from == position);
        let lost = lost.map_or_else(Vec::new, |(_, lost)| lost.clone());
        let publications = window.after(&beyond(position, &lost), &self.own)?;
        let (start, coming) = (position.clone(), window.coming.clone());
        let follows = Some(publications.len() as u64);
        windows.touch(channel);
        Some(Chunk { start, lost, publications, complete: true, follows, coming, ..Chunk::default() })
    }

    /// To be called before the channel's history is read from Redis.
    pub(crate) fn expect(&self, channel: &Channel) {
        let mut windows = self.windows.lock();
        if !windows.by_channel.contains_key(channel) {
            windows.by_channel.insert(channel.clone(), Window::new());
        }
        windows.touch(channel);
        windows.shrink(self.limit);
    }

    /// Takes what was read since [`Self::expect`]: a complete chunk, which ends at `head`. What is retained for `age`
    /// is read anew after that time: the window does not know what has expired meanwhile.
    pub(crate) fn fill(&self, channel: &Channel, chunk: &Chunk, head: &Head, age: Option<Duration>) {
        let mut windows = self.windows.lock();
        // Dropped meanwhile: something is missing.
        let Some(old) = windows.remove(channel) else { return };
        let mut window = Window { promised: old.promised, losses: old.losses, ..Window::new() };
        window.stale_at = Some(Instant::now() + age.map_or(LONGEST, |age| age.min(LONGEST)));
        window.coming.clone_from(&chunk.coming);
        let start = beyond(&chunk.start, &chunk.lost);
        let (head, beginnings) = (head.position.clone(), head.beginnings.clone());
        window.coverage = Some(Coverage { start, head, beginnings });
        for publication in &chunk.publications {
            window.push(publication.clone(), self.limit);
        }
        if !chunk.lost.is_empty() {
            window.losses.truncate(MAX_LOSSES - 1);
            window.losses.push_front((chunk.start.clone(), chunk.lost.clone()));
        }
        if old.publications.iter().all(|publication| window.advance(publication, self.limit)) {
            windows.insert(channel, window);
            windows.shrink(self.limit);
        }
    }

    /// Nothing came of what [`Self::expect`] announced.
    pub(crate) fn abandon(&self, channel: &Channel) {
        let mut windows = self.windows.lock();
        if windows.by_channel.get(channel).is_some_and(|window| window.coverage.is_none()) {
            windows.remove(channel);
        }
    }

    /// Forgets a channel of which something is lost.
    pub(crate) fn forget(&self, channel: &Channel) {
        self.windows.lock().remove(channel);
    }

    /// Takes a publication from the tail. To be called before it is delivered to the hub.
    pub(crate) fn publication(&self, publication: &Arc<Publication>) {
        let channel = &publication.frame().channel;
        let mut windows = self.windows.lock();
        let Some(window) = windows.by_channel.get_mut(channel) else { return };
        let before = window.bytes;
        let keep = window.used_at.elapsed() < IDLE && window.advance(publication, self.limit);
        let after = window.bytes;
        windows.bytes = windows.bytes + after - before;
        if keep {
            windows.shrink(self.limit);
        } else {
            windows.remove(channel);
        }
    }

    /// This node's publisher was told this. Whoever asks from now on must not be told less, nor less than others were
    /// told before: answers may be heard in another order than they were given.
    pub(crate) fn promise(&self, channel: &Channel, point: Point) {
        let mut windows = self.windows.lock();
        let Some(window) = windows.by_channel.get_mut(channel) else { return };
        let is_past = |known: &Point| {
            known.epoch == point.epoch && known.offset > point.offset || is_later(&known.epoch, &point.epoch)
        };
        if !window.promised.as_ref().is_some_and(is_past) {
            window.promised = Some(point);
        }
    }

    /// Forgets everything, as after a change of life, or when a region has come.
    pub(crate) fn clear(&self) {
        *self.windows.lock() = Windows::default();
    }
}

impl Windows {
    fn touch(&mut self, channel: &Channel) {
        let Some(window) = self.by_channel.get_mut(channel) else { return };
        self.by_use.remove(&window.used);
        self.uses += 1;
        window.used = self.uses;
        window.used_at = Instant::now();
        self.by_use.insert(self.uses, channel.clone());
    }

    fn insert(&mut self, channel: &Channel, window: Window) {
        self.bytes += window.bytes;
        self.by_channel.insert(channel.clone(), window);
        self.touch(channel);
    }

    fn remove(&mut self, channel: &Channel) -> Option<Window> {
        let window = self.by_channel.remove(channel)?;
        self.by_use.remove(&window.used);
        self.bytes -= window.bytes;
        Some(window)
    }

    /// Drops what was not used for longest, until the rest is within the limit.
    fn shrink(&mut self, limit: CacheLimit) {
        while self.by_channel.len() > limit.channels || self.bytes > limit.bytes {
            let Some((_, channel)) = self.by_use.pop_first() else { return };
            self.remove(&channel);
        }
    }
}

impl Window {
    fn new() -> Self {
        Self {
            coverage: None,
            publications: VecDeque::new(),
            bytes: 0,
            losses: VecDeque::new(),
            promised: None,
            coming: Vec::new(),
            stale_at: None,
            used: 0,
            used_at: Instant::now(),
        }
    }

    fn after(&self, position: &Position, own: &Origin) -> Option<Vec<Arc<Publication>>> {
        let Coverage { start, head, beginnings } = self.coverage.as_ref()?;
        let own_head = head.get(own)?;
        let is_behind =
            |promised: &Point| promised.epoch != own_head.epoch || promised.offset > own_head.offset;
        if self.promised.as_ref().is_some_and(is_behind) || position.get(own).is_none() {
            return None;
        }
        for (origin, newest) in head.iter() {
            let first = start.get(origin);
            match position.get(origin) {
                None if first.is_none() => {}
                Some(seen)
                    if seen.epoch == newest.epoch
                        && seen.offset <= newest.offset
                        && first
                            .is_none_or(|first| first.epoch == seen.epoch && first.offset <= seen.offset) => {
                }
                _ => return None,
            }
        }
        let is_elsewhere = |(origin, seen): &(Origin, Point)| {
            head.get(origin).is_none() && beginnings.get(origin).is_some_and(|beginning| beginning != seen)
        };
        if position.iter().any(is_elsewhere) {
            return None;
        }
        let is_unseen = |publication: &&Arc<Publication>| {
            let frame = publication.frame();
            position.get(&frame.origin).is_none_or(|seen| seen.offset < frame.offset)
        };
        Some(self.publications.iter().filter(is_unseen).cloned().collect())
    }

    /// Takes a publication from the tail; `false` when the window is worth nothing any more.
    fn advance(&mut self, publication: &Arc<Publication>, limit: CacheLimit) -> bool {
        let frame = publication.frame();
        let Some(coverage) = &mut self.coverage else {
            self.bytes += frame.data.size();
            self.publications.push_back(publication.clone());
            return self.publications.len() <= MAX_CHUNK && self.bytes <= limit.channel_bytes;
        };
        match coverage.head.admit(&frame.origin, &frame.epoch, frame.offset) {
            Admission::Next => {
                coverage.head.advance(&frame.origin, &frame.epoch, frame.offset);
                self.push(publication.clone(), limit);
                true
            }
            Admission::Duplicate => true,
            Admission::Gap | Admission::NewEpoch => false,
        }
    }

    fn push(&mut self, publication: Arc<Publication>, limit: CacheLimit) {
        self.bytes += publication.frame().data.size();
        self.publications.push_back(publication);
        while self.publications.len() > MAX_CHUNK || self.bytes > limit.channel_bytes {
            let Some(oldest) = self.publications.pop_front() else { return };
            let frame = oldest.frame();
            self.bytes -= frame.data.size();
            if let Some(coverage) = &mut self.coverage {
                coverage.start.advance(&frame.origin, &frame.epoch, frame.offset);
            }
        }
    }
}

/// Where somebody goes on who stood at `position` and was told what is lost.
fn beyond(position: &Position, lost: &[Lost]) -> Position {
    let mut position = position.clone();
    for lost in lost {
        position.set(lost.origin.clone(), lost.point.clone());
    }
    position
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
