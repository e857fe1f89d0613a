//! What all clients together know to be so.

use crate::roster::Members;
use parking_lot::Mutex;
use skywave_protocol::{Channel, Point, Text};
use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Where a publication stands: its channel, epoch and offset.
pub type Place = (Channel, Text<32>, u64);

/// How far a walker is.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// It does nothing more.
    Done,
    /// It has got everything and stays where it is.
    Settled,
    /// It knows who is there.
    Content,
}

#[derive(Default)]
pub struct Truth {
    walkers: usize,
    publications: Mutex<Publications>,
    counts: Mutex<BTreeMap<String, u64>>,
    /// How many walkers have reached each stage.
    reached: [AtomicUsize; 3],
    members: Mutex<HashMap<Channel, Members>>,
}

#[derive(Default)]
struct Publications {
    by_place: HashMap<Place, u64>,
    by_number: HashMap<u64, Place>,
    /// The last one of each channel that anybody knows of.
    heads: HashMap<Channel, Point>,
    numbers: u64,
}

impl Truth {
    pub fn new(walkers: usize) -> Self {
        Self { walkers, ..Self::default() }
    }

    /// The number of the next publication.
    pub fn next_number(&self) -> u64 {
        let mut publications = self.publications.lock();
        publications.numbers += 1;
        publications.numbers
    }

    /// A publication stands at one place, whoever says so, and nothing else stands there.
    pub fn stands(&self, number: u64, channel: &Channel, epoch: &Text<32>, offset: u64) {
        let place = (channel.clone(), epoch.clone(), offset);
        let mut publications = self.publications.lock();
        let there = publications.by_place.insert(place.clone(), number);
        assert!(there.is_none_or(|there| there == number), "{there:?} and {number} at {place:?}");
        let before = publications.by_number.insert(number, place.clone());
        assert!(before.is_none() || before.as_ref() == Some(&place), "{number} at {before:?} and {place:?}");
        let head = publications.heads.entry(place.0).or_insert(Point { epoch: epoch.clone(), offset });
        assert_eq!(head.epoch, *epoch, "{channel} began anew");
        head.offset = head.offset.max(offset);
    }

    pub fn is_known(&self, number: u64) -> bool {
        self.publications.lock().by_number.contains_key(&number)
    }

    pub fn head(&self, channel: &Channel) -> Option<Point> {
        self.publications.lock().heads.get(channel).cloned()
    }

    pub fn count(&self, what: impl Into<String>) {
        *self.counts.lock().entry(what.into()).or_default() += 1;
    }

    pub fn print(&self) {
        for (what, count) in &*self.counts.lock() {
            println!("{count:8} {what}");
        }
    }

    /// One more walker has come so far.
    pub fn reach(&self, stage: Stage) {
        self.reached[stage as usize].fetch_add(1, Ordering::SeqCst);
    }

    pub fn have_all_reached(&self, stage: Stage) -> bool {
        self.reached[stage as usize].load(Ordering::SeqCst) == self.walkers
    }

    /// A session stays on these channels.
    pub fn stays(&self, session: &str, channels: impl Iterator<Item = Channel>) {
        let mut members = self.members.lock();
        for channel in channels {
            members.entry(channel).or_default().insert(session.to_owned());
        }
    }

    /// Who is on a channel once all have settled.
    pub fn members(&self, channel: &Channel) -> Members {
        self.members.lock().get(channel).cloned().unwrap_or_default()
    }
}
