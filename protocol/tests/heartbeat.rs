//! What the owner of a heartbeat can rely on.
use proptest::prelude::*;
use skywave_protocol::heartbeat::{
    Action, Activity, Heartbeat, HeartbeatConfig, MAX_TIMEOUT, PathKind, Schedule,
};
use std::time::{Duration, Instant};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const RTT: Duration = Duration::from_millis(40);

/// A heartbeat and the time it lives in.
struct Session {
    heartbeat: Heartbeat,
    now: Instant,
}

impl Session {
    fn new(path: PathKind, activity: Activity) -> Self {
        let now = Instant::now();
        Self { heartbeat: Heartbeat::new(&HeartbeatConfig::default(), path, activity, now), now }
    }

    /// Sleeps as told, until there is something else to do than to wait.
    fn next(&mut self) -> Action {
        loop {
            match self.heartbeat.poll(self.now) {
                Action::Wait(until) => self.now = until,
                action => return action,
            }
        }
    }

    fn next_ping(&mut self) -> u32 {
        match self.next() {
            Action::Ping { seq } => seq,
            action => panic!("{action:?} instead of a ping"),
        }
    }

    /// Beats that are answered at once.
    fn beats(&mut self, count: u32) {
        for _ in 0..count {
            let seq = self.next_ping();
            self.now += RTT;
            assert_eq!(self.heartbeat.pong(seq, self.now), Some(RTT));
        }
    }

    fn interval(&self) -> Duration {
        self.heartbeat.schedule().interval
    }
}

#[test]
fn it_is_small() {
    assert!(size_of::<Heartbeat>() <= 200, "{} bytes", size_of::<Heartbeat>());
}

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

/// How often a session with traffic in both directions is pinged within two minutes; each answer takes what `rtt` says for
/// its number.
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

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0_u64..400_000).prop_map(Duration::from_millis),
        (0_u64..100_000_000).prop_map(Duration::from_secs),
        Just(Duration::ZERO),
        Just(Duration::MAX),
    ]
}

fn any_config() -> impl Strategy<Value = HeartbeatConfig> {
    let any = any_duration;
    prop_oneof![
        Just(HeartbeatConfig::default()),
        (any(), any(), any(), any(), any()).prop_map(|(min, max, foreground_max, udp_start, tcp_start)| {
            HeartbeatConfig { min, max, foreground_max, udp_start, tcp_start }
        }),
    ]
}

fn any_activity() -> impl Strategy<Value = Activity> {
    prop::sample::select(vec![Activity::Foreground, Activity::Idle, Activity::Background, Activity::Saver])
}

#[derive(Clone, Debug)]
enum Call {
    Forward(Duration),
    Backward(Duration),
    Received,
    Sent,
    Taken,
    RttSample(Duration),
    PongBack(u32),
    Pong(u32),
    Activity(Activity),
    PathChanged,
    Remember,
    Cut,
    PollWhenDue,
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => any_duration().prop_map(Call::Forward),
        1 => any_duration().prop_map(Call::Backward),
        1 => Just(Call::Received),
        1 => Just(Call::Sent),
        1 => Just(Call::Taken),
        1 => any_duration().prop_map(Call::RttSample),
        4 => (0_u32..20).prop_map(Call::PongBack),
        1 => any::<u32>().prop_map(Call::Pong),
        1 => any_activity().prop_map(Call::Activity),
        1 => Just(Call::PathChanged),
        1 => Just(Call::Remember),
        1 => Just(Call::Cut),
        8 => Just(Call::PollWhenDue),
    ]
}

proptest! {
    #[test]
    fn no_order_of_calls_breaks_the_bounds(
        config in any_config(),
        udp in any::<bool>(),
        activity in any_activity(),
        calls in prop::collection::vec(any_call(), 0..200),
    ) {
        let path = if udp { PathKind::Udp } else { PathKind::Tcp };
        let mut now = Instant::now();
        let mut heartbeat = Heartbeat::new(&config, path, activity, now);
        let (mut last_seq, mut pings_since_heard) = (0_u32, 0_u32);
        let shortest = config.min.max(Duration::from_millis(1)).min(Duration::from_millis(u64::from(u32::MAX)));
        let longest = config.max.max(shortest);
        for call in calls {
            match call {
                Call::Forward(by) => now = now.checked_add(by).unwrap_or(now),
                Call::Backward(by) => now = now.checked_sub(by).unwrap_or(now),
                Call::Received => { heartbeat.received(now); pings_since_heard = 0; }
                Call::Sent => heartbeat.sent(now),
                Call::Taken => heartbeat.taken(now),
                Call::RttSample(rtt) => heartbeat.rtt_sample(rtt),
                Call::PongBack(back) => { heartbeat.pong(last_seq.saturating_sub(back), now); pings_since_heard = 0; }
                Call::Pong(seq) => { heartbeat.pong(seq, now); pings_since_heard = 0; }
                Call::Activity(activity) => heartbeat.set_activity(activity, now),
                Call::PathChanged => heartbeat.path_changed(now),
                Call::Remember => heartbeat.remember(heartbeat.memory(now)),
                Call::Cut => heartbeat.remember(heartbeat.memory_of_cut(now)),
                Call::PollWhenDue => if let Action::Wait(until) = heartbeat.poll(now) {
                    prop_assert!(until > now);
                    now = until;
                }
            }
            match heartbeat.poll(now) {
                Action::Ping { seq } => {
                    prop_assert!(seq > last_seq);
                    last_seq = seq;
                    pings_since_heard += 1;
                }
                Action::Dead => prop_assert!(pings_since_heard > 0, "dead without a probe"),
                Action::Wait(until) => prop_assert!(until > now && until - now <= longest.max(MAX_TIMEOUT)),
            }
            let Schedule { interval, timeout } = heartbeat.schedule();
            prop_assert!(shortest <= interval && interval <= longest, "{interval:?}");
            prop_assert!(Duration::ZERO < timeout && timeout <= MAX_TIMEOUT, "{timeout:?}");
        }
    }
}
