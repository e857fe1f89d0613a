//! Leaving a connection: lost, drained, replaced by a better one.

use super::{End, Move, Outcome, Session, connection::Live, opening::Purpose};
use crate::{
    error::ConnectError,
    status::Status,
    transport::{Closed, TransportKind},
    url::NodeUrl,
};
use skywave_client_session::backoff::not_before;
use skywave_protocol::{
    CloseCode,
    frame::{Disconnect, Drain},
};
use std::{borrow::Cow, ops::ControlFlow, time::Duration};
use tokio::time::Instant;

/// How long an old connection may still give replies after a move.
const RETIREMENT: Duration = Duration::from_secs(2);

impl Session {
    /// The live connection is over.
    pub(super) fn lost(&mut self, closed: Closed) -> ControlFlow<End> {
        let Some(live) = self.live.take() else { return ControlFlow::Continue(()) };
        let (code, reason, reconnect) = match &live.disconnect {
            Some(last) => (Some(last.code), told(last), last.reconnect),
            None => (closed.code, Cow::Owned(closed.reason.clone()), closed.reconnect()),
        };
        tracing::debug!(?code, %reason, "connection lost");
        self.path.send_replace(None);
        self.traffic.lost(live.link.connection, self.clock.now());
        self.tokens.stop();
        if let Some(Move { url: Some(url), .. }) = self.next_move.take() {
            self.route.send_on(&url);
        }
        let steady = live.is_steady();
        self.is_told_when = false;
        let retry_after = live.disconnect.as_ref().and_then(|last| last.retry_after_ms);
        // By a newer `connect` of this client itself, which is answered later, or was given up and came all the same.
        let own_doing = code == Some(CloseCode::Replaced.code()) && live.attempt < self.last_attempt;
        drop(live);
        let token_is_final =
            code == Some(CloseCode::TokenExpired.code()) && !self.has_other_token(self.taken.as_ref());
        if (!reconnect && !own_doing) || token_is_final {
            return ControlFlow::Break(End { code, reason, closed: None });
        }
        self.status.send_replace(Status::Disconnected { code, reason, will_reconnect: true });
        if self.opening.is_some() {
            return ControlFlow::Continue(());
        }
        self.route.begin_round();
        let failures_before = if steady { 0 } else { self.failures };
        let pace = self.pace(steady);
        // These say that nothing is wrong: come back at once.
        let at_once = [CloseCode::Rotate, CloseCode::TokenExpired].map(|code| Some(code.code()));
        match retry_after.map(|ms| not_before(Duration::from_millis(ms), rand::random())) {
            Some(wait) => {
                self.is_told_when = true;
                self.reconnect_at = Some(Instant::now() + wait.max(pace));
            }
            None if at_once.contains(&code) && failures_before == 0 => {
                self.open(Purpose::Connect, None, None)
            }
            None => self.reconnect_at = Some(Instant::now() + pace),
        }
        ControlFlow::Continue(())
    }

    /// How long to wait after a connection that was steady or not, before the next one is opened or, where that stands
    /// already, is left on a node's word: what nodes direct is paced like what the network does.
    pub(super) fn pace(&mut self, steady: bool) -> Duration {
        let failures = if steady { 0 } else { self.failures };
        self.failures = failures.saturating_add(1);
        self.wait(failures)
    }

    /// The wait before a further try, with its jitter.
    pub(super) fn wait(&self, failures: u32) -> Duration {
        self.options.backoff.full_jitter(failures, rand::random())
    }

    /// Keeps the old connection for replies that only it can give.
    pub(super) fn begin_retirement(&mut self, old: Live) {
        self.retire();
        if self.traffic.needs(old.link.connection) {
            self.retiring = Some((old, Instant::now() + RETIREMENT));
        } else {
            self.leave_behind(old);
        }
    }

    pub(super) fn retire(&mut self) {
        if let Some((old, _)) = self.retiring.take() {
            self.leave_behind(old);
        }
    }

    /// Closes a connection that the session has left, beside it.
    fn leave_behind(&mut self, old: Live) {
        self.traffic.lost(old.link.connection, self.clock.now());
        tokio::spawn(old.close());
    }

    /// The node wants this client gone; all its clients spread over the first half of the time.
    pub(super) fn drain(&mut self, drain: Drain) {
        let wait = Duration::from_millis(drain.after_ms).div_f64(2.0).mul_f64(rand::random());
        let Some(live) = self.live.as_ref() else { return };
        let mut at = (Instant::now() + wait.min(Duration::from_secs(3600))).max(live.stays_until);
        let mut url = drain.url.and_then(|url| self.trusted(&url));
        if let Some(before) = self.next_move.take() {
            // Told again: the newest word says where to, the earliest one when.
            at = at.min(before.at);
            url = url.or(before.url);
        }
        self.next_move = Some(Move { at, url, purpose: Purpose::Drain });
    }

    /// The node knows of a better one for this user.
    pub(super) fn consider(&mut self, url: Option<&str>) {
        let Some(url) = url.and_then(|url| self.trusted(url)) else { return };
        // A node that drains has said so while the session was about to go somewhere else.
        let stays = self.next_move.is_none();
        let Some(live) = self.live.as_ref().filter(|live| stays && live.url != url) else { return };
        let at = live.stays_until;
        if !self.route.may_prefer(self.clock.now()) {
            return;
        }
        self.next_move = Some(Move { at, url: Some(url), purpose: Purpose::Prefer });
    }

    pub(super) fn follow(&mut self, due: Move) {
        self.open(due.purpose, due.url, None);
    }

    /// An address that a node gave: the token goes there, so it may not be less protected than here.
    pub(super) fn trusted(&self, url: &str) -> Option<NodeUrl> {
        let url: NodeUrl = url.parse().ok()?;
        (self.route.trusts(&url) && self.options.certificate.permits(&url).is_ok()).then_some(url)
    }

    pub(super) fn switch(&mut self, kind: TransportKind, reply: Outcome) {
        let Some(live) = self.live.as_ref().filter(|_| self.opening.is_none()) else {
            let _ = reply.send(Err(ConnectError::Busy));
            return;
        };
        let url = live.url.clone();
        self.open(Purpose::Switch(reply), Some(url), Some(kind));
    }
}

/// All that a node says of why it ends a connection.
fn told(last: &Disconnect) -> Cow<'static, str> {
    match &last.message {
        Some(message) => format!("{}: {message}", last.reason).into(),
        None => last.reason.clone(),
    }
}
