//! A moment by two clocks: the one may stand still while the machine sleeps, the other may be set.

use std::time::{Duration, SystemTime};
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub steady: Instant,
    pub wall: SystemTime,
}

impl Moment {
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// How long ago it was, by the clock that says more.
    pub fn age(self, now: Self) -> Duration {
        let steady = now.steady.saturating_duration_since(self.steady);
        now.wall.duration_since(self.wall).unwrap_or_default().max(steady)
    }

    /// How long the machine has slept since then: the steady clock stood still. Or the other one was set.
    pub fn slept(self, now: Self) -> Duration {
        self.age(now) - now.steady.saturating_duration_since(self.steady)
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
}
