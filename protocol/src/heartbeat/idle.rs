//! How long a path survives without traffic: raised in steps, lowered at once, with a memory of what failed.

use super::after;
use std::time::Instant;

/// So many beats must survive a pause before a longer one is tried.
const SURVIVALS_PER_STEP: u8 = 3;
/// A pause that failed is not tried again for this long, doubled with each failure up to four times.
const CEILING_HOLD_MS: u32 = 4 * 60 * 60 * 1_000;
const MAX_HOLD_DOUBLINGS: u8 = 4;
/// No binding in common use expires sooner, so that shorter pauses are not to blame for losses.
const SHORTEST_BINDING_MS: u32 = 15_000;
const NO_DOUBT: u32 = u32::MAX;
/// Idle timers of NATs, firewalls and balancers are round numbers: 30, 45, 60, 90 s, 2, 3, 4, 5 minutes.
const STEPS_MS: [u32; 8] = [28_000, 40_000, 55_000, 85_000, 115_000, 175_000, 235_000, 290_000];

/// What is known about one path's idle timers, such as those of its NATs.
///
/// Take it from a session that was cut with [`super::Heartbeat::memory`] and give it to the next one on the same
/// path with [`super::Heartbeat::remember`], so that a TCP connection's end is not the end of what it taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleMemory {
    /// The pause that is allowed now.
    pub(super) trial_ms: u32,
    /// The longest pause that is trusted: it survived, or the configuration says so.
    safe_ms: u32,
    /// The shortest pause that failed, and until when it is avoided.
    ceiling: Option<(u32, Instant)>,
    survivals: u8,
    failures: u8,
    /// The trusted pause that failed once, as long as none of its length has survived since.
    /// [`NO_DOUBT`]: there is none.
    doubt_ms: u32,
}

impl IdleMemory {
    pub(super) fn new(start_ms: u32) -> Self {
        Self {
            trial_ms: start_ms,
            safe_ms: start_ms,
            ceiling: None,
            survivals: 0,
            failures: 0,
            doubt_ms: NO_DOUBT,
        }
    }

    /// Whether no pause as long as this one is known to be survived.
    pub(super) fn is_on_trial(&self, pause_ms: u32) -> bool {
        pause_ms > self.safe_ms
    }

    /// The first ping after a pause was answered.
    pub(super) fn survived(&mut self, pause_ms: u32, max_ms: u32, now: Instant) {
        if self.doubt_ms <= pause_ms {
            self.doubt_ms = NO_DOUBT;
        }
        if pause_ms < self.trial_ms {
            return;
        }
        self.survivals = self.survivals.saturating_add(1);
        if self.survivals < SURVIVALS_PER_STEP {
            return;
        }
        self.survivals = 0;
        self.safe_ms = self.safe_ms.max(self.trial_ms);
        self.grow(max_ms, now);
    }

    /// One step up, unless that comes near what failed not long ago.
    fn grow(&mut self, max_ms: u32, now: Instant) {
        let step_ms = STEPS_MS.into_iter().find(|&step_ms| step_ms > self.trial_ms);
        let longer_ms = step_ms.unwrap_or(self.trial_ms.saturating_add(self.trial_ms / 4)).min(max_ms);
        match self.ceiling {
            Some((ceiling_ms, until)) if now < until && longer_ms >= ceiling_ms - ceiling_ms / 8 => {}
            _ => self.trial_ms = self.trial_ms.max(longer_ms),
        }
    }

