//! What a reader who stands at a position still gets from a channel's history, and what it must be told is lost.
//!
//! Pure: entries in, a [`Chunk`] out. A history may hold publications of several lives of an origin, as Redis may have
//! restarted between them. Each life's offsets grow along the stream, and no life comes back. So whatever follows an
//! entry of the reader's own epoch is unseen, and so is whatever is of a later epoch. What stands before it, or beside
//! an epoch whose order is not known, may have been seen: it is not delivered again.

use super::{
    entry::Entry,
    epoch::{are_of_one_life, is_later},
};
use skywave_channels::{
    broadcast::Publication,
    broker::{Chunk, Lost},
};
use skywave_protocol::{
    Point, Position,
    frame::{self, GapReason},
    position::{Epoch, Origin},
};
use skywave_redis::StreamId;
use std::sync::Arc;

/// The epoch of a region of which nothing is known here.
pub(crate) const UNKNOWN: &str = "unknown";

/// Which of two epochs of an origin came first, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Succession {
    /// The region's own name.
    pub own: Origin,
    /// Of regions that went on in an epoch whose name is an earlier one: the latest that they left.
    pub latest: Position,
}

impl Succession {
    /// Whether what another region published in an epoch is from before what somebody saw who stands at `seen`. What
    /// this region accepts begins here: of that nobody knows more.
    fn is_past(&self, origin: &Origin, epoch: &Epoch, seen: &Point) -> bool {
        let left = self.latest.get(origin);
        *origin != self.own
            && is_later(&seen.epoch, epoch)
            && left.is_none_or(|left| is_later(&seen.epoch, &left.epoch))
    }

    /// Whether what was published in an epoch came after all that somebody saw who stands at `seen`.
    fn is_to_come(&self, origin: &Origin, epoch: &Epoch, seen: &Point) -> bool {
        is_later(epoch, &seen.epoch) && self.latest.get(origin).is_none()
    }
}

/// Where a channel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub(crate) succession: Succession,
    /// The newest publication of each origin; of the own one also when there is none yet.
    pub position: Position,
    /// Where other regions begin that published nothing here in their present life. Whoever saw something of an earlier
    /// life has lost what followed it.
    pub beginnings: Position,
    /// Where those begin that published here in an epoch which they have left: who has seen nothing of them stands
    /// there.
    pub firsts: Position,
    /// Where other regions stood when their histories were filled in, as nothing was known of them here. Whoever
    /// subscribed before stands at [`UNKNOWN`].
    pub filled: Position,
    /// Regions whose earlier publications are still being brought here, or brought again, since this region's Redis
    /// lost them. What is missing of them now may come yet. The own one while Redis cannot begin the life that is due.
    pub coming: Vec<Origin>,
}

impl Head {
    /// Of a channel on which nothing was published.
    pub fn of(own: Origin) -> Self {
        let succession = Succession { own, latest: Position::new() };
        let [position, beginnings, firsts, filled] = std::array::from_fn(|_| Position::new());
        Self { succession, position, beginnings, firsts, filled, coming: Vec::new() }
    }

    /// Takes where the present lives of other regions begin, of whose earlier lives nothing is to come. A place of the
    /// channel in such an earlier life is past, as in the own region.
    pub fn begin(&mut self, beginnings: Position) {
        for (origin, beginning) in beginnings.iter() {
            let Some(stands) = self.position.get(origin) else {
                self.beginnings.set(origin.clone(), beginning.clone());
                continue;
            };
            if are_of_one_life(&stands.epoch, &beginning.epoch) {
                continue;
            }
            if is_later(&stands.epoch, &beginning.epoch) && self.succession.latest.get(origin).is_none() {
                self.succession.latest.set(origin.clone(), stands.clone());
            }
            if self.firsts.get(origin).is_none() {
                self.firsts.set(origin.clone(), Point { offset: 0, ..stands.clone() });
            }
            self.position.set(origin.clone(), beginning.clone());
        }
    }

    /// Where each origin stands for somebody who has seen `seen`.
    fn points<'a>(&'a self, seen: &'a Position) -> impl Iterator<Item = &'a (Origin, Point)> {
        let beginnings = self.beginnings.iter().filter(|(origin, _)| seen.get(origin).is_some());
        self.position.iter().chain(beginnings)
    }

    /// Whether nothing is known here of a region.
    pub(crate) fn is_without(&self, origin: &Origin) -> bool {
        self.position.get(origin).is_some_and(|point| *point.epoch == *UNKNOWN)
    }

    /// Where an origin stands, or where it begins.
    pub fn stands(&self, origin: &Origin) -> Option<&Point> {
        self.position.get(origin).or_else(|| self.beginnings.get(origin))
    }

