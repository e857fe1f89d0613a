//! Leaving a connection: lost, drained, replaced by a better one, or doubted.

use crate::{
    ConnectError, Output, Reader, Session, Status, Time, TransportKind,
    backoff::not_before,
    carrier::{Carrier, Ending},
    opening::{Opening, Purpose, Stage},
    session::Move,
    url::NodeUrl,
};
use skywave_protocol::{CloseCode, frame::Drain};
use std::time::Duration;

/// How long an old connection may still give replies after a move.
const RETIREMENT: Duration = Duration::from_secs(2);
/// The longest time within which a node's clients spread that it wants gone.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);

impl<R: Reader> Session<R> {
    /// The live connection is over.
    pub(crate) fn lost(&mut self, ending: Ending, now: Time) {
        let Some(live) = self.live.take() else { return };
        let Ending { code, reconnect, retry_after, .. } = ending;
        let reason = ending.told();
        tracing::debug!(?code, %reason, "connection lost");
        self.put_out(Output::Carry(None));
        self.put_out(Output::Close { connection: live.id() });
        self.traffic.lost(live.id(), now);
        self.tokens.stop();
        if let Some(Move { url: Some(url), .. }) = self.next_move.take() {
            self.route.send_on(&url);
        }
        self.credit(live.is_steady(now));
        self.is_told_when = false;
        // By a newer `connect` of this client itself, which is answered later, or was given up and came all the same.
        let own_doing = code == Some(CloseCode::Replaced.code()) && live.attempt < self.last_attempt;
        let token_is_final =
            code == Some(CloseCode::TokenExpired.code()) && !self.has_other_token(self.taken.as_ref());
        if (!reconnect && !own_doing) || token_is_final {
            return self.end(code, reason);
        }
        self.put_out(Output::Status(Status::Disconnected { code, reason, will_reconnect: true }));
        if self.opening.is_some() {
            return;
        }
        self.route.begin_round();
        let is_first = self.failures == 0;
        let pace = self.back_off();
        // These say that nothing is wrong: come back at once.
        let at_once = [CloseCode::Rotate, CloseCode::TokenExpired].map(|code| Some(code.code()));
        match retry_after.map(|after| not_before(after, (self.traffic.chance)())) {
            Some(wait) => {
                self.is_told_when = true;
                self.reconnect_at = Some(now + wait.max(pace));
            }
            None if at_once.contains(&code) && is_first => {
                self.open(Purpose::Connect, None, None, now);
            }
            None => self.reconnect_at = Some(now + pace),
        }
    }

    /// What failed before is made good by a connection that was steady: the next failure begins with the shortest wait.
    pub(crate) fn credit(&mut self, steady: bool) {
        if steady {
            self.failures = 0;
        }
    }

    /// The wait after one more failure, with its jitter.
    pub(crate) fn back_off(&mut self) -> Duration {
        let random = (self.traffic.chance)();
        let wait = self.options.traffic.backoff.full_jitter(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Keeps the old connection for replies that only it can give.
    pub(crate) fn begin_retirement(&mut self, old: Carrier, now: Time) {
        self.retire(now);
        if self.traffic.needs(old.id()) {
            self.retiring = Some((old, now + RETIREMENT));
        } else {
            self.leave_behind(&old, now);
        }
    }

    pub(crate) fn retire(&mut self, now: Time) {
        if let Some((old, _)) = self.retiring.take() {
            self.leave_behind(&old, now);
        }
    }

    /// Closes a connection that the session has left.
    fn leave_behind(&mut self, old: &Carrier, now: Time) {
        self.traffic.lost(old.id(), now);
        self.put_out(Output::Close { connection: old.id() });
    }

    /// The node wants this client gone; all its clients spread over the first half of the time.
    pub(crate) fn drain(&mut self, drain: Drain, now: Time) {
        let wait = Duration::from_millis(drain.after_ms).div_f64(2.0).mul_f64((self.traffic.chance)());
        let Some(live) = self.live.as_mut() else { return };
        // A node that repeats itself does not make it a better connection.
        let is_credit = !std::mem::replace(&mut live.is_drained, true) && live.is_steady(now);
        let mut at = (now + wait.min(LONGEST_DRAIN)).max(live.stays_until);
        self.credit(is_credit);
        let mut url = drain.url.and_then(|url| self.trusted(&url));
        if let Some(before) = self.next_move.take() {
            // Told again: the newest word says where to, the earliest one when.
            at = at.min(before.at);
            url = url.or(before.url);
        }
        self.next_move = Some(Move { at, url, purpose: Purpose::Drain });
    }

    /// The node knows of a better one for this user.
    pub(crate) fn consider(&mut self, url: Option<&str>, now: Time) {
        let Some(url) = url.and_then(|url| self.trusted(url)) else { return };
        // A node that drains has said so while the session was about to go somewhere else.
        let stays = self.next_move.is_none();
        let Some(live) = self.live.as_ref().filter(|live| stays && live.url != url) else { return };
        let at = live.stays_until;
        if self.route.may_prefer(now) {
            self.next_move = Some(Move { at, url: Some(url), purpose: Purpose::Prefer });
        }
    }

    /// Moves the session to another transport; [`Output::Switched`] tells what came of it.
    ///
    /// # Errors
    /// `Busy` when there is no session or another connection is being opened already.
    pub fn switch(&mut self, kind: TransportKind, now: Time) -> Result<(), ConnectError> {
        let live = self.live.as_ref().filter(|_| self.opening.is_none()).ok_or(ConnectError::Busy)?;
        let url = live.url.clone();
        self.open(Purpose::Switch, Some(url), Some(kind), now);
        Ok(())
    }

    // ---- in doubt

    /// The node owes a reply and says nothing, though it was asked for a sign of life. A path that drops all packets, and a
    /// port that is closed without a word, look the same.
    pub(crate) fn doubt(&mut self, now: Time) {
        self.route.begin_round();
        // A node that drains has said where to go, if later.
        let named = self.next_move.as_ref().and_then(|next| next.url.clone());
        self.seek_another(named, now);
    }

    /// Opens another connection beside the one that is doubted, where there is a node that may be asked in this round; with
    /// `named` first. A move that is due later stays so, unless another node is reached.
    pub(crate) fn seek_another(&mut self, named: Option<NodeUrl>, now: Time) {
        if self.traffic.is_doubted() && self.opening.is_none() && !self.route.is_exhausted(now) {
            self.open(Purpose::Connect, named, None, now);
        }
    }

    /// The node lives: what a doubt has begun beside its connection, and has not been told of to another one, is given up.
    pub(crate) fn trust(&mut self) {
        if self.live.is_none() {
            return;
        }
        let is_doubt = |opening: &mut Opening| {
            opening.purpose == Purpose::Connect && matches!(opening.stage, Stage::Dialing)
        };
        if let Some(Opening { connection, .. }) = self.opening.take_if(is_doubt) {
            self.put_out(Output::Close { connection });
            self.attempts = 0;
        }
    }
}
