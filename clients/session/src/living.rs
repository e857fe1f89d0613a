//! Whether the connection that carries the session still stands. Where it is silent though something is due, the node is
//! asked for a sign of life; where none comes, another connection is opened beside it; and at last it is given up.

use crate::{Lane, Reader, Time, Traffic, Waiter};
use skywave_protocol::{
    Channel, ClientFrame,
    frame::{Ping, Pong, Unsubscribe},
};
use std::time::Duration;

/// The channel of a request that only asks whether the node is there: nobody has subscribed to it.
const NOBODYS_CHANNEL: &str = "skywave:nobody";
/// How quickly a node has to answer that, at least, where something may have happened: four times what it usually takes,
/// or this.
const LEAST_CHECK: Duration = Duration::from_secs(2);
/// A silence is suspicious when it has lasted for so long at least, and for three times what a reply is late after.
const LEAST_SILENCE: Duration = Duration::from_millis(1_500);
const LATE_REPLIES: u32 = 3;
/// By how much of its second half, after the node was asked, clients differ, so that not all of them come at once.
const SPREAD: f64 = 0.4;
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
    pub(crate) fn heard(&mut self, now: Time) {
        if let Some(live) = &mut self.live {
            live.heartbeat.heard(now);
            live.seek_at = None;
            live.is_doubted = false;
        }
    }

    /// The node asks there for a sign of life, and says when to expect something.
    pub(crate) fn pinged(&mut self, ping: &Ping) {
        if let Some(live) = &mut self.live {
            live.heartbeat.pinged(ping);
            self.send_pong(ping.seq);
        }
    }

    /// Something may have happened to the connection: asks at once instead of waiting for its time-out.
    pub(crate) fn check(&mut self, now: Time) {
        self.check_within(Duration::ZERO, now);
    }

    /// The machine slept: what the node sent meanwhile may still come, and the connection may be gone without a word.
    pub(crate) fn woke(&mut self, now: Time) {
        if let Some(live) = &mut self.live {
            live.heartbeat.spare(now);
        }
        self.check(now);
    }

    /// Somebody has too much to do: then a node may be silent, and a handshake is what it can least afford.
    pub(crate) fn spare(&mut self) {
        if let Some(live) = &mut self.live {
            live.is_spared = true;
            live.is_doubted = false;
        }
    }

    fn check_within(&mut self, least: Duration, now: Time) {
        // Another connection is to be there before this one is given up.
        let least = least.max(LEAST_CHECK).max(2 * self.asked_after());
        let within = least.max(4 * self.round_trip().unwrap_or_default());
        let at = now + self.asked_after().mul_f64(1.0 + SPREAD * (self.chance)());
        let Some(live) = &mut self.live else { return };
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
    pub(crate) fn is_doubted(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.is_doubted)
    }

    /// Since when it owes an answer and says nothing.
    pub(crate) fn silent_since(&self) -> Option<Time> {
        let live = self.live.as_ref()?;
        Some(self.requests.waiting_since()?.max(live.heartbeat.heard_at()))
    }

    /// When it is asked after it began to be silent; after as long again at least, another connection is opened.
    fn asked_after(&self) -> Duration {
        LEAST_SILENCE.max(self.requests.trips.rto() * LATE_REPLIES) / 2
    }

    /// When it is asked for a sign of life, unless it says something: it owes an answer, or its beat is due.
    fn ask_at(&self) -> Option<Time> {
        let live = self
            .live
            .as_ref()
            .filter(|live| live.seek_at.is_none() && !live.is_doubted && !live.is_spared)?;
        let beat_due = live.heartbeat.beat_due()?;
        let silent_since = self.silent_since().map_or(beat_due, |since| since.min(beat_due));
        Some((silent_since + self.asked_after()).max(self.doubts_from))
    }

    pub(crate) fn next_doubt(&self) -> Option<Time> {
        let live = self.live.as_ref()?;
        let nudge = live.heartbeat.nudge_at().filter(|_| live.connection.over_udp);
        let ends = Some(live.heartbeat.dead_at());
        [ends, nudge, live.seek_at, self.ask_at()].into_iter().flatten().min()
    }

    pub(crate) fn tick_life(&mut self, now: Time) -> Option<Finding> {
        let live = self.live.as_mut()?;
        if live.heartbeat.is_dead(now) {
            return Some(Finding::Dead);
        }
        if live.connection.over_udp
            && let Some(seq) = live.heartbeat.nudge(now)
        {
            self.send_pong(seq);
        }
        if self.ask_at().is_some_and(|at| at <= now) {
            self.ask_whether_it_lives(now);
        }
        let live = self.live.as_mut()?;
        live.seek_at.take_if(|at| *at <= now)?;
        live.is_doubted = true;
        self.doubts_from = now + DOUBTS_APART;
        Some(Finding::Doubted)
    }

    /// Once: a transport repeats by itself what is lost, as often as the path asks for. It has its time-out for the answer,
    /// which comes as soon as that to a ping.
    fn ask_whether_it_lives(&mut self, now: Time) {
        if let Some(timeout) = self.live.as_ref().map(|live| live.heartbeat.timeout()) {
            self.check_within(timeout, now);
        }
    }

    fn send_pong(&mut self, seq: u32) {
        // It fits whatever the node takes.
        let _ = self.say(&ClientFrame::Pong(Pong { seq }), Lane::Datagram);
    }
}
