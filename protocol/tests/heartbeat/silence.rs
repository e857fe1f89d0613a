//! A peer that does not answer: probes, and when it is given up.

use crate::session::{RTT, Session, seconds};
use skywave_protocol::heartbeat::{Action, Activity, PathKind, Schedule};
use std::time::Duration;

#[test]
fn a_missed_beat_is_probed_with_growing_gaps_before_the_peer_is_given_up() {
    let mut session = Session::new(PathKind::Udp, Activity::Idle);
    session.beats(30);
    let mut sent_at = Vec::new();
    while let Action::Ping { .. } = session.next() {
        sent_at.push(session.now);
    }
    let gaps: Vec<u128> = sent_at.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert_eq!(gaps, [200, 400, 600, 600, 600]);
    assert_eq!(session.heartbeat.poll(session.now), Action::Dead);
    assert_eq!(session.now - sent_at[0], session.heartbeat.schedule().timeout);
}

#[test]
fn an_answer_to_any_probe_ends_the_beat() {
    let mut session = Session::new(PathKind::Udp, Activity::Idle);
    session.beats(30);
    session.next_ping();
    let seq = session.next_ping();
    session.next_ping();
    assert_eq!(session.heartbeat.pong(seq, session.now), None, "its send time is not known any more");
    let interval = session.interval();
    assert_eq!(session.heartbeat.poll(session.now), Action::Wait(session.now + interval));
}

#[test]
fn a_late_answer_to_the_first_probe_is_measured_and_lengthens_the_gaps() {
    let mut session = Session::new(PathKind::Udp, Activity::Idle);
    session.beats(30);
    let (first, first_at) = (session.next_ping(), session.now);
    session.next_ping();
    session.next_ping();
    assert_eq!(session.heartbeat.pong(first, session.now), Some(session.now - first_at));
    assert!(session.heartbeat.rtt().rto() > Duration::from_millis(200));
}

#[test]
fn unknown_and_late_numbers_are_no_answers() {
    let mut session = Session::new(PathKind::Udp, Activity::Idle);
    session.beats(3);
    let seq = session.next_ping();
    assert_eq!(session.heartbeat.pong(seq - 1, session.now), None);
    assert_eq!(session.heartbeat.pong(seq + 1, session.now), None);
    assert_eq!(session.heartbeat.pong(u32::MAX, session.now), None);
    session.now += RTT;
    assert_eq!(session.heartbeat.pong(seq, session.now), Some(RTT));
    assert_eq!(session.heartbeat.pong(seq, session.now), None, "the second time");
}

#[test]
fn a_peer_that_is_heard_but_answers_no_ping_is_not_given_up() {
    for path in [PathKind::Udp, PathKind::Tcp] {
        let mut session = Session::new(path, Activity::Idle);
        for _ in 0..200 {
            session.next_ping();
            session.heartbeat.received(session.now);
        }
    }
}

#[test]
fn after_a_standstill_of_this_side_the_peer_gets_a_full_round_of_probes() {
    for path in [PathKind::Udp, PathKind::Tcp] {
        let mut session = Session::new(path, Activity::Idle);
        session.beats(30);
        session.next_ping();
        session.now += seconds(3_600);
        assert!(matches!(session.heartbeat.poll(session.now), Action::Ping { .. }), "{path:?}");
        let resumed = session.now;
        while let Action::Ping { .. } = session.next() {}
        assert_eq!(session.now - resumed, session.heartbeat.schedule().timeout, "{path:?}");
    }
}

#[test]
fn a_clock_that_ran_backward_delays_the_next_beat_by_no_more_than_an_interval() {
    let mut session = Session::new(PathKind::Udp, Activity::Idle);
    session.now += seconds(100_000);
    session.heartbeat.received(session.now);
    session.heartbeat.sent(session.now);
    let earlier = session.now - seconds(90_000);
    assert_eq!(session.heartbeat.poll(earlier), Action::Wait(earlier + session.interval()));
}

#[test]
fn the_death_of_a_foreground_session_is_noticed_within_twelve_seconds() {
    for path in [PathKind::Udp, PathKind::Tcp] {
        let mut session = Session::new(path, Activity::Foreground);
        session.beats(20);
        let Schedule { interval, timeout } = session.heartbeat.schedule();
        assert!(interval <= seconds(10) && interval + timeout <= seconds(12), "{interval:?} + {timeout:?}");
    }
}
