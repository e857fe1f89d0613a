//! How far a link lags, and whether that is too far.

use parking_lot::Mutex;
use skywave_protocol::heartbeat::Direction;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// What is over the limit for less may be one publication that was under way when it was looked.
const HOLDS_FOR: Duration = Duration::from_millis(750);

/// For how long publications may have waited to cross, as the bridge measures it; nothing while it does not.
#[derive(Clone, Default)]
pub struct MeasuredLag(Arc<Mutex<Option<Duration>>>);

impl MeasuredLag {
    pub fn set(&self, lag: Duration) {
        *self.0.lock() = Some(lag);
    }

    /// It is not measured any more.
    pub fn clear(&self) {
        *self.0.lock() = None;
    }

    fn get(&self) -> Option<Duration> {
        *self.0.lock()
    }
}

/// The lag of a link, as its leader sees it.
pub(crate) struct Lag {
    measured: MeasuredLag,
    /// What was known before this leader measured anything.
    known: Duration,
    limit: Duration,
    lagging: bool,
    over_since: Option<Instant>,
    acknowledged_at: Instant,
}

impl Lag {
    /// `known` is how far the link lagged when this leader took over, and `lagging` whether it was marked.
    pub(crate) fn new(
        measured: MeasuredLag,
        limit: Duration,
        (known, lagging): (Duration, bool),
        now: Instant,
    ) -> Self {
        let acknowledged_at = now.checked_sub(known).unwrap_or(now);
        Self { measured, known, limit, lagging, over_since: None, acknowledged_at }
    }

    /// The other region was reached.
    pub(crate) fn acknowledged(&mut self, now: Instant) {
        self.acknowledged_at = now;
    }

    /// For how long publications may have waited there. While the other region cannot be reached, that grows with time.
    pub(crate) fn now(&self, outbound: Direction, now: Instant) -> Duration {
        let measured = self.measured.get().unwrap_or(self.known);
        match outbound {
            Direction::Suspected => measured.max(now - self.acknowledged_at),
            Direction::Unknown | Direction::Up => measured,
        }
    }

    /// Whether the link is to be marked: once it has been over the limit for a while, until it is not.
    pub(crate) fn is_over(&mut self, lag: Duration, now: Instant) -> bool {
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
        let measured = MeasuredLag::default();
        let start = Instant::now();
        let mut lag = Lag::new(measured.clone(), LIMIT, (Duration::ZERO, false), start);
        let mut marked = |after_s: u64, measured_s: f64| {
            measured.set(Duration::from_secs_f64(measured_s));
            let now = start + Duration::from_secs(after_s);
            let by_now = lag.now(Direction::Up, now);
            lag.is_over(by_now, now)
        };
        assert_eq!([marked(0, 0.9), marked(1, 1.1), marked(2, 0.0), marked(3, 1.1)], [false; 4]);
        assert!(marked(4, 1.2) && marked(5, 1.1) && !marked(6, 1.0));
    }

    #[test]
    fn what_cannot_be_reached_lags_for_as_long() {
        let start = Instant::now();
        let mut lag = Lag::new(MeasuredLag::default(), LIMIT, (Duration::ZERO, false), start);
        lag.acknowledged(start + LIMIT);
        assert_eq!(lag.now(Direction::Suspected, start + 9 * LIMIT), 8 * LIMIT);
        assert_eq!(lag.now(Direction::Up, start + 9 * LIMIT), Duration::ZERO);
    }

    #[test]
    fn a_lag_that_the_former_leader_knew_goes_on_until_it_is_measured() {
        let (measured, start) = (MeasuredLag::default(), Instant::now() + 9 * LIMIT);
        let mut lag = Lag::new(measured.clone(), LIMIT, (4 * LIMIT, true), start);
        for (outbound, expected) in [(Direction::Up, 4 * LIMIT), (Direction::Suspected, 5 * LIMIT)] {
            let now = lag.now(outbound, start + LIMIT);
            assert_eq!(now, expected);
            assert!(lag.is_over(now, start + LIMIT));
        }
        measured.set(Duration::ZERO);
        let now = lag.now(Direction::Up, start + 2 * LIMIT);
        assert!(!lag.is_over(now, start + 2 * LIMIT));
    }
}
