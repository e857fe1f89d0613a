//! How fast publishes go out: no faster than the node takes them, since it would refuse the rest.

use crate::Time;
use std::time::Duration;

/// So much goes out at once as the node takes in this time. It lets as much come at once as it takes in two seconds.
/// The rest is kept for a path on which some come sooner after each other than they were sent.
const BURST: Duration = Duration::from_secs(1);

/// A leaky bucket, as a time: when the node will be ready for another burst.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    /// Nothing where the node has no limit.
    interval: Duration,
    ready_at: Time,
}

impl Pacer {
    /// A node tells its limit, 0 for none. What was let out before still counts, at whichever node that was.
    pub(crate) fn limit(&mut self, per_second: u64) {
        self.interval =
            if per_second == 0 { Duration::ZERO } else { Duration::from_secs_f64(1.0 / per_second as f64) };
    }

    /// Whether one may go out now, which then counts.
    pub(crate) fn take(&mut self, now: Time) -> bool {
        if now < self.next_at() {
            return false;
        }
        self.ready_at = self.ready_at.max(now) + self.interval;
        true
    }

    /// When the next one may go out: perhaps a moment ago already.
    pub(crate) fn next_at(&self) -> Time {
        self.ready_at + self.interval - BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_begin(Duration::from_millis(1_000_000 + ms))
    }

    fn taken(pacer: &mut Pacer, now: Time) -> usize {
        (0..1_000).take_while(|_| pacer.take(now)).count()
    }

    #[test]
    fn a_burst_goes_out_at_once_and_the_rest_as_fast_as_the_node_takes_it() {
        let mut pacer = Pacer::default();
        pacer.limit(20);
        assert_eq!(taken(&mut pacer, at(0)), 20);
        assert_eq!(pacer.next_at(), at(50));
        assert_eq!(taken(&mut pacer, at(500)), 10);
        assert_eq!(taken(&mut pacer, at(60_000)), 20);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pacer = Pacer::default();
        pacer.limit(1);
        while pacer.take(at(0)) {}
        pacer.limit(0);
        assert_eq!(taken(&mut pacer, at(0)), 1_000);
    }
}
