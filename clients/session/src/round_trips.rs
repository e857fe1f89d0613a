//! How long replies take, smoothed. A sample that spans a suspension says nothing of the path.

use crate::Time;
use std::time::Duration;

/// How often somebody looks while replies are waited for.
const LOOK: Duration = Duration::from_millis(500);
/// A look that is so late means that the process or the machine was suspended.
const LATE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    smoothed: Option<Duration>,
    /// When the next look is due, while replies are waited for.
    next_at: Time,
    suspended_at: Time,
}

impl RoundTrips {
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(crate) fn next_at(&self) -> Time {
        self.next_at
    }

    /// On another path, what was measured says nothing.
    pub(crate) fn forget(&mut self) {
        self.smoothed = None;
    }

    /// The first reply is waited for from now on: nobody has looked since the last one.
    pub(crate) fn begin(&mut self, now: Time) {
        self.next_at = now + LOOK;
    }

    /// Looks, while a reply is waited for.
    pub(crate) fn look(&mut self, now: Time) {
        if now.since(self.next_at) > LATE {
            self.suspended_at = now;
        }
        self.next_at = now + LOOK;
    }

    /// The reply to what was sent then has come.
    pub(crate) fn replied(&mut self, sent_at: Time, now: Time) {
        self.look(now);
        if sent_at < self.suspended_at {
            return;
        }
        let took = now.since(sent_at);
        // RFC 6298's smoothing, α = 1/8.
        self.smoothed = Some(self.smoothed.map_or(took, |before| before - before / 8 + took / 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_begin(Duration::from_millis(1_000_000 + ms))
    }

    #[test]
    fn a_reply_that_a_suspension_kept_waiting_is_no_sample() {
        let mut trips = RoundTrips::default();
        trips.begin(at(0));
        trips.replied(at(0), at(40));
        assert_eq!(trips.smoothed(), Some(Duration::from_millis(40)));
        trips.begin(at(1_000));
        trips.replied(at(1_000), at(9_000));
        assert_eq!(trips.smoothed(), Some(Duration::from_millis(40)));
        // Who looks all the while knows that it is the path.
        trips.begin(at(10_000));
        for ms in (10_500..18_000).step_by(500) {
            trips.look(at(ms));
        }
        trips.replied(at(10_000), at(18_000));
        assert_eq!(trips.smoothed(), Some(Duration::from_millis(1_035)));
    }
}
