//! How much of the logs is read at once: as much as waits, within what a connection carries in a moment.

/// What one read had better bring, in bytes.
const BYTES: usize = 1 << 20;
/// How many entries one read had better bring: they are delivered in one go.
const ENTRIES: usize = 1_024;

/// How many entries of each log are asked for. Redis knows no bound in bytes. So it begins with one entry, and grows
/// while more waits and answers come soon. Whatever waits, and however slow the path is, something arrives in time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Portion(usize);

/// What came of the logs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Came {
    /// Entries of all logs.
    pub entries: usize,
    /// Of the log of which most came.
    pub most: usize,
    /// Of all entries.
    pub bytes: usize,
    /// The answer took longer than it may wait for entries.
    pub is_late: bool,
}

impl Portion {
    /// To begin with.
    pub(crate) const FIRST: Self = Self(1);

    /// At least one.
    pub(crate) fn entries(&self) -> usize {
        self.0
    }

    /// Twice as much as came is asked for next, if that fits, or half of what came late.
    pub(crate) fn learn(&mut self, came: Came) {
        let fits = |limit: usize, came_in_all: usize| came.most.saturating_mul(limit) / came_in_all.max(1);
        let room = fits(BYTES, came.bytes).min(fits(ENTRIES, came.entries));
        let wanted = if came.is_late { came.most / 2 } else { came.most.saturating_mul(2) };
        self.0 = wanted.min(room).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads logs in which so many entries of a size wait, in each the same; gives the largest read, and how many there
    /// were.
    fn read_all(logs: usize, mut waiting: usize, size: usize) -> (Came, usize) {
        let (mut portion, mut largest, mut reads) = (Portion::FIRST, Came::default(), 0);
        while waiting > 0 {
            let most = portion.entries().min(waiting);
            let came = Came { entries: logs * most, most, bytes: logs * most * size, is_late: false };
            portion.learn(came);
            waiting -= most;
            reads += 1;
            if came.bytes > largest.bytes {
                largest = came;
            }
        }
        (largest, reads)
    }

    #[test]
    fn small_entries_are_read_by_the_thousand() {
        let (largest, reads) = read_all(1, 10_000, 200);
        assert_eq!((largest.entries, reads), (ENTRIES, 19));
    }

    #[test]
    fn no_read_brings_more_than_its_bytes_unless_one_entry_of_each_log_does() {
        for (logs, size) in [(1, 60_000), (16, 1_000), (16, 60_000), (64, 300)] {
            let (largest, _) = read_all(logs, 1_000, size);
            assert!(largest.bytes <= BYTES.max(logs * size) && largest.entries <= ENTRIES, "{largest:?}");
        }
        assert_eq!(read_all(16, 100, 10 << 20).0.entries, 16);
    }

    #[test]
    fn on_a_slow_path_no_read_is_much_larger_than_what_arrives_in_time() {
        let (mut portion, in_time) = (Portion::FIRST, 20);
        for _ in 0..100 {
            let most = portion.entries();
            assert!(most <= 2 * in_time);
            portion.learn(Came { entries: most, most, bytes: 1_000 * most, is_late: most > in_time });
        }
    }

    #[test]
    fn after_a_quiet_time_a_read_is_small_again() {
        let mut portion = Portion(ENTRIES);
        portion.learn(Came { entries: 3, most: 3, bytes: 600, is_late: false });
        assert_eq!(portion, Portion(6));
        portion.learn(Came::default());
        assert_eq!(portion, Portion::FIRST);
    }
}
