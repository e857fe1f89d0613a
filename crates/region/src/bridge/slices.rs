//! Cuts a part of a log into slices of time, so that several can be read at once on a path with a long round trip.

use skywave_redis::StreamId;

/// Slices of what lies after one id and up to another, oldest first.
#[derive(Debug)]
pub(crate) struct Slices {
    after: StreamId,
    until: StreamId,
    width_ms: u64,
    /// How many entries a slice had better hold.
    wanted: usize,
}

/// What lies after one id and up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub after: StreamId,
    pub until: StreamId,
}

impl Slices {
    pub(crate) fn new(after: StreamId, until: StreamId, wanted: usize) -> Self {
        Self { after, until, width_ms: 1, wanted }
    }

    /// The log begins at `oldest`: nothing is to be read before it.
    pub(crate) fn skip_to(&mut self, oldest: StreamId) {
        let before = StreamId { ms: oldest.ms.saturating_sub(1), sequence: u64::MAX };
        self.after = self.after.max(before).min(self.until);
    }

    /// Learns from a read how much a slice of `width_ms` holds.
    pub(crate) fn learn(&mut self, visited: usize, exhausted: bool) {
        if !exhausted {
            self.width_ms = (self.width_ms / 2).max(1);
        } else if visited < self.wanted / 2 {
            // Without end: where a clock jumped by years, nothing stands in between.
            self.width_ms = self.width_ms.saturating_mul(2);
        }
    }
}

impl Iterator for Slices {
    type Item = Slice;

    fn next(&mut self) -> Option<Slice> {
        if self.after >= self.until {
            return None;
        }
        let end = StreamId { ms: self.after.ms.saturating_add(self.width_ms), sequence: u64::MAX };
        let slice = Slice { after: self.after, until: end.min(self.until) };
        self.after = slice.until;
        Some(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, sequence: u64) -> StreamId {
        StreamId { ms, sequence }
    }

    #[test]
    fn slices_cover_everything_once() {
        let mut slices = Slices::new(id(10, 3), id(5_000, 7), 100);
        let mut reached = id(10, 3);
        for round in 0.. {
            slices.learn(round % 150, round % 3 != 0);
            let Some(slice) = slices.next() else { break };
            assert_eq!(slice.after, reached);
            assert!(slice.until > slice.after);
            reached = slice.until;
        }
        assert_eq!(reached, id(5_000, 7));
    }

    #[test]
    fn slices_grow_while_they_hold_little_and_shrink_when_they_hold_too_much() {
        let mut slices = Slices::new(id(0, 0), id(1_000_000, 0), 100);
        for _ in 0..6 {
            slices.learn(10, true);
        }
        assert_eq!(slices.next().unwrap().until, id(64, u64::MAX));
        slices.learn(90, true);
        slices.learn(100, false);
        assert_eq!(slices.next().unwrap().until, id(96, u64::MAX));
    }

    #[test]
    fn years_in_which_nothing_came_take_few_slices() {
        let ten_years_ms = 10 * 365 * 24 * 60 * 60 * 1_000;
        let mut slices = Slices::new(id(0, 0), id(ten_years_ms, 0), 100);
        let count = std::iter::from_fn(|| {
            slices.learn(0, true);
            slices.next()
        });
        assert!(count.count() < 50);
    }

    #[test]
    fn what_the_log_does_not_hold_any_more_is_skipped() {
        let mut slices = Slices::new(id(0, 0), id(1_000_000, 0), 100);
        slices.skip_to(id(500_000, 0));
        assert_eq!(slices.next().unwrap().after, id(499_999, u64::MAX));
        slices.skip_to(id(2_000_000, 0));
        assert_eq!(slices.next(), None);
    }
}
