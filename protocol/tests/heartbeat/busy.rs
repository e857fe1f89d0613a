//! A session with traffic: what counts as a beat, and what of it teaches something.

use crate::session::{RTT, Session, seconds};
use skywave_protocol::heartbeat::{Action, Activity, PathKind, Schedule};
use std::time::Duration;

#[test]
fn traffic_counts_as_a_heartbeat() {
    let mut session = Session::new(PathKind::Udp, Activity::Idle);
    let interval = session.interval();
    for _ in 0..100 {
        session.now += interval / 2;
        session.heartbeat.received(session.now);
        session.heartbeat.sent(session.now);
        assert_eq!(session.heartbeat.poll(session.now), Action::Wait(session.now + interval));
    }
}

/// How often a session with traffic in both directions is pinged within two minutes; each answer takes what `rtt` says
/// for its number.
fn pings_while_busy(session: &mut Session, rtt: impl Fn(u32) -> Duration) -> u32 {
    let start = session.now;
    let mut pings = 0;
    while session.now < start + seconds(120) {
        session.now += seconds(1) / 10;
        session.heartbeat.received(session.now);
        session.heartbeat.sent(session.now);
        if let Action::Ping { seq } = session.heartbeat.poll(session.now) {
            session.now += rtt(seq);
            session.heartbeat.pong(seq, session.now);
            pings += 1;
        }
    }
    pings
}

fn patience(session: &Session) -> Duration {
    let schedule = session.heartbeat.schedule();
    schedule.interval + schedule.timeout
}

#[test]
fn a_session_that_is_busy_from_the_start_learns_its_path_all_the_same() {
    for path in [PathKind::Udp, PathKind::Tcp] {
        let mut session = Session::new(path, Activity::Foreground);
        // From then on traffic counts.
        assert!(pings_while_busy(&mut session, |_| RTT) <= 10, "{path:?}");
        assert!(patience(&session) <= seconds(11), "{path:?} {:?}", patience(&session));
    }
}

#[test]
fn a_busy_session_whose_peer_was_slow_to_begin_is_noticed_as_soon_as_any() {
    for path in [PathKind::Udp, PathKind::Tcp] {
        let mut session = Session::new(path, Activity::Foreground);
        let slow_at_first = |seq| if seq < 3 { seconds(1) } else { RTT };
        assert!(pings_while_busy(&mut session, slow_at_first) <= 40, "{path:?}");
        assert!(patience(&session) <= seconds(11), "{path:?} {:?}", patience(&session));
    }
}

/// What the peer is told with the ping that comes next, and answers at once.
fn patience_told_next(session: &mut Session) -> Duration {
    let seq = session.next_ping();
    session.now += RTT;
    session.heartbeat.pong(seq, session.now);
    patience(session)
}

#[test]
fn a_page_that_was_busy_once_waits_no_longer_for_a_silent_node_over_websocket() {
    for answers_before in [0, 1, 4, 30, 100] {
        let mut session = Session::new(PathKind::Tcp, Activity::Foreground);
        session.beats(answers_before);
        let usual = patience_told_next(&mut session);
        let seq = session.next_ping();
        session.now += seconds(1);
        session.heartbeat.pong(seq, session.now);
        let told = patience_told_next(&mut session);
        assert!(told <= usual.min(seconds(13)), "{told:?} after {answers_before}, before {usual:?}");
    }
}

#[test]
fn a_page_that_was_busy_as_it_began_waits_no_longer_for_it() {
    let mut session = Session::new(PathKind::Tcp, Activity::Foreground);
    for _ in 0..3 {
        let seq = session.next_ping();
        session.now += seconds(1);
        session.heartbeat.pong(seq, session.now);
    }
    patience_told_next(&mut session);
    let told = patience_told_next(&mut session);
    assert!(told <= seconds(13), "{told:?}");
}

#[test]
fn a_busy_session_on_a_path_that_needs_patience_is_pinged_no_more_than_a_quiet_one() {
    let mut session = Session::new(PathKind::Tcp, Activity::Foreground);
    assert!(pings_while_busy(&mut session, |_| seconds(2)) <= 30 + 120 / 5);
}

#[test]
fn a_peer_that_hears_nothing_from_us_is_pinged_however_much_it_sends() {
    let mut session = Session::new(PathKind::Udp, Activity::Idle);
    let (start, interval) = (session.now, session.interval());
    for _ in 0..9 {
        session.now += interval / 10;
        session.heartbeat.received(session.now);
        assert_eq!(session.heartbeat.poll(session.now), Action::Wait(start + interval));
    }
    session.now = start + interval;
    assert_eq!(session.heartbeat.poll(session.now), Action::Ping { seq: 1 });
}

#[test]
fn an_answer_is_measured_though_it_was_reported_as_traffic_first() {
    for path in [PathKind::Udp, PathKind::Tcp] {
        let mut session = Session::new(path, Activity::Idle);
        let seq = session.next_ping();
        session.now += RTT;
        session.heartbeat.received(session.now);
        assert_eq!(session.heartbeat.pong(seq, session.now), Some(RTT), "{path:?}");
    }
}

#[test]
fn what_was_sent_counts_from_when_it_was_sent() {
    let mut session = Session::new(PathKind::Tcp, Activity::Idle);
    let (begin, interval) = (session.now, session.interval());
    session.now += interval / 2;
    session.heartbeat.sent(begin + interval / 4);
    session.heartbeat.received(session.now);
    assert_eq!(session.heartbeat.poll(session.now), Action::Wait(begin + interval / 4 + interval));
}

#[test]
fn a_peer_that_takes_more_is_not_given_up_while_a_ping_waits_behind_it_and_one_that_takes_no_more_is() {
    for path in [PathKind::Udp, PathKind::Tcp] {
        let mut session = Session::new(path, Activity::Foreground);
        session.beats(2);
        session.next_ping();
        for _ in 0..600 {
            session.now += seconds(1) / 10;
            session.heartbeat.taken(session.now);
            assert_ne!(session.heartbeat.poll(session.now), Action::Dead, "{path:?}");
        }
        let taken = session.now;
        while session.next() != Action::Dead {}
        let Schedule { interval, timeout } = session.heartbeat.schedule();
        assert!(session.now - taken <= interval + timeout, "{path:?} {:?}", session.now - taken);
    }
}

#[test]
fn what_was_taken_before_a_ping_is_no_answer_to_it() {
    let mut session = Session::new(PathKind::Tcp, Activity::Foreground);
    let begin = session.now;
    session.next_ping();
    session.heartbeat.taken(begin + seconds(1) / 2);
    assert_eq!(session.next(), Action::Dead);
}
