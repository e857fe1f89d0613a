//! How long a pause may be: what is looked at, what the path bore, what was cut.

use crate::session::{RTT, Session, seconds};
use skywave_protocol::heartbeat::{Action, Activity, Heartbeat, HeartbeatConfig, PathKind, Schedule};
use std::time::Duration;

#[test]
fn what_the_handshake_measured_is_told_from_the_start() {
    let mut session = Session::new(PathKind::Udp, Activity::Foreground);
    let unknown = session.heartbeat.schedule();
    session.heartbeat.begin_with_rtt(RTT);
    let Schedule { interval, timeout } = session.heartbeat.schedule();
    assert!(interval + timeout < unknown.interval + unknown.timeout);
    assert!(interval + timeout <= seconds(12), "{interval:?} + {timeout:?}");
    // A session that is idle is noticed sooner, and not pinged more often.
    let mut idle = Session::new(PathKind::Udp, Activity::Idle);
    let unknown = idle.heartbeat.schedule();
    idle.heartbeat.begin_with_rtt(RTT);
    assert!(idle.interval() >= unknown.interval && idle.heartbeat.schedule().timeout < unknown.timeout);
}

#[test]
fn a_session_that_nobody_looks_at_is_not_pinged_early() {
    for activity in [Activity::Idle, Activity::Background, Activity::Saver] {
        let mut session = Session::new(PathKind::Tcp, activity);
        let (start, told) = (session.now, session.interval());
        session.next_ping();
        assert_eq!(session.now - start, told, "{activity:?}");
    }
}

#[test]
fn coming_to_the_foreground_takes_effect_at_once_and_leaving_it_with_the_next_ping() {
    let mut session = Session::new(PathKind::Udp, Activity::Background);
    session.beats(30);
    session.now += seconds(15);
    assert!(matches!(session.heartbeat.poll(session.now), Action::Wait(_)));
    session.heartbeat.set_activity(Activity::Foreground, session.now);
    assert!(matches!(session.heartbeat.poll(session.now), Action::Ping { .. }));
    session.beats(1);
    let told = session.interval();
    session.heartbeat.set_activity(Activity::Background, session.now);
    assert_eq!(session.heartbeat.poll(session.now), Action::Wait(session.now + told));
}

#[test]
fn a_steady_background_session_is_pinged_more_rarely_than_a_lossy_one() {
    let mut steady = Session::new(PathKind::Udp, Activity::Background);
    steady.beats(40);
    assert_eq!(steady.interval(), seconds(40));
    let mut lossy = Session::new(PathKind::Udp, Activity::Background);
    for _ in 0..10 {
        lossy.beats(3);
        lossy.next_ping();
        lossy.beats(1);
    }
    assert_eq!(lossy.interval(), seconds(28));
    assert!(lossy.heartbeat.schedule().timeout > steady.heartbeat.schedule().timeout);
}

#[test]
fn only_a_saver_grows_up_to_the_maximum() {
    for path in [PathKind::Udp, PathKind::Tcp] {
        let longest =
            [Activity::Foreground, Activity::Idle, Activity::Background, Activity::Saver].map(|activity| {
                let mut session = Session::new(path, activity);
                session.beats(100);
                session.interval()
            });
        assert!(longest[..3].iter().all(|&interval| interval <= seconds(40)), "{path:?}: {longest:?}");
        assert_eq!(longest[3], seconds(300), "{path:?}");
    }
}

#[test]
fn a_new_path_is_learned_from_the_start_again() {
    let mut session = Session::new(PathKind::Udp, Activity::Saver);
    session.beats(100);
    session.heartbeat.path_changed(session.now);
    assert_eq!(session.heartbeat.poll(session.now), Action::Wait(session.now + seconds(25)));
    assert_eq!(session.heartbeat.rtt().srtt(), None);
}

#[test]
fn a_new_address_after_lost_pings_is_an_expired_binding_and_not_a_new_path() {
    let mut session = Session::new(PathKind::Udp, Activity::Saver);
    session.beats(30);
    let survived = session.interval();
    while session.interval() == survived {
        session.beats(1);
    }
    session.next_ping();
    for _ in 0..4 {
        session.next_ping();
    }
    session.heartbeat.path_changed(session.now);
    let seq = session.next_ping();
    session.heartbeat.pong(seq, session.now);
    session.beats(50);
    assert_eq!(session.interval(), survived);
}

