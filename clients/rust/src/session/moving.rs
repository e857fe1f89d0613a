//! Leaving a connection: lost, drained, replaced by a better one.

use super::{End, Move, Outcome, Session, connection::Live, opening::Purpose};
use crate::{
    error::ConnectError,
    options::TokenSource,
    status::Status,
    transport::{Closed, TransportKind},
    url::NodeUrl,
};
use skywave_protocol::{CloseCode, frame::Drain};
use std::{borrow::Cow, ops::ControlFlow, time::Duration};
use tokio::time::Instant;

/// How long an old connection may still give replies after a move.
const RETIREMENT: Duration = Duration::from_secs(2);
/// A connection that held so long was a good one: the next failure begins with the shortest wait.
const STABLE: Duration = Duration::from_secs(5);
/// The least time between two moves to a node that another one prefers.
const PREFERENCE_INTERVAL: Duration = Duration::from_secs(60);

impl Session {
    /// The live connection is over.
    pub(super) fn lost(&mut self, closed: Closed) -> ControlFlow<End> {
        let Some(live) = self.live.take() else { return ControlFlow::Continue(()) };
        let (code, reason, reconnect) = match &live.disconnect {
            Some(last) => (Some(last.code), last.reason.clone(), last.reconnect),
            None => (closed.code, Cow::Owned(closed.reason.clone()), closed.reconnect()),
        };
        tracing::debug!(?code, %reason, "connection lost");
        self.path.send_replace(None);
        self.requests.lost(live.number);
        self.refresh_at = None;
        if let Some(Move { url: Some(url), .. }) = self.next_move.take() {
            self.candidates.go(&url);
            self.sent_on = true;
        }
        let steady = live.since.elapsed() >= STABLE;
        // By a newer `connect` of this client itself, which is answered later, or was given up and came all the same.
        let own_doing = code == Some(CloseCode::Replaced.code()) && live.attempt < self.last_attempt;
        drop(live);
        let token_is_final = code == Some(CloseCode::TokenExpired.code())
            && !matches!(self.options.token, TokenSource::Callback(_));
        if (!reconnect && !own_doing) || token_is_final {
            return ControlFlow::Break(End { code, reason, closed: None });
        }
        self.status.send_replace(Status::Disconnected { code, reason, will_reconnect: true });
        if self.opening.is_some() {
            return ControlFlow::Continue(());
        }
        self.candidates.begin_round();
        if steady {
            self.failures = 0;
        }
        // These say that nothing is wrong: come back at once.
        let at_once = [CloseCode::Rotate, CloseCode::TokenExpired].map(|code| Some(code.code()));
        if at_once.contains(&code) && self.failures == 0 {
            self.failures = 1;
            self.open(Purpose::Connect, None, None);
        } else {
            self.reconnect_at = Some(Instant::now() + self.options.backoff.wait(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
        ControlFlow::Continue(())
    }

    /// Keeps the old connection for replies that only it can give.
    pub(super) fn begin_retirement(&mut self, old: Live) {
        self.retire();
        if self.requests.needs(old.number) {
            self.retiring = Some((old, Instant::now() + RETIREMENT));
        } else {
            self.requests.lost(old.number);
            close_aside(old);
        }
    }

    pub(super) fn retire(&mut self) {
        if let Some((old, _)) = self.retiring.take() {
            self.requests.lost(old.number);
            close_aside(old);
        }
    }

    /// The node wants this client gone; all its clients spread over the first half of the time.
    pub(super) fn drain(&mut self, drain: Drain) {
        let wait = Duration::from_millis(drain.after_ms).div_f64(2.0).mul_f64(rand::random());
        let at = Instant::now() + wait.min(Duration::from_secs(3600));
        if self.opening.is_some() || self.next_move.as_ref().is_some_and(|next| next.at <= at) {
            return;
        }
        let url = drain.url.and_then(|url| self.trusted(&url));
        self.next_move = Some(Move { at, url, purpose: Purpose::Drain });
    }

    /// The node knows of a better one for this user.
    pub(super) fn consider(&mut self, url: Option<&str>) {
        let Some(url) = url.and_then(|url| self.trusted(url)) else { return };
        let now = Instant::now();
        let recently = self.preferred_at.is_some_and(|at| now - at < PREFERENCE_INTERVAL);
        if recently || self.live.as_ref().is_some_and(|live| live.url == url) {
            return;
        }
        self.preferred_at = Some(now);
        self.next_move = Some(Move { at: now, url: Some(url), purpose: Purpose::Prefer });
    }

    pub(super) fn follow(&mut self, due: Move) {
        self.open(due.purpose, due.url, None);
    }

    /// An address that a node gave: the token goes there, so it may not be less protected than here.
    pub(super) fn trusted(&self, url: &str) -> Option<NodeUrl> {
        let url: NodeUrl = url.parse().ok()?;
        let protected = url.is_tls() || !self.candidates.current().is_tls();
        (protected && self.options.certificate.permits(&url).is_ok()).then_some(url)
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

/// Closes a connection beside the session.
fn close_aside(old: Live) {
    tokio::spawn(old.close());
}