    /// The pings after a pause were lost in a row too long for chance, or the connection was cut within it. A pause on
    /// trial is given up at once. One that is trusted is given up only when this happens again before one as long has
    /// survived: a short outage, or a proxy that starts anew, looks the same.
    pub(super) fn failed(&mut self, pause_ms: u32, now: Instant) {
        if pause_ms < SHORTEST_BINDING_MS.min(self.safe_ms) {
            return;
        }
        self.survivals = 0;
        let is_confirmed = self.doubt_ms <= pause_ms.saturating_add(pause_ms / 8);
        if !self.is_on_trial(pause_ms) && !is_confirmed {
            self.doubt_ms = pause_ms;
            return;
        }
        let failed_ms = pause_ms.min(self.doubt_ms);
        self.doubt_ms = NO_DOUBT;
        let doublings = self.failures.min(MAX_HOLD_DOUBLINGS);
        self.failures = self.failures.saturating_add(1);
        self.ceiling = Some((failed_ms, after(now, CEILING_HOLD_MS << doublings)));
        if !self.is_on_trial(failed_ms) {
            self.safe_ms = (failed_ms / 2).max(SHORTEST_BINDING_MS.min(self.safe_ms));
        }
        self.trial_ms = self.safe_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MAX: u32 = 400_000;

    fn survive(memory: &mut IdleMemory, beats: u32, now: Instant) {
        (0..beats).for_each(|_| memory.survived(memory.trial_ms, MAX, now));
    }

    #[test]
    fn it_takes_a_step_after_three_beats_up_to_the_maximum() {
        let (mut memory, now) = (IdleMemory::new(25_000), Instant::now());
        survive(&mut memory, 2, now);
        assert_eq!(memory.trial_ms, 25_000);
        let mut seen = Vec::new();
        while memory.trial_ms < MAX {
            survive(&mut memory, 1, now);
            seen.push(memory.trial_ms);
            survive(&mut memory, 2, now);
        }
        assert_eq!(seen[..3], [28_000, 40_000, 55_000]);
        assert_eq!(seen[seen.len() - 3..], [290_000, 362_500, MAX]);
    }

    #[test]
    fn shorter_pauses_teach_nothing() {
        let (mut memory, now) = (IdleMemory::new(25_000), Instant::now());
        (0..10).for_each(|_| memory.survived(24_999, MAX, now));
        assert_eq!(memory.trial_ms, 25_000);
    }

    #[test]
    fn a_failed_trial_goes_back_at_once_and_is_not_repeated_for_hours() {
        let (mut memory, now) = (IdleMemory::new(115_000), Instant::now());
        survive(&mut memory, 3, now);
        memory.failed(175_000, now);
        assert_eq!(memory.trial_ms, 115_000);
        survive(&mut memory, 1_000, now + Duration::from_secs(4 * 3_600 - 1));
        assert_eq!(memory.trial_ms, 115_000);
        survive(&mut memory, 3, now + Duration::from_secs(4 * 3_600));
        assert_eq!(memory.trial_ms, 175_000);
        let later = now + Duration::from_secs(5 * 3_600);
        memory.failed(175_000, later);
        survive(&mut memory, 1_000, later + Duration::from_secs(8 * 3_600 - 1));
        assert_eq!(memory.trial_ms, 115_000, "the second failure is remembered twice as long");
    }

    #[test]
    fn losses_after_short_or_unknown_pauses_lower_nothing() {
        let (mut memory, now) = (IdleMemory::new(25_000), Instant::now());
        [0, 5_000, 0, 5_000, 14_999].into_iter().for_each(|pause_ms| memory.failed(pause_ms, now));
        assert_eq!(memory, IdleMemory::new(25_000));
    }

    #[test]
    fn however_often_it_fails_it_stays_above_the_shortest_binding() {
        let (mut memory, now) = (IdleMemory::new(55_000), Instant::now());
        (0..20).for_each(|_| memory.failed(memory.trial_ms, now));
        assert_eq!(memory.trial_ms, 15_000);
    }

    #[test]
    fn one_outage_does_not_lower_a_trusted_pause_but_two_running_do() {
        let (mut memory, now) = (IdleMemory::new(40_000), Instant::now());
        memory.failed(40_000, now);
        memory.survived(40_000, MAX, now);
        memory.failed(40_000, now);
        assert_eq!(memory.trial_ms, 40_000);
        memory.failed(40_000, now);
        assert_eq!(memory.trial_ms, 20_000);
    }

    #[test]
    fn a_shorter_pause_that_survives_clears_no_doubt_and_one_as_long_does() {
        let now = Instant::now();
        for (survived_ms, left_ms) in [(10_000, 25_000), (50_000, 55_000)] {
            let mut memory = IdleMemory::new(55_000);
            memory.failed(50_000, now);
            memory.survived(survived_ms, MAX, now);
            memory.failed(50_000, now);
            assert_eq!(memory.trial_ms, left_ms, "{survived_ms}");
        }
    }

    #[test]
    fn a_path_that_is_trusted_for_less_than_a_binding_lives_is_believed_when_it_fails() {
        let (mut memory, now) = (IdleMemory::new(2_000), Instant::now());
        survive(&mut memory, 3, now);
        memory.failed(3_000, now);
        assert_eq!(memory.trial_ms, 2_000);
        survive(&mut memory, 100, now);
        assert_eq!(memory.trial_ms, 2_000);
    }
}
