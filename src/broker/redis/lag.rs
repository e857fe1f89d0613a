//! How far this node is behind the end of a partition's log.

use crate::{metrics::RedisMetrics, redis::StreamId};
use prometheus::{Gauge, IntGauge};

/// A partition's lag, as it was measured last.
pub struct Lag {
    entries: IntGauge,
    seconds: Gauge,
    /// How many entries the log had been given in its life when the last that was seen was appended.
    seen: u64,
}

impl Lag {
    pub fn new(partition: u16, metrics: &RedisMetrics) -> Self {
        let label = partition.to_string();
        Self {
            entries: metrics.log_lag_entries.with_label_values(&[&label]),
            seconds: metrics.log_lag_seconds.with_label_values(&[&label]),
            seen: 0,
        }
    }

    /// Entries were read.
    pub fn saw(&mut self, count: usize) {
        self.seen = self.seen.saturating_add(count as u64);
    }

    /// Compares the last entry that was seen with the newest; `added` is how many the log was ever given.
    pub fn measure(&mut self, last: StreamId, newest: StreamId, added: u64) {
        if last >= newest {
            self.seen = added;
            self.entries.set(0);
            self.seconds.set(0.0);
            return;
        }
        // Another life counts anew: at least one entry is missing.
        let behind = added.saturating_sub(self.seen).max(1);
        self.entries.set(i64::try_from(behind).unwrap_or(i64::MAX));
        self.seconds.set(newest.ms.saturating_sub(last.ms) as f64 / 1_000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn lag_is_counted_in_entries_and_in_time_by_the_logs_own_clock() {
        let metrics = Metrics::new().unwrap().redis;
        let mut lag = Lag::new(3, &metrics);
        let id = |ms| StreamId { ms, sequence: 0 };
        let told = || {
            let entries = metrics.log_lag_entries.with_label_values(&["3"]).get();
            (entries, metrics.log_lag_seconds.with_label_values(&["3"]).get())
        };
        lag.measure(id(1_000), id(1_000), 70);
        assert_eq!(told(), (0, 0.0));
        lag.saw(5);
        lag.measure(id(2_000), id(4_500), 100);
        assert_eq!(told(), (25, 2.5));
        lag.saw(25);
        lag.measure(id(4_500), id(4_500), 100);
        assert_eq!(told(), (0, 0.0));
        // A log that was lost and begun anew.
        lag.measure(id(0), id(500), 2);
        assert_eq!(told(), (1, 0.5));
    }
}
