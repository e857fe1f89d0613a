//! The heartbeat between two regions: when to send a beat, and what silence in each direction means.

use super::{
    phi::{PhiConfig, PhiDetector},
    rtt::RttEstimator,
};
use std::time::{Duration, Instant};

/// A link whose steps come this much too late says that its owner stood still: silence then proves nothing.
const LATE_POLL: Duration = Duration::from_secs(1);
/// A mean deviation times this is a standard deviation, for normally distributed values.
const DEVIATION_PER_MEAN_DEVIATION: f64 = 1.253;

/// What is known of one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Nothing came yet, and that is not suspicious yet.
    #[default]
    Unknown,
    /// Beats come.
    Up,
    /// They do not, for longer than their pauses vary.
    Suspected,
}

impl Direction {
    /// What was known otherwise, as long as this is not known.
    #[must_use]
    pub fn or(self, otherwise: Self) -> Self {
        if self == Self::Unknown { otherwise } else { self }
    }
}

/// What the owner of a [`LinkHeartbeat`] has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkAction {
    /// Nothing before this time, unless something is received. A state may have changed.
    Wait(Instant),
    /// Send a beat that announces the next one, then poll again.
    Send {
        /// Grows by one with each beat.
        seq: u64,
        /// Until the next beat, at most.
        interval: Duration,
    },
}

/// One region's end of a link.
///
/// Beats go out on our connection to the other region and are acknowledged there, which is a round trip (RFC 6298);
/// the other region's beats come in on its connection to us. Either may be cut alone, so that each direction has a
/// [`PhiDetector`] of its own: for acknowledgements (outbound), and for the other's beats (inbound).
///
/// The interval is what the patience leaves: a dead direction shall be suspected within [`Self::PATIENCE`], of which
/// a path that varies needs more for not being suspected while it lives. Steady links beat every
/// [`Self::MAX_INTERVAL`], shaky ones up to every [`Self::MIN_INTERVAL`]. It shrinks at once and grows by a quarter
/// per beat, from the shortest on.
#[derive(Clone, Debug)]
pub struct LinkHeartbeat {
    rtt: RttEstimator,
    outbound: PhiDetector,
    inbound: PhiDetector,
    /// Of the lateness at which a direction is suspected.
    deviations: f64,
    interval: Duration,
    next_at: Instant,
    /// When it wanted to be polled.
    wake_at: Instant,
    seq: u64,
}

impl LinkHeartbeat {
    /// The pause of the shakiest links, and after a beat that failed.
    pub const MIN_INTERVAL: Duration = Duration::from_millis(200);
    /// The pause of steady links.
    pub const MAX_INTERVAL: Duration = Duration::from_secs(2);
    /// The longest pause that the other side is believed to mean.
    pub const MAX_ANNOUNCED: Duration = Duration::from_secs(4);
    /// A direction that died is suspected within this, where its lateness has a deviation below half a second.
    pub const PATIENCE: Duration = Duration::from_secs(3);

    /// The first beat is due at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let detector = PhiDetector::new(PhiConfig::default(), now);
        Self {
            rtt: RttEstimator::default(),
            deviations: detector.deviations_tolerated(),
            inbound: detector.clone(),
            outbound: detector,
            interval: Self::MIN_INTERVAL,
            next_at: now,
            wake_at: now,
            seq: 0,
        }
    }

    /// A beat was acknowledged, one round trip after it was sent.
    pub fn acknowledged(&mut self, interval: Duration, rtt: Duration, now: Instant) {
        self.rtt.sample(rtt);
        self.outbound.heard(interval, now);
        self.adapt(self.interval * 5 / 4);
    }

    /// A beat could not be sent, or was not acknowledged: the next one follows soon.
    pub fn failed(&mut self, now: Instant) {
        self.interval = Self::MIN_INTERVAL;
        let soon = now.checked_add(Self::MIN_INTERVAL).unwrap_or(now);
        self.next_at = self.next_at.min(soon);
    }

    /// The other region's beat came, with the pause that it announced. Of several that come together only the last
    /// is to be told.
    pub fn heard(&mut self, interval: Duration, now: Instant) {
        self.inbound.heard(interval.min(Self::MAX_ANNOUNCED), now);
        self.adapt(self.interval);
    }

    /// The other region's beats could not be listened to until `now`.
    pub fn was_deaf(&mut self, now: Instant) {
        self.inbound.was_deaf(now);
    }

    /// What to do now.
    pub fn poll(&mut self, now: Instant) -> LinkAction {
        if now.saturating_duration_since(self.wake_at) > LATE_POLL {
            self.inbound.was_deaf(now);
            self.outbound.was_deaf(now);
        }
        self.wake_at = now;
        if now >= self.next_at {
            self.seq += 1;
            self.next_at = now.checked_add(self.interval).unwrap_or(now);
            return LinkAction::Send { seq: self.seq, interval: self.interval };
        }
        let suspicions = [&self.outbound, &self.inbound].map(PhiDetector::suspected_at);
        let coming = suspicions.into_iter().filter(|at| *at > now);
        self.wake_at = coming.fold(self.next_at, Instant::min);
        LinkAction::Wait(self.wake_at)
    }

    /// Shrinks the interval where the path needs patience, and lets it grow where it does not.
    fn adapt(&mut self, most: Duration) {
        let varied = self.rtt.rttvar().as_secs_f64() * DEVIATION_PER_MEAN_DEVIATION * self.deviations;
        let varied = Duration::try_from_secs_f64(varied.max(0.0)).unwrap_or(Self::PATIENCE);
        let tolerance = varied.max(self.outbound.tolerance()).max(self.inbound.tolerance());
        let wanted = Self::PATIENCE.saturating_sub(tolerance).clamp(Self::MIN_INTERVAL, Self::MAX_INTERVAL);
        self.interval = wanted.min(most);
    }

    /// Whether our beats are acknowledged.
    #[must_use]
    pub fn outbound(&self, now: Instant) -> Direction {
        direction(&self.outbound, now)
    }

    /// Whether the other's beats come.
    #[must_use]
    pub fn inbound(&self, now: Instant) -> Direction {
        direction(&self.inbound, now)
    }

    /// The greater phi of both directions.
    #[must_use]
    pub fn phi(&self, now: Instant) -> f64 {
        self.outbound.phi(now).max(self.inbound.phi(now))
    }

    /// The smoothed round-trip time, once there is a sample.
    #[must_use]
    pub fn srtt(&self) -> Option<Duration> {
        self.rtt.srtt()
    }

    /// The pause between beats, as it is now.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }
}

fn direction(detector: &PhiDetector, now: Instant) -> Direction {
    if detector.is_suspected(now) {
        Direction::Suspected
    } else if detector.has_heard() {
        Direction::Up
    } else {
        Direction::Unknown
    }
}
