//! How many are due at which time, where so many a second were ordered.

use std::{num::NonZeroU32, time::Duration};
use tokio::time::{Interval, MissedTickBehavior};

/// An order with a rate is carried out in steps of this length.
const STEP: Duration = Duration::from_millis(100);

/// So many a second, in steps.
pub(crate) struct Pace {
    per_second: NonZeroU32,
    steps: Interval,
    /// The part of one that is due already, in thousandths.
    begun: u64,
}

impl Pace {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let mut steps = tokio::time::interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { per_second, steps, begun: 0 }
    }

    /// Waits for the next step; how many are due in it. What a late step missed is not made up for: it would be a
    /// burst.
    pub(crate) async fn step(&mut self) -> u64 {
        self.steps.tick().await;
        self.begun += u64::from(self.per_second.get()) * STEP.as_millis() as u64;
        let due = self.begun / 1_000;
        self.begun %= 1_000;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn pace(per_second: u32) -> Pace {
        Pace::new(NonZeroU32::new(per_second).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_due_each_second_as_were_ordered_and_no_more_in_any_step_than_their_part() {
        for per_second in [1, 3, 7, 10, 40, 999, 1_000_000] {
            let (begun, mut pace, mut due) = (Instant::now(), pace(per_second), 0);
            for step in 1..=100 {
                let of_step = pace.step().await;
                assert!(of_step <= u64::from(per_second) / 10 + 1, "{of_step} in a step");
                due += of_step;
                assert_eq!(due, u64::from(per_second) * step / 10, "{per_second} a second");
            }
            // The first step is at once.
            assert_eq!(begun.elapsed(), 99 * STEP);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_late_step_missed_is_no_burst() {
        let mut pace = pace(1_000);
        assert_eq!(pace.step().await, 100);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(pace.step().await, 100);
        let late = Instant::now();
        assert_eq!(pace.step().await, 100);
        assert_eq!(late.elapsed(), STEP);
    }
}
