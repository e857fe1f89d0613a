//! What a node knows of a partition of presence, and what is to be made good there.

use super::{RESTORED, answers::Renewed, rooms::Footing};
use skywave_protocol::Channel;
use skywave_redis::heard::Heard;
use std::{collections::HashSet, time::Duration};
use tokio::time::Instant;

/// A session may be on its way to another node when numbers are compared; twice in a row it is not.
const MISMATCHES: u8 = 2;
/// A channel that could not be compared is compared again after this.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Partition {
    life: Option<String>,
    heard: Heard,
    /// Since when this node's lease has run on, and Redis said so each time.
    steady_since: Option<Instant>,
    /// Redis may not know all that this node holds, or knows what it does not.
    pub(crate) doubtful: bool,
    /// This node says again what it holds, so that the numbers differ until it has.
    pub(crate) restating: bool,
    /// So often in a row Redis knew another number of sessions than this node.
    mismatches: u8,
    comparison: Option<Comparison>,
    /// Redis lost what it knew, and knows all again by then.
    restored_at: Option<Instant>,
}

/// What was told may not be what is.
pub(crate) struct Comparison {
    due_at: Instant,
    /// Of which channels; `None`: of all.
    channels: Option<HashSet<Channel>>,
}

impl Comparison {
    pub(crate) fn is_of(&self, channel: &Channel) -> bool {
        self.channels.as_ref().is_none_or(|channels| channels.contains(channel))
    }
}

impl Partition {
    /// How what Redis says of a channel relates to what was told.
    pub(crate) fn footing(&self, channel: &Channel) -> Footing {
        if !self.comparison.as_ref().is_some_and(|comparison| comparison.is_of(channel)) {
            return Footing::Settled;
        }
        let is_restoring = self.restored_at.is_some_and(|at| at > Instant::now());
        if is_restoring { Footing::Restoring } else { Footing::Missed }
    }

    /// Takes note of the life. Another one than before means that Redis may have lost what it knew.
    pub(crate) fn learn(&mut self, life: &str) -> bool {
        if self.life.as_deref() == Some(life) {
            return false;
        }
        let lost = self.life.replace(life.to_owned()).is_some();
        self.heard = Heard::default();
        if lost {
            let restored_at = Instant::now() + RESTORED;
            self.doubtful = true;
            self.restored_at = Some(restored_at);
            self.comparison = Some(Comparison { due_at: restored_at, channels: None });
        }
        lost
    }

    /// Takes note of the news of that number; whether others before them were missed.
    pub(crate) fn news(&mut self, number: u64) -> bool {
        let missed = self.heard.news(number);
        if missed {
            self.compare_all();
        }
        missed
    }

    /// Nothing was heard for some time.
    pub(crate) fn was_deaf(&mut self) {
        self.heard = Heard::default();
        self.compare_all();
    }

    /// The lease was renewed, as was asked at some time, when this node held so many sessions.
    pub(crate) fn renewed(&mut self, asked: Instant, held: usize, renewed: &Renewed) {
        self.steady_since = if renewed.lapsed { None } else { self.steady_since.or(Some(asked)) };
        if self.heard.counted(renewed.said) {
            self.compare_all();
        }
        let differs = held != renewed.held && !self.restating;
        self.mismatches = if differs { self.mismatches.saturating_add(1) } else { 0 };
        if renewed.lapsed && held > 0 || self.mismatches >= MISMATCHES {
            self.doubtful = true;
        }
    }

    /// Redis cannot be asked: the lease may run out.
    pub(crate) fn away(&mut self) {
        self.steady_since = None;
    }

    /// Whether the lease has run on for so long.
    pub(crate) fn is_steady_for(&self, time: Duration) -> bool {
        self.steady_since.is_some_and(|since| since.elapsed() >= time)
    }

    fn compare_all(&mut self) {
        // Where all are to be compared, it is settled when.
        if self.comparison.as_ref().is_none_or(|comparison| comparison.channels.is_some()) {
            self.comparison = Some(Comparison { due_at: Instant::now(), channels: None });
        }
    }

    /// A channel could not be compared: it is done again, while the others are settled.
    pub(crate) fn compare_again(&mut self, channel: &Channel) {
        let comparison = self.comparison.get_or_insert_with(|| Comparison {
            due_at: Instant::now() + AGAIN,
            channels: Some(HashSet::new()),
        });
        if let Some(channels) = &mut comparison.channels {
            channels.insert(channel.clone());
        }
    }

    /// What is to be compared now: not before Redis knows what this node holds.
    pub(crate) fn take_comparison(&mut self) -> Option<Comparison> {
        let now = Instant::now();
        let is_steady = self.steady_since.is_some();
        self.comparison.take_if(|comparison| is_steady && comparison.due_at <= now)
    }

    /// When something is to be compared.
    pub(crate) fn compares_at(&self) -> Option<Instant> {
        self.comparison.as_ref().filter(|_| self.steady_since.is_some()).map(|comparison| comparison.due_at)
    }
}
