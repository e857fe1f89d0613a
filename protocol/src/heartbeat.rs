//! RTT estimation and the adaptive heartbeat policy; time is an argument.
//!
//! [`Heartbeat`] is held by the side that pings, one per session. It never sleeps and never sends: the owner tells it
//! what happened and asks [`Heartbeat::poll`] what to do next. `docs/heartbeats.md` explains the policy and shows what
//! it costs and gives on simulated paths. [`LinkHeartbeat`] is the same for links between regions. There a machine
//! waits at either end, and only false alarms have to be avoided, not packets.

mod idle;
mod link;
mod loss;
mod phi;
mod policy;
mod rtt;

use std::time::{Duration, Instant};

pub use idle::IdleMemory;
pub use link::{Direction, LinkAction, LinkHeartbeat};
pub use phi::{PhiConfig, PhiDetector};
pub use policy::Heartbeat;
pub use rtt::RttEstimator;

/// The longest time-out that a [`Schedule`] ever carries.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(17);

/// The longest interval of a session that did not say whether anyone is looking. It stays under the 30 s after
/// which the shortest-lived NAT bindings in common use expire.
pub const IDLE_MAX: Duration = Duration::from_secs(28);

/// The longest interval of a background session on a steady UDP path.
pub const BACKGROUND_MAX: Duration = Duration::from_secs(40);

/// The longest time for which the death of an idle or background session may go unnoticed: its interval and
/// time-out add up to no more. A fixed heartbeat of 25 s with a time-out of 20 s needs up to 45 s.
pub const IDLE_PATIENCE: Duration = Duration::from_secs(44);

/// Bounds and starting points, the `[heartbeat]` table of the node's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// The shortest interval of any session. Wins over every other bound.
    pub min: Duration,
    /// The longest interval of any session; only [`Activity::Saver`] comes near it.
    pub max: Duration,
    /// The longest interval while someone looks at the app. Its death is noticed within 1.1 times this, where
    /// the path's round-trip time permits.
    pub foreground_max: Duration,
    /// How long a UDP path is trusted to survive without traffic before more is learned about it.
    pub udp_start: Duration,
    /// The same for TCP, whose NAT bindings and idle timers at balancers live longer.
    pub tcp_start: Duration,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(1),
            max: Duration::from_secs(300),
            foreground_max: Duration::from_secs(10),
            udp_start: Duration::from_secs(25),
            tcp_start: Duration::from_secs(55),
        }
    }
}

/// What carries the pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Datagrams: a ping may be lost, and a new one is not held up by it.
    Udp,
    /// A byte stream: nothing is lost while the connection lives, but a lost segment delays all that follows.
    Tcp,
}

/// How much a session is being looked at, which decides how fast its death must be noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Someone is looking: noticed within 1.1 × [`HeartbeatConfig::foreground_max`].
    Foreground,
    /// Nobody said: at most [`IDLE_MAX`] between pings.
    #[default]
    Idle,
    /// Nobody is looking: as idle, and up to [`BACKGROUND_MAX`] where a UDP path is steady.
    Background,
    /// In the background on a metered radio: as rarely as the path survives, up to [`HeartbeatConfig::max`].
    Saver,
}

impl Activity {
    /// From the hint of a `connect` or `network` frame. Unknown kinds are like none.
    #[must_use]
    pub fn from_hint(kind: Option<&str>, background: Option<bool>) -> Self {
        match (background, kind) {
            (None, _) => Self::Idle,
            (Some(false), _) => Self::Foreground,
            (Some(true), Some("cellular")) => Self::Saver,
            (Some(true), _) => Self::Background,
        }
    }
}

/// What the peer is told: it takes the connection for dead when nothing came for `interval + timeout`.
///
/// A peer on UDP that heard nothing for `interval + timeout / 2` should send something: a `pong` with the last sequence
/// number that it saw. That opens a NAT binding that expired, and the next probe comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The longest pause between two pings, as long as nothing is lost.
    pub interval: Duration,
    /// How long a missing beat is probed for after that, at most [`MAX_TIMEOUT`].
    pub timeout: Duration,
}

/// What the owner of a [`Heartbeat`] has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing before this time, unless something is received or changed.
    Wait(Instant),
    /// Send a ping with this sequence number and [`Heartbeat::schedule`], then poll again.
    Ping {
        /// Grows by one with each ping.
        seq: u32,
    },
    /// The peer is gone: every probe of its last chance went unanswered.
    Dead,
}

/// Whole milliseconds, saturating at 49 days: heartbeats are kept small, there are many of them.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// `instant + millis`, or `instant` itself where the platform's clock cannot express the sum.
fn after(instant: Instant, millis: u32) -> Instant {
    instant.checked_add(Duration::from_millis(u64::from(millis))).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_decides_how_much_a_session_is_looked_at() {
        assert_eq!(Activity::from_hint(None, None), Activity::Idle);
        assert_eq!(Activity::from_hint(Some("cellular"), None), Activity::Idle);
        assert_eq!(Activity::from_hint(Some("cellular"), Some(false)), Activity::Foreground);
        assert_eq!(Activity::from_hint(Some("wifi"), Some(true)), Activity::Background);
        assert_eq!(Activity::from_hint(None, Some(true)), Activity::Background);
        assert_eq!(Activity::from_hint(Some("cellular"), Some(true)), Activity::Saver);
    }
}
