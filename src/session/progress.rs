//! Whether a peer takes what waits for it.

use super::connection::Flow;
use std::time::{Duration, Instant};

/// How long what waits may wait, …
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// … and longer where there is much of it: who takes less in a second is a slow consumer.
const SLOWEST_BYTES_PER_SECOND: u64 = 4 * 1024;

/// Answers that wait at one moment have to be taken by another: a peer that takes a little now and then, and asks for
/// more, would be held for ever. For publications it is enough that something is taken. Which channel is read how fast is
/// the application's choice, and what waits beyond is dropped and read from history.
pub(super) struct Progress {
    /// What the transport will have taken then, in bytes.
    goal: u64,
    stalls_at: Instant,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self { goal: 0, stalls_at: now + STALL_TIMEOUT }
    }

    /// When the peer is a slow consumer, unless it takes enough before. `answers` are the bytes of those that wait.
    pub(super) fn stalls_at(&mut self, flow: Flow, answers: usize, now: Instant) -> Instant {
        if !flow.is_full || flow.taken >= self.goal {
            let owed = answers.max(1) as u64;
            self.goal = flow.taken + owed;
            self.stalls_at = now + STALL_TIMEOUT + Duration::from_secs(owed / SLOWEST_BYTES_PER_SECOND);
        }
        self.stalls_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn full(taken: u64) -> Flow {
        Flow { taken, is_full: true, ..Flow::default() }
    }

    /// After how many seconds a peer is a slow consumer that takes so many bytes each `every` seconds, while so
    /// many bytes of answers wait.
    fn stalls_after(bytes: u64, every: u32, answers: usize) -> Option<u32> {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        (1..3_600).find(|second| {
            let now = start + SECOND * *second;
            progress.stalls_at(full(u64::from(second / every) * bytes), answers, now) <= now
        })
    }

    #[test]
    fn one_that_takes_nothing_has_half_a_minute() {
        assert_eq!(stalls_after(0, 1, 1_000), Some(31));
    }

    #[test]
    fn one_that_takes_a_little_now_and_then_is_not_waited_for() {
        let after = stalls_after(2_000, 20, 1_048_576);
        assert!(after.is_some_and(|seconds| seconds < 300), "{after:?}");
    }

    #[test]
    fn one_that_takes_its_answers_in_time_is_waited_for_however_many_come() {
        assert_eq!(stalls_after(4_096, 1, 1_048_576), None);
        assert_eq!(stalls_after(20_000, 20, 10_000), None);
    }

    #[test]
    fn one_that_has_its_answers_may_take_publications_as_slowly_as_it_likes() {
        assert_eq!(stalls_after(1, 20, 0), None);
    }

    #[test]
    fn one_for_which_the_transport_has_room_never_stalls() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        for second in 0..3_600 {
            let now = start + SECOND * second;
            assert!(progress.stalls_at(Flow::default(), 1_000, now) > now);
        }
    }
}
