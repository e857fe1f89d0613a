//! Suspicion as a number that grows with silence: the phi accrual failure detector.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How a [`PhiDetector`] judges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhiConfig {
    /// The phi from which on the peer is suspected. At 8, one beat in 10⁸ of a path that varies as it did is later.
    pub threshold: f64,
    /// How many beats are remembered; at least one is.
    pub window: usize,
    /// The lateness is taken to vary by no less: what the machines and one repetition of a lost segment may cost.
    pub min_deviation: Duration,
    /// A beat later than this counts as that late, so that one outage does not blind the detector to the next.
    pub max_lateness: Duration,
    /// When the first beat is expected, since nothing was announced yet.
    pub first_interval: Duration,
}

impl Default for PhiConfig {
    fn default() -> Self {
        Self {
            threshold: 8.0,
            window: 1_000,
            min_deviation: Duration::from_millis(150),
            max_lateness: Duration::from_millis(1_200),
            first_interval: Duration::from_secs(2),
        }
    }
}

/// The latest of a thousand normally distributed values is about so many deviations from their mean.
const LATEST_DEVIATIONS: f64 = 3.0;

/// The φ accrual failure detector (Hayashibara, Défago, Yared and Katayama, 2004), for beats whose sender says with
/// each when the next one will come.
///
/// φ = −log₁₀ P(a beat is later than this one is by now), with normally distributed lateness. The paper's window is
/// over the intervals between beats. Here it is over their lateness, which is the interval less the announced one: so a
/// sender may change its interval at any time. What travels over TCP is seldom late, and then by far, when a segment is
/// lost. So the deviation is taken to be large enough for the latest beat that is remembered. A clock that runs
/// backward is taken to have stood still.
#[derive(Clone, Debug)]
pub struct PhiDetector {
    config: PhiConfig,
    /// In seconds; negative when a beat came early.
    lateness: VecDeque<f64>,
    mean: f64,
    deviation: f64,
    /// By how many deviations a beat has to be late until phi is at the threshold.
    tolerance: f64,
    last_at: Instant,
    announced: Duration,
    heard: bool,
    /// The pause before the next beat was not listened to as a whole.
    was_deaf: bool,
}

impl PhiDetector {
    /// Phi grows no further. What is later than that is later by far more than twenty deviations.
    pub const MAX_PHI: f64 = 100.0;
    /// The longest interval that is believed.
    pub const MAX_INTERVAL: Duration = Duration::from_secs(60);

    /// Waits for the first beat from `now` on.
    #[must_use]
    pub fn new(config: PhiConfig, now: Instant) -> Self {
        let announced = config.first_interval.min(Self::MAX_INTERVAL);
        let mut detector = Self {
            config,
            lateness: VecDeque::new(),
            mean: 0.0,
            deviation: 0.0,
            tolerance: deviations(config.threshold),
            last_at: now,
            announced,
            heard: false,
            was_deaf: false,
        };
        detector.begin(announced);
        detector
    }

    /// As the paper leaves open how to begin: with two beats, one late and one early by a quarter of the interval.
    fn begin(&mut self, interval: Duration) {
        self.lateness.clear();
        let quarter = interval.as_secs_f64() / 4.0;
        self.remember(-quarter);
        self.remember(quarter);
    }

    fn remember(&mut self, lateness: f64) {
        while self.lateness.len() >= self.config.window.max(1) {
            self.lateness.pop_front();
        }
        self.lateness.push_back(lateness);
        let count = self.lateness.len() as f64;
        self.mean = self.lateness.iter().sum::<f64>() / count;
        let variance = self.lateness.iter().map(|late| (late - self.mean).powi(2)).sum::<f64>() / count;
        let latest = self.lateness.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.deviation = variance
            .sqrt()
            .max((latest - self.mean) / LATEST_DEVIATIONS)
            .max(self.config.min_deviation.as_secs_f64())
            .max(f64::EPSILON);
    }

    /// A beat came; its sender will send the next one within `interval`, at most [`Self::MAX_INTERVAL`].
    ///
    /// Of several that come together only the last is to be told.
    pub fn heard(&mut self, interval: Duration, now: Instant) {
        let interval = interval.min(Self::MAX_INTERVAL);
        if self.heard && !self.was_deaf {
            let passed = now.saturating_duration_since(self.last_at).as_secs_f64();
            let lateness = passed - self.announced.as_secs_f64();
            self.remember(lateness.min(self.config.max_lateness.as_secs_f64()));
        }
        if !self.heard {
            self.begin(interval);
        }
        self.heard = true;
        self.was_deaf = false;
        self.announced = interval;
        self.last_at = self.last_at.max(now);
    }

    /// This side could not listen until `now`: the silence so far proves nothing.
    pub fn was_deaf(&mut self, now: Instant) {
        self.was_deaf = true;
        self.last_at = self.last_at.max(now);
    }

    /// Whether any beat came.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.heard
    }

    /// How suspicious the silence is by now: 0 … [`Self::MAX_PHI`].
    #[must_use]
    pub fn phi(&self, now: Instant) -> f64 {
        let silence = now.saturating_duration_since(self.last_at).as_secs_f64();
        let lateness = silence - self.announced.as_secs_f64();
        phi((lateness - self.mean) / self.deviation)
    }

    /// How late a beat may be before its sender is suspected.
    #[must_use]
    pub fn tolerance(&self) -> Duration {
        seconds(self.mean + self.tolerance * self.deviation)
    }

    /// How many standard deviations from the mean that is.
    #[must_use]
    pub fn deviations_tolerated(&self) -> f64 {
        self.tolerance
    }

    /// When the peer is suspected, if nothing is heard until then.
    #[must_use]
    pub fn suspected_at(&self) -> Instant {
        let silence = self.announced.as_secs_f64() + self.mean + self.tolerance * self.deviation;
        self.last_at.checked_add(seconds(silence)).unwrap_or(self.last_at)
    }

    /// Whether phi has reached the threshold.
    #[must_use]
    pub fn is_suspected(&self, now: Instant) -> bool {
        now >= self.suspected_at()
    }
}

/// −log₁₀ of the probability that a normally distributed value lies above so many standard deviations.
fn phi(deviations: f64) -> f64 {
    let probability = libm::erfc(deviations / std::f64::consts::SQRT_2) / 2.0;
    // Not below zero, as −0 or by rounding; infinite where the probability is too small to be expressed.
    (-probability.log10()).clamp(0.0, PhiDetector::MAX_PHI)
}

/// Where [`phi`] reaches a value, by bisection.
fn deviations(wanted: f64) -> f64 {
    // Phi is above 100 at 22 deviations.
    let (mut low, mut high) = (-10.0, 22.0);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if phi(middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(PhiDetector::MAX_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phi_is_the_logarithm_of_the_normal_distributions_tail() {
        // Quantiles of the standard normal distribution.
        for (deviations, expected) in [(1.281_55, 1.0), (2.326_35, 2.0), (3.090_23, 3.0), (5.612_00, 8.0)] {
            assert!((phi(deviations) - expected).abs() < 1e-4, "{deviations}: {}", phi(deviations));
        }
        assert_eq!((phi(f64::NEG_INFINITY), phi(f64::INFINITY)), (0.0, PhiDetector::MAX_PHI));
    }

    #[test]
    fn the_threshold_is_found_on_the_curve() {
        for threshold in [0.5, 1.0, 8.0, 16.0, 99.0] {
            assert!((phi(deviations(threshold)) - threshold).abs() < 1e-6, "{threshold}");
        }
    }
}
