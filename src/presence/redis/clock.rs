//! What a Redis' clock says about a moment of this node.

use std::time::Duration;
use tokio::time::Instant;

/// When its clock was read last, and what it said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock(Option<(Instant, u64)>);

impl Clock {
    /// Redis was asked at that moment, and has just answered this time.
    pub fn read(&mut self, asked_at: Instant, now_ms: u64) {
        self.0 = Some((asked_at + asked_at.elapsed() / 2, now_ms));
    }

    /// The moment by Redis' clock, as well as half of the time tells that it took to read it; 0 where it was never read.
    pub fn at(&self, moment: Instant) -> u64 {
        let Some((read_at, now_ms)) = self.0 else { return 0 };
        let ms = |time: Duration| time.as_millis() as u64;
        let later = now_ms.saturating_add(ms(moment.saturating_duration_since(read_at)));
        later.saturating_sub(ms(read_at.saturating_duration_since(moment)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moments_before_and_after_a_reading_are_known_by_it() {
        let before = Instant::now();
        let mut clock = Clock::default();
        assert_eq!(clock.at(before), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        let asked_at = Instant::now();
        tokio::time::advance(Duration::from_secs(2)).await;
        clock.read(asked_at, 10_000);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((clock.at(before), clock.at(Instant::now())), (7_000, 13_000));
    }
}