    /// Whether somebody who stands at `seen` saw an epoch of another region that has yet to come here.
    fn is_behind(&self, origin: &Origin, seen: &Point) -> bool {
        self.stands(origin).is_some_and(|head| self.succession.is_past(origin, &head.epoch, seen))
    }

    /// Where somebody stands who saw epochs of other regions that have yet to come here.
    pub fn awaited(&self, seen: &Position) -> Position {
        seen.iter().filter(|(origin, point)| self.is_behind(origin, point)).cloned().collect()
    }

    /// A reader's position, completed: with a place for origins of which nothing was known when it subscribed, and for
    /// those that have left epochs of which it has seen nothing.
    pub(crate) fn placed(&self, position: &Position) -> Position {
        let place = |(origin, point): &(Origin, Point)| {
            let place = self.filled.get(origin).filter(|_| *point.epoch == *UNKNOWN);
            (origin.clone(), place.unwrap_or(point).clone())
        };
        let unseen = self.firsts.iter().filter(|(origin, _)| position.get(origin).is_none());
        position.iter().map(place).chain(unseen.cloned()).collect()
    }
}

/// From where on an origin's entries concern the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Starts {
    others: StreamId,
    origins: Vec<(Origin, StreamId)>,
    succession: Option<Succession>,
}

impl Starts {
    /// For all origins alike.
    pub(crate) fn at(id: StreamId) -> Self {
        Self { others: id, origins: Vec::new(), succession: None }
    }

    fn of(&self, origin: &Origin) -> StreamId {
        self.origins.iter().find(|(name, _)| name == origin).map_or(self.others, |(_, id)| *id)
    }

    /// Whether a publication is from before what the reader saw.
    fn is_past(&self, publication: &frame::Publication, seen: &Point) -> bool {
        let frame::Publication { origin, epoch, .. } = publication;
        self.succession.as_ref().is_some_and(|succession| succession.is_past(origin, epoch, seen))
    }
}

/// Looks, from the newest entry back, for the oldest that the reader has not seen.
pub(crate) struct Search {
    succession: Succession,
    origins: Vec<OriginSearch>,
    newest: Option<StreamId>,
}

struct OriginSearch {
    origin: Origin,
    seen: Option<Point>,
    current: Option<Epoch>,
    /// The oldest entry that certainly is unseen.
    wanted: Option<StreamId>,
    /// The oldest entry of another epoch than the reader's: unseen if an entry of the reader's comes before it.
    other: Option<StreamId>,
    /// The oldest entry of the current epoch.
    other_current: Option<StreamId>,
    done: bool,
}

impl Search {
    pub(crate) fn new(position: &Position, head: &Head) -> Self {
        let search = |(origin, point): &(Origin, Point)| {
            let seen = position.get(origin);
            let is_ahead = seen.is_some_and(|seen| head.is_behind(origin, seen));
            let search = OriginSearch::new(origin, seen, Some(point));
            OriginSearch { done: search.done || is_ahead, ..search }
        };
        let origins = head.points(position).map(search).collect();
        Self { succession: head.succession.clone(), origins, newest: None }
    }

    /// Looks at the next older entry.
    pub(crate) fn visit(&mut self, id: StreamId, publication: &Publication, position: &Position) {
        self.newest.get_or_insert(id);
        let origin = &publication.frame().origin;
        let index = match self.origins.iter().position(|search| search.origin == *origin) {
            Some(index) => index,
            None => {
                self.origins.push(OriginSearch::new(origin, position.get(origin), None));
                self.origins.len() - 1
            }
        };
        self.origins[index].visit(id, publication, &self.succession);
    }

    /// Nothing that the reader needs is older than what was visited.
    pub(crate) fn is_done(&self) -> bool {
        self.origins.iter().all(|search| search.done)
    }

    /// The oldest entry to be read, and from where on each origin's entries count; `None` when all was seen.
    pub(crate) fn finish(self) -> (Option<StreamId>, Starts) {
        let after_all = self.newest.map_or(StreamId::MIN, StreamId::next);
        let starts: Vec<_> =
            self.origins.into_iter().map(|search| (search.origin.clone(), search.start())).collect();
        let first = starts.iter().filter_map(|(_, start)| *start).min();
        let origins =
            starts.into_iter().map(|(origin, start)| (origin, start.unwrap_or(after_all))).collect();
        (first, Starts { others: StreamId::MIN, origins, succession: Some(self.succession) })
    }
}