#[test]
fn what_a_cut_connection_learned_serves_the_next_one() {
    let mut cut = Session::new(PathKind::Tcp, Activity::Saver);
    cut.beats(4);
    assert_eq!(cut.interval(), seconds(85), "after three times 55 s");
    cut.next_ping();
    assert_eq!(cut.next(), Action::Dead);
    let mut next = Session::new(PathKind::Tcp, Activity::Saver);
    next.now = cut.now;
    next.heartbeat = Heartbeat::new(&HeartbeatConfig::default(), PathKind::Tcp, Activity::Saver, next.now);
    next.heartbeat.remember(cut.heartbeat.memory(cut.now));
    next.beats(100);
    assert_eq!(next.interval(), seconds(55));
}

/// A session behind a proxy that closes what was silent for so long, and its client, which comes back each time. How
/// often it is cut in a day.
fn cuts_in_a_day_behind(proxy_timeout: Duration, activity: Activity) -> u32 {
    let mut session = Session::new(PathKind::Tcp, activity);
    let (end, mut cuts, mut quiet_since) = (session.now + seconds(24 * 3_600), 0, session.now);
    while session.now < end {
        let next = match session.heartbeat.poll(session.now) {
            Action::Wait(until) => until,
            Action::Ping { seq } => {
                session.now += RTT;
                session.heartbeat.pong(seq, session.now);
                quiet_since = session.now;
                continue;
            }
            Action::Dead => panic!("the peer answers"),
        };
        session.now = next.min(quiet_since + proxy_timeout);
        if session.now < next {
            cuts += 1;
            let memory = session.heartbeat.memory_of_cut(session.now);
            let (config, now) = (HeartbeatConfig::default(), session.now);
            session.heartbeat = Heartbeat::new(&config, PathKind::Tcp, activity, now);
            session.heartbeat.remember(memory);
            quiet_since = now;
        }
    }
    cuts
}

#[test]
fn a_saver_behind_a_proxy_is_cut_a_few_times_a_day_and_not_once_a_minute() {
    // HAProxy's and nginx's usual time-outs, and those of balancers in the clouds.
    for proxy_seconds in [20, 30, 50, 60, 75, 100, 180, 240, 350] {
        let cuts = cuts_in_a_day_behind(seconds(proxy_seconds), Activity::Saver);
        assert!(cuts <= 4, "{cuts} cuts behind {proxy_seconds} s");
    }
    for activity in [Activity::Foreground, Activity::Idle, Activity::Background] {
        assert_eq!(cuts_in_a_day_behind(seconds(30), activity), 0, "{activity:?}");
    }
}

#[test]
fn one_cut_by_chance_lowers_no_trusted_pause() {
    let mut session = Session::new(PathKind::Tcp, Activity::Saver);
    session.beats(2);
    session.now += seconds(40);
    session.heartbeat.remember(session.heartbeat.memory_of_cut(session.now));
    assert_eq!(session.interval(), seconds(55));
    session.beats(10);
    assert!(session.interval() > seconds(55));
}

#[test]
fn a_reset_in_answer_to_a_ping_is_the_end_of_the_pause_before_it() {
    let mut session = Session::new(PathKind::Tcp, Activity::Saver);
    session.beats(4);
    session.next_ping();
    session.heartbeat.remember(session.heartbeat.memory_of_cut(session.now + RTT));
    assert_eq!(session.interval(), seconds(55), "85 s were on trial");
}

#[test]
fn a_cut_in_the_midst_of_traffic_teaches_nothing() {
    let mut session = Session::new(PathKind::Tcp, Activity::Saver);
    session.beats(2);
    for _ in 0..4 {
        session.now += seconds(16);
        session.heartbeat.received(session.now);
        session.heartbeat.sent(session.now);
        session.heartbeat.remember(session.heartbeat.memory_of_cut(session.now));
    }
    assert_eq!(session.interval(), seconds(55));
}

#[test]
fn a_peer_that_gives_up_early_is_pinged_before_and_never_more_often_than_allowed() {
    let interval = |timeout| {
        let mut session = Session::new(PathKind::Udp, Activity::Saver);
        session.heartbeat.respect_idle_timeout(timeout);
        session.beats(100);
        session.interval()
    };
    assert_eq!(interval(seconds(20)), seconds(15));
    assert_eq!(interval(seconds(120)), seconds(90));
    assert_eq!(interval(Duration::from_millis(3)), HeartbeatConfig::default().min);
    assert_eq!(interval(Duration::MAX), HeartbeatConfig::default().max);
}

#[test]
fn pauses_that_traffic_of_one_side_interrupts_teach_no_longer_ones() {
    let mut session = Session::new(PathKind::Tcp, Activity::Saver);
    for _ in 0..200 {
        session.now += seconds(10);
        session.heartbeat.sent(session.now);
        if let Action::Ping { seq } = session.heartbeat.poll(session.now) {
            session.now += RTT;
            session.heartbeat.pong(seq, session.now);
        }
    }
    assert_eq!(session.interval(), seconds(55));
}
