//! Whether the connection that carries the session still stands: it is asked for a sign of life where it owes an answer and
//! says nothing, and given up where none comes.

use crate::{Lane, Reader, Time, Traffic, Waiter};
use skywave_protocol::{
    Channel, ClientFrame,
    frame::{Ping, Pong, Unsubscribe},
};
use std::time::Duration;

/// The channel of a request that only asks whether the node is there: nobody has subscribed to it.
const NOBODYS_CHANNEL: &str = "skywave:nobody";
/// How quickly a node has to answer that, at least: four times what it usually takes, or this.
const LEAST_CHECK: Duration = Duration::from_secs(2);
/// The least time from one doubt that led to another connection to the next doubt: a node that has to serve too many may
/// fall silent again and again, and each connection costs it more than it has.
const DOUBTS_APART: Duration = Duration::from_secs(30);

/// What a look at the connection has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Nothing came in time: it is given up.
    Dead,
    /// It is silent: another connection is opened beside it, and whichever says something first is kept.
    Doubted,
}

impl<R: Reader> Traffic<R> {
    /// Something came on the connection that carries the session.
    pub fn heard(&mut self, now: Time) {
        if let Some(live) = &mut self.live {
            live.heartbeat.heard(now);
            live.seek_at = None;
            live.is_doubted = false;
        }
    }

    /// The node asks there for a sign of life, and says when to expect something.
    pub fn pinged(&mut self, ping: &Ping) {
        if let Some(live) = &mut self.live {
            live.heartbeat.pinged(ping);
            self.send_pong(ping.seq);
        }
    }

    /// Something may have happened to the connection: asks at once instead of waiting for its time-out.
    pub fn check(&mut self, now: Time) {
        self.check_within(LEAST_CHECK, now);
    }

    /// The machine slept: what the node sent meanwhile may still come, and the connection may be gone without a word.
    pub fn woke(&mut self, now: Time) {
        if let Some(live) = &mut self.live {
            live.heartbeat.spare(now);
        }
        self.check(now);
    }

    fn check_within(&mut self, least: Duration, now: Time) {
        let within = least.max(4 * self.round_trip().unwrap_or_default());
        let Some(live) = &mut self.live else { return };
        let at = now + live.heartbeat.doubted_after();
        live.seek_at = Some(live.seek_at.map_or(at, |before| before.min(at)));
        if live.heartbeat.check(within, now)
            && let Ok(channel) = Channel::new(NOBODYS_CHANNEL)
        {
            let make = |id| ClientFrame::Unsubscribe(Unsubscribe { id, channel });
            // It fits whatever the node takes.
            let _ = self.request(Waiter::Probe, make, now);
        }
    }

    /// Whether another connection was asked for because of the silence of this one.
    pub fn is_doubted(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.is_doubted)
    }

    /// Since when it owes an answer and says nothing.
    pub fn silent_since(&self) -> Option<Time> {
        let live = self.live.as_ref()?;
        Some(self.requests.waiting_since()?.max(live.heartbeat.heard_at()))
    }

    /// When it is doubted, unless it says something.
    fn doubt_at(&self) -> Option<Time> {
        let live = self.live.as_ref().filter(|live| live.seek_at.is_none() && !live.is_doubted)?;
        Some((self.silent_since()? + live.heartbeat.doubted_after()).max(self.doubts_from))
    }

    pub(crate) fn next_doubt(&self) -> Option<Time> {
        let live = self.live.as_ref()?;
        let nudge = live.heartbeat.nudge_at().filter(|_| live.link.over_udp);
        let ends = Some(live.heartbeat.dead_at());
        [ends, nudge, live.seek_at, self.doubt_at()].into_iter().flatten().min()
    }

    pub(crate) fn tick_life(&mut self, now: Time) -> Option<Finding> {
        let live = self.live.as_mut()?;
        if live.heartbeat.is_dead(now) {
            return Some(Finding::Dead);
        }
        if live.link.over_udp
            && let Some(seq) = live.heartbeat.nudge(now)
        {
            self.send_pong(seq);
        }
        if self.doubt_at().is_some_and(|at| at <= now) {
            self.ask_whether_it_lives(now);
        }
        let live = self.live.as_mut()?;
        live.seek_at.take_if(|at| *at <= now)?;
        live.is_doubted = true;
        self.doubts_from = now + DOUBTS_APART;
        Some(Finding::Doubted)
    }

    /// It has its time-out for that: what it was asked for comes as soon as the answer to a ping.
    fn ask_whether_it_lives(&mut self, now: Time) {
        let Some(live) = &self.live else { return };
        let least = live.heartbeat.timeout().max(2 * live.heartbeat.doubted_after());
        self.check_within(least, now);
    }

    fn send_pong(&mut self, seq: u32) {
        // It fits whatever the node takes.
        let _ = self.say(&ClientFrame::Pong(Pong { seq }), Lane::Datagram);
    }
}
