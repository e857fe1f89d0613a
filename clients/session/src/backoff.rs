//! How long to wait before the next try.

use std::time::Duration;

/// The longest time that a node may keep a client away, in case it says something absurd.
const LONGEST_ABSENCE: Duration = Duration::from_secs(3600);
/// By how much those who were told to come back at the same time spread at most.
const LONGEST_SPREAD: Duration = Duration::from_secs(30);

/// Bounds of the wait between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the first retry; each further one doubles it.
    pub first: Duration,
    /// The longest wait at all.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), max: Duration::from_secs(20) }
    }
}

impl Backoff {
    /// The wait before retry number `attempt` (from 0) by "full jitter": anything from nothing to
    /// `min(max, first · 2^attempt)`. `random` is uniform in 0 ≤ `random` < 1.
    ///
    /// Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    pub fn full_jitter(&self, attempt: u32, random: f64) -> Duration {
        let ceiling = self.first.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(self.max);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }
}

/// When to come back, if not before `after`. The jitter spreads those who were told the same: as long as that time
/// again, and half a minute at most.
pub fn not_before(after: Duration, random: f64) -> Duration {
    let after = after.min(LONGEST_ABSENCE);
    after + after.min(LONGEST_SPREAD).mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) };

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        for (attempt, ceiling_ms) in [(0, 100), (1, 200), (2, 400), (6, 6_400), (7, 10_000), (200, 10_000)] {
            assert_eq!(BACKOFF.full_jitter(attempt, 1.0), Duration::from_millis(ceiling_ms), "{attempt}");
        }
    }

    #[test]
    fn who_was_told_when_to_come_back_does_not_come_sooner_and_not_much_later() {
        for (after, latest) in [(0, 0), (5, 10), (100, 130), (1_000_000, 3_630)] {
            for random in [0.0, 0.5, 0.999] {
                let wait = not_before(Duration::from_secs(after), random);
                assert!(wait >= Duration::from_secs(after.min(3_600)), "{after}: {wait:?}");
                assert!(wait <= Duration::from_secs(latest), "{after}: {wait:?}");
            }
        }
    }

    #[test]
    fn jitter_covers_everything_from_nothing_to_the_ceiling() {
        assert_eq!(BACKOFF.full_jitter(3, 0.0), Duration::ZERO);
        assert_eq!(BACKOFF.full_jitter(3, 0.5), Duration::from_millis(400));
        for attempt in 0..64 {
            assert!(BACKOFF.full_jitter(attempt, 0.999) <= BACKOFF.max);
        }
    }
}
