//! What the owner of a phi detector can rely on.

use proptest::prelude::*;
use skywave_protocol::heartbeat::{PhiConfig, PhiDetector};
use std::time::{Duration, Instant};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A detector that heard beats of one interval, each late by so much, and the time of the last.
fn after_beats(interval: Duration, lateness: &[Duration]) -> (PhiDetector, Instant) {
    let start = Instant::now();
    let mut detector = PhiDetector::new(PhiConfig::default(), start);
    let mut now = start;
    for late in lateness {
        now += interval + *late;
        detector.heard(interval, now);
    }
    (detector, now)
}

#[test]
fn a_steady_peer_is_never_suspected() {
    let start = Instant::now();
    let mut detector = PhiDetector::new(PhiConfig::default(), start);
    for beat in 1..=10_000u32 {
        let now = start + ms(1_000) * beat;
        assert!(!detector.is_suspected(now), "before beat {beat}");
        detector.heard(ms(1_000), now);
    }
}

#[test]
fn a_peer_may_change_its_interval_without_being_suspected() {
    let mut now = Instant::now();
    let mut detector = PhiDetector::new(PhiConfig::default(), now);
    for interval in [200, 2_000, 200, 400, 2_000, 2_000, 200].map(ms).into_iter().cycle().take(500) {
        assert!(!detector.is_suspected(now));
        detector.heard(interval, now);
        now += interval;
    }
    assert!(detector.tolerance() < ms(900), "{:?}", detector.tolerance());
}

#[test]
fn a_steady_peer_that_dies_is_suspected_within_three_seconds() {
    let (detector, last) = after_beats(ms(2_000), &[Duration::ZERO; 100]);
    assert!(!detector.is_suspected(last + ms(2_500)));
    assert!(detector.is_suspected(last + ms(3_000)));
}

#[test]
fn a_peer_that_never_says_anything_is_suspected_all_the_same() {
    let start = Instant::now();
    let detector = PhiDetector::new(PhiConfig::default(), start);
    assert!(!detector.has_heard() && !detector.is_suspected(start + ms(2_000)));
    assert!(detector.is_suspected(start + ms(5_000)));
}

#[test]
fn the_first_beat_ends_the_suspicion() {
    let (mut detector, last) = after_beats(ms(1_000), &[Duration::ZERO; 20]);
    let late = last + ms(60_000);
    assert!(detector.is_suspected(late));
    detector.heard(ms(1_000), late);
    assert!(!detector.is_suspected(late) && !detector.is_suspected(late + ms(1_500)));
}

#[test]
fn one_long_outage_does_not_hide_the_next() {
    let (mut detector, last) = after_beats(ms(1_000), &[Duration::ZERO; 100]);
    let mut now = last + ms(3_600_000);
    detector.heard(ms(1_000), now);
    for _ in 0..100 {
        now += ms(1_000);
        detector.heard(ms(1_000), now);
    }
    assert!(detector.is_suspected(now + ms(3_500)));
}

#[test]
fn silence_that_nobody_could_hear_proves_nothing() {
    let (mut detector, last) = after_beats(ms(1_000), &[Duration::ZERO; 50]);
    let before = detector.tolerance();
    let now = last + ms(30_000);
    detector.was_deaf(now);
    assert!(!detector.is_suspected(now + ms(1_200)));
    detector.heard(ms(1_000), now + ms(10));
    assert_eq!(detector.tolerance(), before, "nor is it learned from");
}

#[test]
fn a_jittery_peer_is_given_more_time_than_a_steady_one() {
    let jitter: Vec<Duration> = (0..100).map(|beat| ms(if beat % 2 == 0 { 0 } else { 600 })).collect();
    let (jittery, _) = after_beats(ms(500), &jitter);
    let (steady, _) = after_beats(ms(500), &[Duration::ZERO; 100]);
    assert!(jittery.tolerance() > 2 * steady.tolerance() - ms(50));
}

/// What may happen to a detector: any intervals, any pauses, any clock.
fn happenings() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    let interval = prop_oneof![0u64..5_000, Just(u64::MAX)];
    let pause = prop_oneof![0u64..3_000, 0u64..1_000_000_000];
    proptest::collection::vec((interval, pause, any::<bool>()), 0..150)
}

proptest! {
    #[test]
    fn phi_is_a_number_that_grows_with_silence_and_crosses_the_threshold_where_it_says(happenings in happenings()) {
        let start = Instant::now();
        let mut now = start;
        let mut detector = PhiDetector::new(PhiConfig::default(), start);
        for (interval, pause, deaf) in happenings {
            now += ms(pause);
            if deaf { detector.was_deaf(now) } else { detector.heard(ms(interval), now) }
            // A clock that runs backward.
            let _ = detector.phi(start);
        }
        let mut before = 0.0;
        for silence in (0..200).map(|step| ms(step * 100)) {
            let phi = detector.phi(now + silence);
            prop_assert!((0.0..=PhiDetector::MAX_PHI).contains(&phi), "{phi}");
            prop_assert!(phi >= before, "{phi} after {before}");
            before = phi;
        }
        let crossing = detector.phi(detector.suspected_at());
        prop_assert!((crossing - PhiConfig::default().threshold).abs() < 1e-3, "{crossing}");
    }

    #[test]
    fn whatever_the_path_was_like_a_dead_peer_is_suspected_within_a_bound(
        lateness in proptest::collection::vec(0u64..100_000, 1..300),
    ) {
        let lateness: Vec<Duration> = lateness.into_iter().map(ms).collect();
        let (detector, last) = after_beats(ms(2_000), &lateness);
        // Lateness of no more than two seconds has a mean and a deviation of no more than that.
        prop_assert!(detector.is_suspected(last + ms(2_000 + 2_000 + 6 * 2_000)));
    }
}
