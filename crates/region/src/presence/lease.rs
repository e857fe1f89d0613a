//! For how long the members of a node that is gone are held.

use skywave_protocol::heartbeat::HeartbeatConfig;
use std::{ops::RangeInclusive, time::Duration};

/// The bounds of a node's lease.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(30);
/// Three things: what may have passed of the lease when a node falls silent (2 s); how much longer a client waits while
/// it knows little of its path; and how long it takes to get to another node.
const MOVING: Duration = Duration::from_secs(8);

/// For how long the members of a node that does not renew are held: 10 to 30 s. That is longer than a client in the
/// foreground takes to notice (1.1 × `foreground_max`) and to move, so that its move is not told.
pub fn lease(heartbeat: &HeartbeatConfig) -> Duration {
    (heartbeat.foreground_max.mul_f64(1.2) + MOVING).clamp(*LEASE.start(), *LEASE.end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::heartbeat::{Action, Activity, Heartbeat, PathKind};

    /// The longest for which a client may take a silent connection for a live one, after the first two pings.
    fn longest_silence(config: &HeartbeatConfig, path: PathKind) -> Duration {
        let mut now = std::time::Instant::now();
        let mut heartbeat = Heartbeat::new(config, path, Activity::Foreground, now);
        let mut pings = 0;
        while pings < 2 {
            match heartbeat.poll(now) {
                Action::Wait(at) => now = at,
                Action::Ping { seq } => {
                    pings += 1;
                    now += Duration::from_millis(20);
                    heartbeat.pong(seq, now);
                }
                Action::Dead => panic!("it answers"),
            }
        }
        heartbeat.schedule().interval + heartbeat.schedule().timeout
    }

    #[test]
    fn a_client_in_the_foreground_has_time_to_move_before_the_lease_ends() {
        for seconds in [5, 10, 15] {
            let heartbeat = HeartbeatConfig {
                foreground_max: Duration::from_secs(seconds),
                ..HeartbeatConfig::default()
            };
            for path in [PathKind::Udp, PathKind::Tcp] {
                let time_to_move = lease(&heartbeat).saturating_sub(longest_silence(&heartbeat, path));
                assert!(time_to_move >= Duration::from_secs(4), "{path:?}, {seconds} s: {time_to_move:?}");
            }
        }
    }

    #[test]
    fn no_member_of_a_node_that_is_gone_is_held_for_longer_than_half_a_minute() {
        let lease_of = |seconds| {
            lease(&HeartbeatConfig {
                foreground_max: Duration::from_secs(seconds),
                ..HeartbeatConfig::default()
            })
            .as_secs()
        };
        assert_eq!([1, 10, 300].map(lease_of), [10, 20, 30]);
    }
}