impl OriginSearch {
    fn new(origin: &Origin, seen: Option<&Point>, head: Option<&Point>) -> Self {
        let up_to_date = |seen: &Point, head: &Point| seen.epoch == head.epoch && seen.offset >= head.offset;
        Self {
            origin: origin.clone(),
            seen: seen.cloned(),
            current: head.map(|head| head.epoch.clone()),
            wanted: None,
            other: None,
            other_current: None,
            done: seen.zip(head).is_some_and(|(seen, head)| up_to_date(seen, head)),
        }
    }

    fn visit(&mut self, id: StreamId, publication: &Publication, succession: &Succession) {
        if self.done {
            return;
        }
        let frame = publication.frame();
        let Some(seen) = &self.seen else {
            self.wanted = Some(id);
            return;
        };
        if succession.is_past(&frame.origin, &frame.epoch, seen) {
            return;
        }
        if succession.is_to_come(&frame.origin, &frame.epoch, seen) {
            self.wanted = Some(id);
            return;
        }
        if seen.epoch != frame.epoch {
            self.other = Some(id);
            if self.current.as_ref() == Some(&frame.epoch) {
                self.other_current = Some(id);
            }
            return;
        }
        if frame.offset > seen.offset {
            self.wanted = Some(id);
        } else if self.wanted.is_none() {
            self.wanted = self.other;
        }
        self.done = frame.offset <= seen.offset.saturating_add(1);
    }

    fn start(&self) -> Option<StreamId> {
        self.wanted.or(if self.done { None } else { self.other_current })
    }
}

/// The most that a chunk holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkLimit {
    pub publications: usize,
    /// Of their payloads; one publication fits always.
    pub bytes: usize,
}

/// Goes over entries, oldest first, and gathers what the reader gets.
pub(crate) struct Playback {
    starts: Starts,
    limit: ChunkLimit,
    position: Position,
    chunk: Chunk,
    bytes: usize,
    /// The entry that was gone over last.
    last: Option<StreamId>,
    /// Origins of which nothing is known here yet: what is being filled in of them is old.
    unknown: Vec<Origin>,
}

impl Playback {
    pub(crate) fn new(position: Position, starts: Starts, limit: ChunkLimit) -> Self {
        let chunk = Chunk { start: position.clone(), ..Chunk::default() };
        Self { starts, limit, position, chunk, bytes: 0, last: None, unknown: Vec::new() }
    }

    /// Tells a reader of the origins of which nothing was known when it subscribed what it does not get of them. To be
    /// called before entries are offered that were read together with `head`.
    pub(crate) fn place(&mut self, head: &Head) {
        let origins = head.position.iter().map(|(origin, _)| origin);
        self.unknown = origins.filter(|origin| head.is_without(origin)).cloned().collect();
        for (origin, point) in head.placed(&self.position).iter() {
            match self.position.get(origin) {
                Some(seen) if seen == point => {}
                Some(_) => drop(self.lose(origin, GapReason::EpochChanged, point.clone())),
                None => self.position.set(origin.clone(), point.clone()),
            }
        }
    }

    /// What the reader had seen before the chunk.
    pub(crate) fn start(&self) -> &Position {
        &self.chunk.start
    }

