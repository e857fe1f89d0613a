//! A hybrid logical clock in milliseconds (Kulkarni et al., "Logical Physical Clocks", 2014): close to the wall clock,
//! never backward.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

#[derive(Debug, Default)]
pub struct HybridClock(AtomicU64);

impl HybridClock {
    /// Milliseconds since 1970, not below any earlier answer even when the wall clock is set back.
    pub fn now_ms(&self) -> u64 {
        self.tick(wall_ms())
    }

    fn tick(&self, wall_ms: u64) -> u64 {
        self.0.fetch_max(wall_ms, Ordering::Relaxed).max(wall_ms)
    }
}

/// The wall clock in milliseconds since 1970.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_backward_when_the_wall_clock_does() {
        let clock = HybridClock::default();
        assert_eq!(clock.tick(1000), 1000);
        assert_eq!(clock.tick(500), 1000);
        assert_eq!(clock.tick(1001), 1001);
    }
}
