//! A heartbeat and the time it lives in.

use skywave_protocol::heartbeat::{Action, Activity, Heartbeat, HeartbeatConfig, PathKind};
use std::time::{Duration, Instant};

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub const RTT: Duration = Duration::from_millis(40);

/// A heartbeat and the time it lives in.
pub struct Session {
    pub heartbeat: Heartbeat,
    pub now: Instant,
}

impl Session {
    pub fn new(path: PathKind, activity: Activity) -> Self {
        let now = Instant::now();
        Self { heartbeat: Heartbeat::new(&HeartbeatConfig::default(), path, activity, now), now }
    }

    /// Sleeps as told, until there is something else to do than to wait.
    pub fn next(&mut self) -> Action {
        loop {
            match self.heartbeat.poll(self.now) {
                Action::Wait(until) => self.now = until,
                action => return action,
            }
        }
    }

    pub fn next_ping(&mut self) -> u32 {
        match self.next() {
            Action::Ping { seq } => seq,
            action => panic!("{action:?} instead of a ping"),
        }
    }

    /// Beats that are answered at once.
    pub fn beats(&mut self, count: u32) {
        for _ in 0..count {
            let seq = self.next_ping();
            self.now += RTT;
            assert_eq!(self.heartbeat.pong(seq, self.now), Some(RTT));
        }
    }

    pub fn interval(&self) -> Duration {
        self.heartbeat.schedule().interval
    }
}
