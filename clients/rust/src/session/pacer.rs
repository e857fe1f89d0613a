//! How fast publishes go out: no faster than the node takes them, since it would refuse the rest. Time is an argument.

use std::time::Duration;
use tokio::time::Instant;

/// So much goes out at once as the node takes in this time. It lets as much come at once as it takes in two seconds: what
/// is left makes up for a path on which some come sooner after each other than they were sent.
const BURST: Duration = Duration::from_secs(1);

/// A leaky bucket, as a time: when the node will be ready for another burst.
#[derive(Debug)]
pub(super) struct Pacer {
    interval: Duration,
    ready_at: Instant,
}

impl Pacer {
    /// Without a limit at first.
    pub fn new(now: Instant) -> Self {
        Self { interval: Duration::ZERO, ready_at: now }
    }

    /// A node tells its limit, 0 for none. What was let out before still counts, at whichever node that was.
    pub fn limit(&mut self, per_second: u64) {
        self.interval =
            if per_second == 0 { Duration::ZERO } else { Duration::from_secs_f64(1.0 / per_second as f64) };
    }

    /// Whether one may go out now, which then counts.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.wait(now).is_some() {
            return false;
        }
        self.ready_at = self.ready_at.max(now) + self.interval;
        true
    }

    /// How long after `now` the next one may go out, if not at once.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let ready_in = self.ready_at.saturating_duration_since(now) + self.interval;
        ready_in.checked_sub(BURST).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_out_at_once_and_the_rest_as_fast_as_the_node_takes_it() {
        let begin = Instant::now();
        let mut pacer = Pacer::new(begin);
        pacer.limit(20);
        let taken = |pacer: &mut Pacer, now| (0..1_000).take_while(|_| pacer.take(now)).count();
        assert_eq!(taken(&mut pacer, begin), 20);
        assert_eq!(pacer.wait(begin), Some(Duration::from_millis(50)));
        assert_eq!(taken(&mut pacer, begin + Duration::from_millis(500)), 10);
        assert_eq!(taken(&mut pacer, begin + Duration::from_secs(60)), 20);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.limit(1);
        while pacer.take(now) {}
        pacer.limit(0);
        assert!((0..1_000).all(|_| pacer.take(now)));
    }
}
