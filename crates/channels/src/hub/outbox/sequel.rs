//! What a lane's peer gets next, joined from the three who know of it: history, what gathered live, and what is lost.
//!
//! One rule makes everything follow what comes before it. Whatever is missing before a publication, or up to the end of
//! a loss, is taken from what gathered live; what is not there is told as lost, never more and never twice. So a
//! reading always leads on, whichever of the three knew more when.

use super::lane::Item;
use crate::{broadcast::Publication, broker::Chunk};
use skywave_protocol::{
    Admission, Channel, Form, Point, Position,
    frame::GapReason,
    position::{Epoch, Origin},
};
use std::{collections::VecDeque, sync::Arc};

/// How much a part of the history may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) bytes: usize,
    /// What is larger goes alone.
    pub(super) is_all: bool,
}

pub(super) struct Sequel<'a> {
    channel: &'a Channel,
    form: &'static Form,
    /// Where the peer stands when it has all `items`.
    position: Position,
    pub(super) items: Vec<Item>,
    room: Room,
    bytes: usize,
    /// What the next item needs, if that alone is more than there is room for.
    pub(super) needs: usize,
    live: &'a VecDeque<Item>,
    /// The live publications by origin, epoch and offset, once they are asked for.
    sorted: Option<Vec<&'a Arc<Publication>>>,
    loss: Option<GapReason>,
}

impl<'a> Sequel<'a> {
    /// What follows `position`, where `live` has gathered.
    pub(super) fn new(
        channel: &'a Channel,
        position: &Position,
        live: &'a VecDeque<Item>,
        form: &'static Form,
    ) -> Self {
        Self {
            channel,
            form,
            position: position.clone(),
            items: Vec::new(),
            room: Room { bytes: usize::MAX, is_all: true },
            bytes: 0,
            needs: 0,
            live,
            sorted: None,
            loss: None,
        }
    }

    /// Goes on with a part of the history, as much of it as there is room for. Answers why the peer does not get all
    /// before its end, if so, and whether nothing more is to be read.
    pub(super) fn read(&mut self, chunk: &Chunk, room: Room) -> (Option<GapReason>, bool) {
        self.room = room;
        let told = chunk.lost.iter().all(|lost| self.reach(&lost.origin, &lost.point, lost.reason));
        let ahead = if told { chunk.loss_ahead } else { chunk.loss() };
        let whole = told && chunk.publications.iter().all(|publication| self.take(publication));
        self.room = Room { bytes: usize::MAX, is_all: true };
        (self.loss.or(ahead), whole && chunk.complete)
    }

    /// Goes on with what came live and is known to the history that was read. `false` if it has to wait for what is
    /// missing before it, as more is `coming` of its origin.
    pub(super) fn go_on(&mut self, item: &Item, coming: &[Origin]) -> bool {
        let Item::Publication(publication) = item else { return self.push(item.clone()) };
        match item.admission(&self.position) {
            Admission::Next => self.push(item.clone()),
            Admission::Duplicate => true,
            _ if coming.contains(&publication.frame().origin) => false,
            Admission::Gap => self.take(publication),
            // History was read since: its epoch is past.
            Admission::NewEpoch => true,
        }
    }

    /// Keeps what came live, to be admitted when its turn comes.
    pub(super) fn keep(&mut self, item: &Item) {
        if item.admission(&self.position) != Admission::Duplicate {
            self.items.push(item.clone());
        }
    }

    /// Goes on to a publication; `false` when there is no room.
    fn take(&mut self, publication: &Arc<Publication>) -> bool {
        let frame = publication.frame();
        let before = Point { epoch: frame.epoch.clone(), offset: frame.offset.saturating_sub(1) };
        let reached = match self.position.admit(&frame.origin, &frame.epoch, frame.offset) {
            Admission::Duplicate => return true,
            Admission::Next => true,
            Admission::Gap => self.reach(&frame.origin, &before, GapReason::Trimmed),
            Admission::NewEpoch => self.reach(&frame.origin, &before, GapReason::EpochChanged),
        };
        reached && self.push(Item::Publication(publication.clone()))
    }

