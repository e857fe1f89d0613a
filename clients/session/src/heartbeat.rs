//! Whether a connection lives: when something was heard last, and until when something has to be.

use crate::Time;
use skywave_protocol::frame;
use std::time::Duration;

/// Who looks so late was held up, and has not read yet what came meanwhile: it may come for so long again.
const LATE: Duration = Duration::from_millis(50);
/// The least time without a word after which a connection counts as dead, whatever the node says.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// The longest, in case a node says something absurd.
const MOST_PATIENCE: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
pub(crate) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    /// When something came last, or would have.
    heard_at: Time,
    /// Something has to be heard by then: it is being checked.
    checked_by: Option<Time>,
    /// Until when it still may be heard, for one who looked late.
    last_chance: Option<Time>,
    /// The sequence number of the last ping, and whether a sign of life was sent with it since something was heard.
    ping: Option<u32>,
    is_nudged: bool,
}

impl Heartbeat {
    pub(crate) fn new(times: frame::Heartbeat, now: Time) -> Self {
        let mut heartbeat = Self {
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            heard_at: now,
            checked_by: None,
            last_chance: None,
            ping: None,
            is_nudged: false,
        };
        heartbeat.beats(times);
        heartbeat
    }

    fn beats(&mut self, times: frame::Heartbeat) {
        self.interval = Duration::from_millis(times.interval_ms).min(MOST_PATIENCE);
        self.timeout = Duration::from_millis(times.timeout_ms).min(MOST_PATIENCE);
    }

    /// A ping brings new times.
    pub(crate) fn pinged(&mut self, ping: &frame::Ping) {
        self.beats(frame::Heartbeat { interval_ms: ping.interval_ms, timeout_ms: ping.timeout_ms });
        self.ping = Some(ping.seq);
    }

    pub(crate) fn heard(&mut self, now: Time) {
        self.heard_at = now;
        self.checked_by = None;
        self.last_chance = None;
        self.is_nudged = false;
    }

    pub(crate) fn heard_at(&self) -> Time {
        self.heard_at
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    fn patience(&self) -> Duration {
        (self.interval + self.timeout).max(LEAST_PATIENCE)
    }

    /// The machine slept: what the node sent meanwhile may still come.
    pub(crate) fn spare(&mut self, now: Time) {
        self.heard_at = self.heard_at.max(now + self.timeout - self.patience());
    }

    /// When the node's next word is due, whatever else is; never where it has no time-out for that.
    pub(crate) fn beat_due(&self) -> Option<Time> {
        (!self.timeout.is_zero()).then(|| self.heard_at + self.interval)
    }

    /// Unless something comes within so long, the connection is dead. Answers whether something has to be asked for.
    pub(crate) fn check(&mut self, within: Duration, now: Time) -> bool {
        let by = now + within;
        self.checked_by.replace(self.checked_by.map_or(by, |before| before.min(by))).is_none()
    }

    /// When the connection counts as dead unless something comes.
    pub(crate) fn dead_at(&self) -> Time {
        let silent = self.heard_at + self.patience();
        self.last_chance.unwrap_or(self.checked_by.map_or(silent, |by| by.min(silent)))
    }

    /// Whether it is dead by now.
    pub(crate) fn is_dead(&mut self, now: Time) -> bool {
        if now.since(self.dead_at()) > LATE {
            self.last_chance.get_or_insert(now + LATE);
        }
        now >= self.dead_at()
    }

    /// When to send a `pong` that nobody asked for: half of the time-out before the connection counts as dead. A NAT
    /// that forgot this UDP path learns it again, and the node's next probe comes through.
    pub(crate) fn nudge_at(&self) -> Option<Time> {
        self.ping.filter(|_| !self.is_nudged).map(|_| self.heard_at + self.interval + self.timeout / 2)
    }

    /// The sequence number to nudge the path with, if that is due.
    pub(crate) fn nudge(&mut self, now: Time) -> Option<u32> {
        let due = self.nudge_at().is_some_and(|at| at <= now);
        self.is_nudged |= due;
        self.ping.filter(|_| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: frame::Heartbeat = frame::Heartbeat { interval_ms: 10_000, timeout_ms: 4_000 };

    fn at(ms: u64) -> Time {
        Time::from_begin(Duration::from_millis(1_000_000 + ms))
    }

    #[test]
    fn who_looks_late_gives_what_came_meanwhile_time_to_be_read() {
        let mut heartbeat = Heartbeat::new(TIMES, at(0));
        assert!(!heartbeat.is_dead(at(13_999)));
        assert!(!heartbeat.is_dead(at(20_000)));
        assert_eq!(heartbeat.dead_at(), at(20_050));
        assert!(heartbeat.is_dead(at(20_050)));
        heartbeat.heard(at(20_050));
        assert_eq!(heartbeat.dead_at(), at(34_050));
    }

    #[test]
    fn a_path_is_nudged_once_in_a_silence_with_the_last_ping() {
        let mut heartbeat = Heartbeat::new(TIMES, at(0));
        assert_eq!(heartbeat.nudge_at(), None);
        heartbeat.pinged(&frame::Ping { seq: 7, interval_ms: 10_000, timeout_ms: 4_000 });
        assert_eq!(heartbeat.nudge(at(11_999)), None);
        assert_eq!(heartbeat.nudge(at(12_000)), Some(7));
        assert_eq!(heartbeat.nudge(at(13_000)), None);
        heartbeat.heard(at(13_000));
        assert_eq!(heartbeat.nudge_at(), Some(at(25_000)));
    }
}
