//! Smoothed round-trip time, its variation, and the retransmission timeout that follows from them.

use std::time::Duration;

/// RFC 6298's estimator: SRTT and RTTVAR with gains of 1/8 and 1/4, and RTO = SRTT + max(G, 4 · RTTVAR).
///
/// It differs from the RFC in two ways: the lower bound is the 200 ms that TCP stacks use, not one second; and backing
/// off is left to the caller. Samples above [`RttEstimator::MAX_SAMPLE`] count as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttEstimator {
    srtt_us: u32,
    rttvar_us: u32,
    min_rto_us: u32,
    max_rto_us: u32,
    sampled: bool,
}

impl RttEstimator {
    /// The longest round trip that is believed.
    pub const MAX_SAMPLE: Duration = Duration::from_secs(60);
    /// The RTO before the first sample (RFC 6298, 2.1).
    pub const INITIAL_RTO: Duration = Duration::from_secs(1);
    /// The clock granularity G: timers are no finer than this.
    pub const GRANULARITY: Duration = Duration::from_millis(1);

    /// An estimator whose RTO stays within these bounds; `max_rto` gives way where it is below `min_rto`.
    #[must_use]
    pub fn new(min_rto: Duration, max_rto: Duration) -> Self {
        let min_rto_us = micros(min_rto);
        Self {
            srtt_us: 0,
            rttvar_us: 0,
            min_rto_us,
            max_rto_us: micros(max_rto).max(min_rto_us),
            sampled: false,
        }
    }

    /// Takes one measured round trip.
    pub fn sample(&mut self, rtt: Duration) {
        let rtt_us = micros(rtt.min(Self::MAX_SAMPLE));
        if !self.sampled {
            self.sampled = true;
            self.srtt_us = rtt_us;
            self.rttvar_us = rtt_us / 2;
            return;
        }
        self.rttvar_us = weighted(self.rttvar_us, self.srtt_us.abs_diff(rtt_us), 4);
        self.srtt_us = weighted(self.srtt_us, rtt_us, 8);
    }

    /// The smoothed round-trip time, once there is a sample.
    #[must_use]
    pub fn srtt(&self) -> Option<Duration> {
        self.sampled.then(|| Duration::from_micros(u64::from(self.srtt_us)))
    }

    /// The round-trip time's variation; zero before the first sample.
    #[must_use]
    pub fn rttvar(&self) -> Duration {
        Duration::from_micros(u64::from(self.rttvar_us))
    }

    /// How long to wait for an answer before asking again.
    #[must_use]
    pub fn rto(&self) -> Duration {
        let unbounded_us = if self.sampled {
            let spread_us = self.rttvar_us.saturating_mul(4).max(micros(Self::GRANULARITY));
            self.srtt_us.saturating_add(spread_us)
        } else {
            micros(Self::INITIAL_RTO)
        };
        Duration::from_micros(u64::from(unbounded_us.clamp(self.min_rto_us, self.max_rto_us)))
    }
}

impl Default for RttEstimator {
    /// RTO between 200 ms and one minute.
    fn default() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(60))
    }
}

/// `old · (1 − 1/gain) + new / gain`, rounded to the nearest.
fn weighted(old_us: u32, new_us: u32, gain: u64) -> u32 {
    let sum = u64::from(old_us) * (gain - 1) + u64::from(new_us) + gain / 2;
    u32::try_from(sum / gain).unwrap_or(u32::MAX)
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn before_a_sample_the_rto_is_one_second() {
        let estimator = RttEstimator::default();
        assert_eq!((estimator.srtt(), estimator.rto()), (None, ms(1_000)));
    }

    #[test]
    fn the_first_samples_follow_rfc_6298() {
        let mut estimator = RttEstimator::default();
        estimator.sample(ms(100));
        assert_eq!(estimator.srtt(), Some(ms(100)));
        assert_eq!(estimator.rttvar(), ms(50));
        assert_eq!(estimator.rto(), ms(300));
        estimator.sample(ms(180));
        assert_eq!(estimator.rttvar(), Duration::from_micros(57_500), "3/4 · 50 + 1/4 · 80");
        assert_eq!(estimator.srtt(), Some(ms(110)), "7/8 · 100 + 1/8 · 180");
        assert_eq!(estimator.rto(), ms(340));
    }

    #[test]
    fn a_steady_path_comes_down_to_the_lower_bound() {
        let mut estimator = RttEstimator::default();
        (0..64).for_each(|_| estimator.sample(ms(20)));
        assert_eq!(estimator.srtt(), Some(ms(20)));
        assert_eq!(estimator.rto(), ms(200));
    }

    #[test]
    fn without_variation_the_granularity_stays() {
        let mut estimator = RttEstimator::new(ms(1), ms(60_000));
        (0..64).for_each(|_| estimator.sample(ms(400)));
        assert_eq!(estimator.rto(), ms(401));
    }

    #[test]
    fn no_sample_takes_the_rto_out_of_its_bounds() {
        let mut estimator = RttEstimator::new(ms(200), ms(4_000));
        for sample in [Duration::MAX, Duration::ZERO, Duration::MAX, ms(1)] {
            estimator.sample(sample);
            assert!((ms(200)..=ms(4_000)).contains(&estimator.rto()), "{:?}", estimator.rto());
        }
        assert!(estimator.srtt() <= Some(RttEstimator::MAX_SAMPLE));
    }
}
