//! What the last 64 pings met, and how many probes or how much patience that asks for.

use super::{MAX_TIMEOUT, PathKind, millis};

/// An RTO above this would leave too few probes within [`MAX_TIMEOUT`].
const MAX_RTO_MS: u32 = 4_000;
const MIN_PROBES: u8 = 6;
const MAX_PROBES: u8 = 20;
/// Probes are added until a live peer misses all of them once in this many beats.
const BEATS_PER_FALSE_ALARM: u64 = 100_000_000;
/// The later probes of a beat are spread over about this time, so that a short outage does not take them all.
const PROBE_SPREAD_MS: u32 = 5_000;
const MAX_GAP_MS: u32 = 600;
/// Losses among the last 48 pings that make a path a shaky one: six per cent.
const SHAKY_LOSSES: u32 = 3;
/// Late answers among the last 64 from which on TCP paths are waited for longer: 1.5, 7 and 15 % loss each way.
const FEW_LATE: u32 = 2;
const MANY_LATE: u32 = 9;
const MOST_LATE: u32 = 18;

/// One bit for each of the last 64 pings, the newest lowest: set when it was lost, or late on TCP.
///
/// A UDP path of which nothing is known counts as one that lost a quarter, until sixteen good beats. A TCP path counts
/// as one with a few late answers, for six beats.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossHistory(u64);

impl LossHistory {
    const UNKNOWN: u64 = 0xffff << 48;
    const UNKNOWN_TCP: u64 = 0b11 << 57;

    pub(super) fn new(path: PathKind) -> Self {
        match path {
            PathKind::Udp => Self(Self::UNKNOWN),
            PathKind::Tcp => Self(Self::UNKNOWN_TCP),
        }
    }

    pub(super) fn record(&mut self, lost: bool) {
        self.0 = (self.0 << 1) | u64::from(lost);
    }

    pub(super) fn is_shaky(self) -> bool {
        (self.0 & !Self::UNKNOWN).count_ones() >= SHAKY_LOSSES
    }

    /// How a missing beat is probed on a path with this history and this RTO.
    pub(super) fn probe_plan(self, path: PathKind, rto_ms: u32) -> ProbePlan {
        let rto_ms = rto_ms.clamp(1, MAX_RTO_MS);
        match path {
            PathKind::Udp => ProbePlan::datagrams(self.probes(), rto_ms),
            PathKind::Tcp => ProbePlan::stream(self.0.count_ones(), rto_ms),
        }
    }

    /// The smallest n with p^n ≤ 1 / [`BEATS_PER_FALSE_ALARM`], p being the share of round trips that failed, and a
    /// little more, as so few of them may flatter the path.
    fn probes(self) -> u8 {
        const ONE: u64 = 1 << 48;
        let losses = u64::from(self.0.count_ones() + 2).min(64);
        let mut all_lost = ONE;
        let mut probes = 0;
        while probes < MAX_PROBES && all_lost > ONE / BEATS_PER_FALSE_ALARM {
            all_lost = all_lost * losses / 64;
            probes += 1;
        }
        probes.max(MIN_PROBES)
    }
}

/// The pings of one beat: how many, and how long each is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbePlan {
    pub(super) probes: u8,
    first_gap_ms: u32,
    max_gap_ms: u32,
}

impl ProbePlan {
    /// Probes spaced by the RTO, doubling (RFC 6298, 5.5) up to a gap that lets all of them have their turn.
    fn datagrams(probes: u8, rto_ms: u32) -> Self {
        let spread_ms = (PROBE_SPREAD_MS / u32::from(probes)).min(MAX_GAP_MS);
        let mut plan = Self { probes, first_gap_ms: rto_ms, max_gap_ms: spread_ms.max(rto_ms) };
        while plan.probes > 1 && plan.timeout_ms() > millis(MAX_TIMEOUT) {
            plan.probes -= 1;
        }
        plan
    }

    /// One ping: a second one would queue behind the first. TCP repeats a lost segment after one RTO, then two, four …:
    /// the n-th time after (2^n − 1) · RTO. The wait has room for four of these and an answer; for five where a few of
    /// the last 64 answers were late, for six where many were, and for seven where more than a quarter were.
    fn stream(late: u32, rto_ms: u32) -> Self {
        let repetitions =
            4 + [FEW_LATE, MANY_LATE, MOST_LATE].into_iter().filter(|&least| late >= least).count();
        let wait_ms = rto_ms.saturating_mul(1 << repetitions).min(millis(MAX_TIMEOUT));
        Self { probes: 1, first_gap_ms: wait_ms, max_gap_ms: wait_ms }
    }

    /// How long the answer to probe `index` (from 0) is waited for before the next step.
    pub(super) fn gap_ms(self, index: u8) -> u32 {
        self.first_gap_ms.saturating_mul(1 << index.min(16)).min(self.max_gap_ms)
    }

    pub(super) fn timeout_ms(self) -> u32 {
        (0..self.probes).fold(0, |sum: u32, index| sum.saturating_add(self.gap_ms(index)))
    }

    /// Whether so many losses in a row are too unlikely (p^k ≤ 1/1,000) to be the path's ordinary loss.
    pub(super) fn is_suspicious(self, losses: u8) -> bool {
        u16::from(losses) * 7 >= u16::from(self.probes) * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(path: PathKind, losses_of_sixteen: u32) -> LossHistory {
        let mut history = LossHistory::new(path);
        (0..64).for_each(|index| history.record(index % 16 < losses_of_sixteen));
        history
    }

    #[test]
    fn more_loss_asks_for_more_probes_and_hardly_more_time() {
        let plan = |losses| history(PathKind::Udp, losses).probe_plan(PathKind::Udp, 200);
        assert_eq!([0, 1, 2, 4, 16].map(|losses| plan(losses).probes), [6, 8, 10, 15, 20]);
        assert_eq!(
            [0, 1, 2, 4, 16].map(|losses| plan(losses).timeout_ms()),
            [3_000, 4_200, 4_600, 4_862, 4_950]
        );
    }

    #[test]
    fn the_first_probes_back_off() {
        let plan = history(PathKind::Udp, 0).probe_plan(PathKind::Udp, 200);
        assert_eq!([0, 1, 2, 3].map(|index| plan.gap_ms(index)), [200, 400, 600, 600]);
    }

    #[test]
    fn tcp_waits_for_retransmissions_instead_of_probing() {
        let plan = |losses| history(PathKind::Tcp, losses).probe_plan(PathKind::Tcp, 250);
        assert_eq!([0, 1, 3].map(|losses| plan(losses).timeout_ms()), [4_000, 8_000, 16_000]);
        assert_eq!([0, 1, 3].map(|losses| plan(losses).probes), [1, 1, 1]);
    }

    #[test]
    fn a_time_out_has_an_upper_bound() {
        for path in [PathKind::Udp, PathKind::Tcp] {
            for losses in 0..=16 {
                for rto_ms in [0, 1, 200, 3_000, u32::MAX] {
                    let plan = history(path, losses).probe_plan(path, rto_ms);
                    assert!(plan.timeout_ms() <= 17_000 && plan.probes >= 1, "{plan:?}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_path_is_careful_but_not_shaky() {
        let mut history = LossHistory::new(PathKind::Udp);
        assert_eq!(history.probe_plan(PathKind::Udp, 200).probes, 15);
        assert!(!history.is_shaky());
        (0..16).for_each(|_| history.record(false));
        assert_eq!(history.probe_plan(PathKind::Udp, 200).probes, 6);
    }
}
