//! The clock of a session: it goes on while the machine sleeps, and is never set back.

use skywave_client_session::Time;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Clocks that are set a little differ by less than this.
const LEAST_SLEEP: Duration = Duration::from_millis(500);
/// So far ahead is looked at most: who looks sooner than it is time does no harm.
const FURTHEST: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
pub(super) struct Clock {
    begin: Instant,
    /// How long the machine has slept since: the steady clock stood still.
    slept: Duration,
    last: Moment,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let last = Moment::now();
        Self { begin: last.steady, slept: Duration::ZERO, last }
    }

    /// What time it is; a sleep counts once somebody has looked.
    pub(crate) fn now(&self) -> Time {
        Time::from_begin(self.begin.elapsed() + self.slept)
    }

    /// Looks whether the machine has slept since the last look.
    pub(crate) fn has_slept(&mut self) -> bool {
        let now = Moment::now();
        let slept = self.last.slept(now);
        self.last = now;
        if slept <= LEAST_SLEEP {
            return false;
        }
        self.slept += slept;
        true
    }

    /// When that is by the steady clock, unless it is over.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        let now = Instant::now();
        now + time.since(self.now()).min(FURTHEST)
    }
}

/// A moment by two clocks: the one may stand still while the machine sleeps, the other may be set.
#[derive(Debug, Clone, Copy)]
struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// How long the machine has slept since then: the steady clock stood still. Or the other one was set.
    fn slept(self, now: Self) -> Duration {
        let steady = now.steady.saturating_duration_since(self.steady);
        now.wall.duration_since(self.wall).unwrap_or_default().saturating_sub(steady)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_steady_clock_that_stood_still_says_that_the_machine_slept() {
        let second = Duration::from_secs(1);
        let before = Moment::now();
        let after = |steady: Duration, wall: SystemTime| Moment { steady: before.steady + steady, wall };
        assert_eq!(before.slept(after(second, before.wall + 61 * second)), 60 * second);
        for wall in [before.wall + 61 * second, before.wall, before.wall - 61 * second] {
            assert_eq!(before.slept(after(61 * second, wall)), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_through_a_sleep_and_what_is_over_is_due_now() {
        let mut clock = Clock::new();
        let begin = clock.now();
        tokio::time::advance(Duration::from_secs(2)).await;
        clock.last = Moment { wall: clock.last.wall - Duration::from_secs(3_602), ..clock.last };
        assert!(clock.has_slept());
        let slept = clock.now().since(begin);
        assert!(slept >= Duration::from_secs(3_602) && slept < Duration::from_secs(3_603), "{slept:?}");
        assert_eq!(clock.instant(begin), Instant::now());
        assert_eq!(
            clock.instant(clock.now() + Duration::from_secs(1)),
            Instant::now() + Duration::from_secs(1)
        );
        assert_eq!(clock.instant(begin + Duration::MAX), Instant::now() + FURTHEST);
    }
}