    /// Goes on to the end of a loss, with all that is there before it; `false` when there is no room.
    fn reach(&mut self, origin: &Origin, to: &Point, mut reason: GapReason) -> bool {
        if reason == GapReason::UnknownPosition && self.offset(origin, &to.epoch) > Some(to.offset) {
            // The peer holds what does not exist: it alone is led back.
            return self.lose(origin, to.clone(), reason);
        }
        if to.offset == 0 && self.position.get(origin).is_none() {
            // All of the epochs before.
            return self.lose(origin, to.clone(), reason);
        }
        while let Some(next) = self.last_of_epoch(origin, &to.epoch) {
            if !self.push_live(next) {
                return false;
            }
        }
        loop {
            let from = self.offset(origin, &to.epoch);
            if from >= Some(to.offset) {
                return true;
            }
            let next = self.gathered(origin, &to.epoch, from.unwrap_or(0));
            let next = next.filter(|next| next.frame().offset <= to.offset);
            let end = next.map_or(to.offset, |next| next.frame().offset.saturating_sub(1));
            if from != Some(end) {
                let point = Point { epoch: to.epoch.clone(), offset: end };
                if !self.lose(origin, point, reason) {
                    return false;
                }
                reason = GapReason::Trimmed;
            }
            if next.is_some_and(|next| !self.push_live(next)) {
                return false;
            }
        }
    }

    /// The last offset of an epoch that the peer has; `None` if it stands in another one.
    fn offset(&self, origin: &Origin, epoch: &Epoch) -> Option<u64> {
        match self.position.get(origin) {
            None => Some(0),
            Some(seen) => (seen.epoch == *epoch).then_some(seen.offset),
        }
    }

    /// What follows the peer's position in the epoch in which it stands, before another begins.
    fn last_of_epoch(&mut self, origin: &Origin, another: &Epoch) -> Option<&'a Arc<Publication>> {
        let Point { epoch, offset } =
            self.position.get(origin).filter(|seen| seen.epoch != *another)?.clone();
        self.gathered(origin, &epoch, offset)
            .filter(|next| Some(next.frame().offset) == offset.checked_add(1))
    }

    /// The first publication after an offset that gathered live.
    fn gathered(&mut self, origin: &Origin, epoch: &Epoch, after: u64) -> Option<&'a Arc<Publication>> {
        fn key(publication: &Publication) -> (&Origin, &Epoch, u64) {
            let frame = publication.frame();
            (&frame.origin, &frame.epoch, frame.offset)
        }
        let live = self.live;
        let sorted = self.sorted.get_or_insert_with(|| {
            let publications = live.iter().filter_map(|item| match item {
                Item::Publication(publication) => Some(publication),
                Item::Frame(_) | Item::Loss(_) => None,
            });
            let mut sorted: Vec<_> = publications.collect();
            sorted.sort_unstable_by(|one, other| key(one).cmp(&key(other)));
            sorted
        });
        let first = sorted.partition_point(|one| key(one) <= (origin, epoch, after));
        let found = sorted.get(first).copied();
        found.filter(|one| one.frame().origin == *origin && one.frame().epoch == *epoch)
    }

    fn lose(&mut self, origin: &Origin, point: Point, reason: GapReason) -> bool {
        let told = self.push(Item::loss(self.channel, origin, point, reason, self.form));
        if told {
            self.loss.get_or_insert(reason);
        }
        told
    }

    fn push(&mut self, item: Item) -> bool {
        let size = item.size(self.form);
        let alone = self.bytes == 0 && self.room.is_all;
        if !alone && self.bytes.saturating_add(size) > self.room.bytes {
            self.needs = if self.bytes == 0 { size } else { 0 };
            return false;
        }
        self.add(item, size);
        true
    }

    /// What came live only moves to the front: it needs no room, but counts, so that a part stays a part.
    fn push_live(&mut self, publication: &Arc<Publication>) -> bool {
        let item = Item::Publication(publication.clone());
        let size = item.size(self.form);
        let fits = self.bytes == 0 || self.bytes.saturating_add(size) <= self.room.bytes;
        if fits {
            self.add(item, size);
        }
        fits
    }

    fn add(&mut self, item: Item, size: usize) {
        item.pass(&mut self.position, self.form);
        self.items.push(item);
        self.bytes += size;
    }
}
