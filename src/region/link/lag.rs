//! How far a link lags, and whether that is too far.

use prometheus::Gauge;
use skywave_protocol::heartbeat::Direction;
use std::time::Duration;
use tokio::time::Instant;

/// What is over the limit for less may be one publication that was under way when it was looked.
const HOLDS_FOR: Duration = Duration::from_millis(750);

/// The lag of a link, as its leader sees it.
pub struct Lag<'a> {
    /// In seconds, as the bridge measures it while it crosses.
    measured: &'a Gauge,
    limit: Duration,
    lagging: bool,
    over_since: Option<Instant>,
    acknowledged_at: Instant,
}

impl<'a> Lag<'a> {
    pub fn new(measured: &'a Gauge, limit: Duration, lagging: bool, now: Instant) -> Self {
        Self { measured, limit, lagging, over_since: None, acknowledged_at: now }
    }

    /// The other region was reached.
    pub fn acknowledged(&mut self, now: Instant) {
        self.acknowledged_at = now;
    }

    /// For how long publications may have waited there. While the other region cannot be reached, that grows with time.
    pub fn now(&self, outbound: Direction, now: Instant) -> Duration {
        let measured = Duration::try_from_secs_f64(self.measured.get()).unwrap_or_default();
        match outbound {
            Direction::Suspected => measured.max(now - self.acknowledged_at),
            Direction::Unknown | Direction::Up => measured,
        }
    }

    /// Whether the link is to be marked: once it has been over the limit for a while, until it is not.
    pub fn is_over(&mut self, lag: Duration, now: Instant) -> bool {
        if lag <= self.limit {
            self.over_since = None;
            self.lagging = false;
        } else {
            let since = *self.over_since.get_or_insert(now);
            self.lagging |= now - since >= HOLDS_FOR;
        }
        self.lagging
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn a_lag_is_marked_when_it_lasts_and_until_it_is_gone() {
        let gauge = Gauge::new("lag", "lag").unwrap();
        let start = Instant::now();
        let mut lag = Lag::new(&gauge, LIMIT, false, start);
        let mut marked = |after_s: u64, measured_s: f64| {
            gauge.set(measured_s);
            let now = start + Duration::from_secs(after_s);
            let by_now = lag.now(Direction::Up, now);
            lag.is_over(by_now, now)
        };
        assert_eq!([marked(0, 0.9), marked(1, 1.1), marked(2, 0.0), marked(3, 1.1)], [false; 4]);
        assert!(marked(4, 1.2) && marked(5, 1.1) && !marked(6, 1.0));
    }

    #[test]
    fn what_cannot_be_reached_lags_for_as_long() {
        let gauge = Gauge::new("lag", "lag").unwrap();
        let start = Instant::now();
        let mut lag = Lag::new(&gauge, LIMIT, false, start);
        lag.acknowledged(start + LIMIT);
        assert_eq!(lag.now(Direction::Suspected, start + 9 * LIMIT), 8 * LIMIT);
        assert_eq!(lag.now(Direction::Up, start + 9 * LIMIT), Duration::ZERO);
    }
}