    /// What the reader has seen once it has the chunk.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    pub(crate) fn starts(&self) -> &Starts {
        &self.starts
    }

    /// How many bytes of payloads it still takes.
    pub(crate) fn room(&self) -> usize {
        self.limit.bytes.saturating_sub(self.bytes)
    }

    /// The entry that was gone over last.
    pub(crate) fn last(&self) -> Option<StreamId> {
        self.last
    }

    /// Takes the entry if it is unseen; `false` when the chunk has to end before it.
    pub(crate) fn offer(&mut self, entry: &Entry) -> bool {
        let fits = self.take(entry);
        if fits {
            self.last = Some(entry.id);
        }
        fits
    }

    fn take(&mut self, entry: &Entry) -> bool {
        let frame = entry.publication.frame();
        if entry.id < self.starts.of(&frame.origin) {
            return true;
        }
        let seen = self.position.get(&frame.origin);
        let lost = match seen {
            Some(seen) if self.starts.is_past(frame, seen) => return true,
            Some(seen) if *seen.epoch == *UNKNOWN && self.unknown.contains(&frame.origin) => return true,
            Some(seen) if seen.epoch == frame.epoch && frame.offset <= seen.offset => return true,
            Some(seen) if seen.epoch == frame.epoch => {
                (frame.offset > seen.offset + 1).then_some(GapReason::Trimmed)
            }
            Some(_) => Some(GapReason::EpochChanged),
            None => (frame.offset > 1).then_some(GapReason::Trimmed),
        };
        let size = frame.data.size();
        let full = self.chunk.publications.len() >= self.limit.publications
            || !self.chunk.publications.is_empty() && self.bytes + size > self.limit.bytes;
        if full {
            return false;
        }
        if let Some(reason) = lost {
            let point = Point { epoch: frame.epoch.clone(), offset: frame.offset.saturating_sub(1) };
            if !self.lose(&frame.origin, reason, point) {
                return false;
            }
        }
        self.position.advance(&frame.origin, &frame.epoch, frame.offset);
        self.bytes += size;
        self.chunk.publications.push(entry.publication.clone());
        true
    }

    /// Tells a loss before all publications of its origin; `false` when some are in the chunk already.
    fn lose(&mut self, origin: &Origin, reason: GapReason, point: Point) -> bool {
        let earlier = |publication: &Arc<Publication>| publication.frame().origin == *origin;
        if self.chunk.publications.iter().any(earlier) {
            self.chunk.loss_ahead.get_or_insert(reason);
            return false;
        }
        self.position.set(origin.clone(), point.clone());
        self.chunk.lost.push(Lost { origin: origin.clone(), reason, point });
        true
    }

    /// The chunk, when all entries up to `head` were offered.
    pub(crate) fn complete(mut self, head: &Head) -> Chunk {
        let mut complete = true;
        let seen = self.position.clone();
        for (origin, point) in head.points(&seen) {
            if head.coming.contains(origin) || self.is_ahead(head, origin) {
                continue;
            }
            let is_own = *origin == head.succession.own;
            if let Some(reason) = missing(seen.get(origin), point, is_own) {
                complete &= self.lose(origin, reason, point.clone());
            }
        }
        self.chunk.complete = complete;
        self.chunk.follows = complete.then_some(self.chunk.publications.len() as u64);
        self.chunk.coming = head.coming.clone();
        self.chunk
    }

    fn is_ahead(&self, head: &Head, origin: &Origin) -> bool {
        self.position.get(origin).is_some_and(|seen| head.is_behind(origin, seen))
    }

    /// How many publications follow on those of the chunk. Of an origin that has one in it, all newer ones are
    /// retained; of another that has something to come it is not known.
    fn ahead(&self, head: &Head) -> Option<u64> {
        let of = |(origin, point): &(Origin, Point)| {
            let played = self.chunk.publications.iter().any(|one| one.frame().origin == *origin);
            match self.position.get(origin) {
                Some(seen) if head.is_behind(origin, seen) => Some(0),
                Some(seen) if seen.epoch != point.epoch => None,
                Some(seen) if seen.offset >= point.offset => Some(0),
                Some(seen) if played => Some(point.offset - seen.offset),
                None if point.offset == 0 => Some(0),
                _ => None,
            }
        };
        head.points(&self.position).map(of).sum()
    }

    /// The chunk, when there are entries that were not offered or did not fit.
    pub(crate) fn part(mut self, head: &Head) -> Chunk {
        let changes = |(origin, point): &&(Origin, Point)| {
            !head.coming.contains(origin)
                && !self.is_ahead(head, origin)
                && self.position.get(origin).is_some_and(|seen| seen.epoch != point.epoch)
        };
        if self.chunk.loss_ahead.is_none() && head.points(&self.position).find(changes).is_some() {
            self.chunk.loss_ahead = Some(GapReason::EpochChanged);
        }
        self.chunk.follows = self.ahead(head).map(|ahead| ahead + self.chunk.publications.len() as u64);
        self.chunk
    }
}

/// Why somebody at `seen`, for whom the history holds nothing more, does not get to `head`.
fn missing(seen: Option<&Point>, head: &Point, is_own: bool) -> Option<GapReason> {
    match seen {
        None => (head.offset > 0).then_some(GapReason::Trimmed),
        Some(seen) if seen.epoch != head.epoch => Some(GapReason::EpochChanged),
        Some(seen) if seen.offset < head.offset => Some(GapReason::Trimmed),
        // Another region's publications may have reached the reader there, but not yet this region.
        Some(seen) if seen.offset > head.offset && is_own => Some(GapReason::UnknownPosition),
        Some(_) => None,
    }
}

/// Moves a position to before an entry, the newest first: from where a channel stands, it gets to before all of them.
pub(crate) fn step_before(position: &mut Position, entry: &Entry) {
    let frame = entry.publication.frame();
    let point = Point { epoch: frame.epoch.clone(), offset: frame.offset.saturating_sub(1) };
    position.set(frame.origin.clone(), point);
}

#[cfg(test)]
#[path = "recovery/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "recovery/model.rs"]
mod model;
