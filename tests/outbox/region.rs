//! A channel as its region has it: the reference that says what a reading of its history may answer.

use skywave::broker::{Chunk, Lost};
use skywave_protocol::{Point, Position, Text, frame::GapReason, position::Origin};
use std::collections::{BTreeMap, VecDeque};

/// The origins of all publications: the node's own region, and another one.
pub const ORIGINS: [&str; 2] = ["eu", "us"];
pub const OTHER: usize = 1;

/// Which publication. Epochs are numbered in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub origin: usize,
    pub epoch: u32,
    pub offset: u64,
}

impl Name {
    pub fn origin(self) -> Origin {
        Text::new(ORIGINS[self.origin]).unwrap()
    }

    pub fn point(self) -> Point {
        Point { epoch: Text::new(format!("e{}", self.epoch)).unwrap(), offset: self.offset }
    }

    pub fn of(origin: &str, epoch: &str, offset: u64) -> Self {
        let origin = ORIGINS.iter().position(|one| *one == origin).unwrap();
        Self { origin, epoch: epoch[1..].parse().unwrap(), offset }
    }
}

/// Origin → the last publication that was seen of it.
pub type Seen = BTreeMap<usize, Name>;

pub fn position(seen: &Seen) -> Position {
    seen.values().map(|name| (name.origin(), name.point())).collect()
}

/// Whether somebody at `seen` has yet to see `name`: no earlier epoch comes back.
pub fn is_unseen(seen: &Seen, name: Name) -> bool {
    seen.get(&name.origin).is_none_or(|seen| (seen.epoch, seen.offset) < (name.epoch, name.offset))
}

/// Whether `name` is the one that follows.
pub fn follows(seen: &Seen, name: Name) -> bool {
    match seen.get(&name.origin) {
        None => name.offset == 1,
        Some(seen) => seen.epoch == name.epoch && seen.offset + 1 == name.offset,
    }
}

#[derive(Debug, Clone)]
pub struct Region {
    /// So many publications are retained.
    pub history: usize,
    pub heads: [Name; ORIGINS.len()],
    /// All that was ever published, and the bytes of each.
    pub log: Vec<(Name, usize)>,
    pub retained: VecDeque<Name>,
    /// What is missing of the other origin may come yet.
    pub is_coming: bool,
}

impl Region {
    pub fn new(history: usize) -> Self {
        let heads = [0, 1].map(|origin| Name { origin, epoch: 0, offset: 0 });
        Self { history, heads, log: Vec::new(), retained: VecDeque::new(), is_coming: false }
    }

    pub fn publish(&mut self, origin: usize, size: usize) {
        self.heads[origin].offset += 1;
        self.log.push((self.heads[origin], size));
        self.retained.push_back(self.heads[origin]);
        while self.retained.len() > self.history {
            self.retained.pop_front();
        }
    }

    /// Offsets begin anew; of what was there before, nothing but `kept` history is left.
    pub fn begin_epoch(&mut self, origin: usize, kept: bool) {
        let head = &mut self.heads[origin];
        *head = Name { epoch: head.epoch + 1, offset: 0, ..*head };
        self.retained.retain(|name| kept || name.origin != origin);
    }

    /// What is still in the region's log for nodes to hear: nothing of an earlier epoch.
    pub fn is_heard(&self, name: Name) -> bool {
        self.heads[name.origin].epoch == name.epoch
    }

    /// Where somebody stands who saw the first so many of the log.
    pub fn after(&self, count: usize) -> Seen {
        self.log.iter().take(count).map(|(name, _)| (name.origin, *name)).collect()
    }

    pub fn head(&self) -> Seen {
        self.heads.into_iter().map(|name| (name.origin, name)).collect()
    }

    /// What follows `start`, at most so many publications.
    pub fn read(&self, start: &Seen, most: usize) -> Chunk {
        let mut chunk = Chunk { start: position(start), complete: true, ..Chunk::default() };
        let mut reading = Reading { seen: start.clone(), names: Vec::new(), chunk: &mut chunk };
        for name in self.retained.iter().copied() {
            if !is_unseen(&reading.seen, name) {
                continue;
            }
            if reading.names.len() == most || !reading.lose_before(name) {
                reading.chunk.complete = false;
                break;
            }
            reading.seen.insert(name.origin, name);
            reading.names.push(name);
        }
        if reading.chunk.complete {
            let told = self.heads.iter().filter(|head| head.origin != OTHER || !self.is_coming);
            let whole = told.map(|head| reading.lose(*head)).collect::<Vec<_>>();
            reading.chunk.complete = whole.into_iter().all(|whole| whole);
        }
        let names = reading.names;
        if self.is_coming {
            chunk.coming.push(self.heads[OTHER].origin());
        }
        let size = |name: &Name| self.log.iter().find(|(one, _)| one == name).unwrap().1;
        chunk.publications = names.iter().map(|name| crate::content::named(*name, size(name))).collect();
        chunk
    }
}

struct Reading<'a> {
    seen: Seen,
    names: Vec<Name>,
    chunk: &'a mut Chunk,
}

impl Reading<'_> {
    fn lose_before(&mut self, name: Name) -> bool {
        follows(&self.seen, name) || self.lose(Name { offset: name.offset - 1, ..name })
    }

    /// Tells what is lost up to `name`, unless that would stand behind publications of its origin.
    fn lose(&mut self, name: Name) -> bool {
        let nothing = !self.seen.contains_key(&name.origin) && name.offset == 0;
        if nothing || !is_unseen(&self.seen, name) {
            return true;
        }
        let same_epoch = self.seen.get(&name.origin).is_none_or(|seen| seen.epoch == name.epoch);
        let reason = if same_epoch { GapReason::Trimmed } else { GapReason::EpochChanged };
        if self.names.iter().any(|earlier| earlier.origin == name.origin) {
            self.chunk.loss_ahead = Some(reason);
            return false;
        }
        self.seen.insert(name.origin, name);
        self.chunk.lost.push(Lost { origin: name.origin(), reason, point: name.point() });
        true
    }
}
