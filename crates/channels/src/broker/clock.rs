//! A hybrid logical clock in milliseconds (Kulkarni et al., "Logical Physical Clocks", 2014): close to the wall clock,
//! never backward.

use skywave_host::WallClock;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub struct HybridClock {
    wall: WallClock,
    latest_ms: AtomicU64,
}

impl HybridClock {
    pub fn new(wall: WallClock) -> Self {
        Self { wall, latest_ms: AtomicU64::new(0) }
    }

    /// Milliseconds since 1970, not below any earlier answer even when the wall clock is set back.
    pub fn now_ms(&self) -> u64 {
        let wall_ms = self.wall.now_ms();
        self.latest_ms.fetch_max(wall_ms, Ordering::Relaxed).max(wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    #[test]
    fn time_does_not_go_backward_when_the_wall_clock_does() {
        let wall_ms = Arc::new(AtomicU64::new(1000));
        let told = wall_ms.clone();
        let clock = HybridClock::new(WallClock::new(move || {
            UNIX_EPOCH + Duration::from_millis(told.load(Ordering::Relaxed))
        }));
        assert_eq!(clock.now_ms(), 1000);
        wall_ms.store(500, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 1000);
        wall_ms.store(1001, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 1001);
    }
}
