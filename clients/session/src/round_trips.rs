//! How long replies take, smoothed. A sample that spans a suspension says nothing of the path.

use crate::Time;
use std::time::Duration;

/// How often somebody looks while replies are waited for.
const LOOK: Duration = Duration::from_millis(500);
/// The least time after which a reply is late, whatever the path: RFC 6298 has a second, which is long for a sign of life.
const LEAST_RTO: Duration = Duration::from_millis(200);
/// A look that is so late means that the process or the machine was suspended.
const LATE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    smoothed: Option<Duration>,
    /// By how much they differ from that.
    variation: Duration,
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

    /// After so long a reply is late (RFC 6298).
    pub(crate) fn rto(&self) -> Duration {
        self.smoothed.map_or(LEAST_RTO, |smoothed| LEAST_RTO.max(smoothed + self.variation * 4))
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
        // RFC 6298's smoothing, α = 1/8 and β = 1/4.
        (self.smoothed, self.variation) = match self.smoothed {
            None => (Some(took), took / 2),
            Some(before) => {
                let variation = self.variation - self.variation / 4 + before.abs_diff(took) / 4;
                (Some(before - before / 8 + took / 8), variation)
            }
        };
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

    #[test]
    fn a_reply_is_late_after_what_is_usual_and_four_times_what_that_varies_by() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.rto(), LEAST_RTO);
        for _ in 0..100 {
            trips.begin(at(0));
            trips.replied(at(0), at(40));
        }
        assert_eq!(trips.rto(), LEAST_RTO);
        trips.begin(at(0));
        trips.replied(at(0), at(440));
        assert!((480..520).contains(&trips.rto().as_millis()), "{:?}", trips.rto());
    }
}
