//! No order of calls breaks the bounds.

use proptest::prelude::*;
use skywave_protocol::heartbeat::{
    Action, Activity, Heartbeat, HeartbeatConfig, MAX_TIMEOUT, PathKind, Schedule,
};
use std::time::{Duration, Instant};

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
