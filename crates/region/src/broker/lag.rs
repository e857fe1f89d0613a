//! How far this node is behind the end of a partition's log, and whether it missed a part of it.

use prometheus::{Gauge, GaugeVec, IntGauge, IntGaugeVec};
use skywave_redis::{StreamId, registration::Registration};

/// What a node measures of how far it is behind, by partition.
#[derive(Clone)]
pub struct LagMetrics {
    pub entries: IntGaugeVec,
    pub seconds: GaugeVec,
}

impl LagMetrics {
    /// # Errors
    /// See [`Registration`].
    pub fn new(registration: &Registration) -> Result<Self, prometheus::Error> {
        Ok(Self {
            entries: registration.gauges(
                "skywave_log_lag_entries",
                "Entries of the region's log that this node has not read; measured every five seconds",
                "partition",
            )?,
            seconds: registration.fractions(
                "skywave_log_lag_seconds",
                "Between the last entry that this node has read and the newest, by the log's clock",
                "partition",
            )?,
        })
    }
}

/// A partition's log, as Redis tells of it.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    pub newest: StreamId,
    pub oldest: Option<StreamId>,
    /// How many entries it was ever given.
    pub added: u64,
    /// How many it has.
    pub length: u64,
}

/// A partition's lag, as it was measured last.
pub struct Lag {
    entries: IntGauge,
    seconds: Gauge,
    /// How many entries the log had been given in its life, up to the last one that was seen. `None` while that is not
    /// known.
    seen: Option<u64>,
}

impl Lag {
    pub fn new(partition: u16, metrics: &LagMetrics) -> Self {
        let label = partition.to_string();
        Self {
            entries: metrics.entries.with_label_values(&[&label]),
            seconds: metrics.seconds.with_label_values(&[&label]),
            seen: None,
        }
    }

    /// Entries were read.
    pub fn saw(&mut self, count: usize) {
        self.seen = self.seen.map(|seen| seen.saturating_add(count as u64));
    }

    /// The log begins another life, which counts anew.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    /// Compares the last entry that was seen with the log. Gives how many entries the log has lost that were never
    /// seen, as far as that can be told.
    pub fn measure(&mut self, last: StreamId, log: &Log) -> u64 {
        let left = if last >= log.newest {
            Some(0)
        } else if log.oldest.is_none_or(|oldest| oldest > last) {
            Some(log.length)
        } else {
            None
        };
        let reached = left.map(|left| log.added.saturating_sub(left));
        let missed = self.seen.zip(reached).map_or(0, |(seen, reached)| reached.saturating_sub(seen));
        self.seen = reached.or(self.seen);
        self.tell(last, log, left);
        missed
    }

    fn tell(&self, last: StreamId, log: &Log, left: Option<u64>) {
        // Whoever stands before the newest is behind by one at least.
        let behind =
            left.or_else(|| self.seen.map(|seen| log.added.saturating_sub(seen).max(1))).unwrap_or(1);
        self.entries.set(i64::try_from(behind).unwrap_or(i64::MAX));
        self.seconds.set(log.newest.ms.saturating_sub(last.ms) as f64 / 1_000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, sequence: 0 }
    }

    fn log(oldest_ms: u64, newest_ms: u64, added: u64, length: u64) -> Log {
        Log { newest: id(newest_ms), oldest: (length > 0).then(|| id(oldest_ms)), added, length }
    }

    #[test]
    fn lag_is_counted_in_entries_and_in_time_by_the_logs_own_clock() {
        let metrics = LagMetrics::new(&Registration::default()).unwrap();
        let mut lag = Lag::new(3, &metrics);
        let told = || {
            let entries = metrics.entries.with_label_values(&["3"]).get();
            (entries, metrics.seconds.with_label_values(&["3"]).get())
        };
        lag.measure(id(1_000), &log(1, 1_000, 70, 70));
        assert_eq!(told(), (0, 0.0));
        lag.saw(5);
        lag.measure(id(2_000), &log(1, 4_500, 100, 100));
        assert_eq!(told(), (25, 2.5));
        lag.saw(25);
        lag.measure(id(4_500), &log(1, 4_500, 100, 100));
        assert_eq!(told(), (0, 0.0));
        // A log that was lost and begun anew.
        lag.forget();
        lag.measure(id(0), &log(100, 500, 2, 2));
        assert_eq!(told(), (2, 0.5));
    }

    #[test]
    fn entries_that_the_log_lost_before_they_were_seen_are_missed_once() {
        let mut lag = Lag::new(0, &LagMetrics::new(&Registration::default()).unwrap());
        assert_eq!(lag.measure(id(5), &log(1, 5, 70, 70)), 0, "what was there before is nobody's loss");
        assert_eq!(lag.measure(id(5), &log(8, 9, 80, 4)), 6);
        lag.saw(4);
        assert_eq!(lag.measure(id(9), &log(8, 9, 80, 4)), 0);
        // It was trimmed to nothing, and read again before anybody looked.
        lag.saw(1);
        assert_eq!(lag.measure(id(20), &log(20, 20, 90, 1)), 9);
    }

    #[test]
    fn entries_that_were_seen_before_the_log_lost_them_are_not_missed() {
        let mut lag = Lag::new(0, &LagMetrics::new(&Registration::default()).unwrap());
        lag.measure(id(5), &log(1, 5, 70, 70));
        assert_eq!(lag.measure(id(5), &log(7, 7, 71, 1)), 0, "all but the one that follows");
        assert_eq!(lag.measure(id(5), &log(1, 9, 80, 30)), 0, "how many follow cannot be told");
        assert_eq!(lag.measure(id(9), &log(0, 9, 80, 0)), 10, "fewer were seen than there were");
    }
}
