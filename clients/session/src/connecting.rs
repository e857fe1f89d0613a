//! From an attempt to a session that is up to date, or to the next attempt.

use crate::{
    Carrier, ConnectError, Connected, Connection, ConnectionId, Output, Reader, Session, Status, Target,
    Time, TokenError, Tokens,
    backoff::not_before,
    carrier::Ending,
    opening::{Opening, Purpose, Stage},
    session::Move,
};
use skywave_protocol::{CloseCode, frame};
use std::{sync::Arc, time::Duration};

/// What a failed attempt asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Another node, or the same one later.
    Elsewhere,
    /// The same at once, with a newer token.
    NewToken,
    /// The same at once, with another session.
    WithoutSecret,
    /// The end: trying again is in vain.
    Final,
}

impl Verdict {
    /// Whether the node did nothing wrong.
    fn is_own_fault(self) -> bool {
        matches!(self, Self::NewToken | Self::WithoutSecret)
    }
}

impl<R: Reader> Session<R> {
    /// `connected` has come on the connection that was on its way: it carries the session.
    pub(crate) fn established(&mut self, connected: frame::Connected, now: Time) {
        let Some(Opening { connection, mut targets, purpose, token, stage }) = self.opening.take() else {
            return;
        };
        let (Some(Target { url, .. }), Stage::Greeting(greeting)) = (targets.pop(), stage) else { return };
        self.connects += 1;
        let left = self.live.as_ref().map(|live| live.is_steady(now));
        self.credit(left == Some(true));
        // What nodes direct is paced like what the network does; the application goes where it likes.
        let is_directed = left.is_some() && purpose.is_needed();
        let pace = if is_directed { self.back_off() } else { Duration::ZERO };
        let frame_limit = connected.limits.frame_bytes;
        let over_udp = greeting.kind.is_over_udp();
        let carrying = Connection { id: connection, encoding: greeting.encoding, frame_limit, over_udp };
        let mut live = Carrier::new(carrying, self.last_attempt, url.clone(), greeting.kind, now);
        live.stay(pace, now);
        self.put_out(Output::Carry(Some(connection)));
        let told = |region: &frame::Region| Some((region.name.clone(), self.trusted(&region.url)?));
        let regions = connected.regions.iter().filter_map(told).collect();
        self.route.arrived(&url, connected.region.clone(), regions);
        self.frame_limit = frame_limit;
        let is_elsewhere = self.traffic.connected(carrying, &connected, greeting.wanted, now);
        if greeting.network != self.options.network {
            self.tell_network();
        }
        self.resume = Some(connected.resume.clone());
        self.tell_connected(&live, &connected);
        self.token_taken(token, connected.expires_at_ms, now);
        self.session = Some(connected.session.clone());
        if is_elsewhere {
            self.next_move = None;
        }
        self.attempts = 0;
        if let Some(old) = self.live.replace(live) {
            self.begin_retirement(old, now);
        }
        match purpose {
            Purpose::Switch => self.put_out(Output::Switched(Ok(()))),
            // A preference is followed once, so that two nodes cannot play ball with a client.
            Purpose::Prefer => {}
            Purpose::Connect | Purpose::Drain => self.consider(connected.prefer_url.as_deref(), now),
        }
        if std::mem::take(&mut self.is_first) {
            self.put_out(Output::Opened(Ok(())));
        }
        self.renew_token(now);
        self.traffic.catch_up(now);
        let mut early = greeting.early;
        for (frame, arrival) in early.take() {
            self.frame(connection, frame, arrival, now);
        }
    }

    fn tell_connected(&mut self, live: &Carrier, connected: &frame::Connected) {
        self.put_out(Output::Status(Status::Connected(Arc::new(Connected {
            transport: live.kind,
            url: live.url.clone(),
            node: connected.node.clone(),
            region: connected.region.clone(),
            session: connected.session.clone(),
            user: connected.user.clone(),
            resumed: connected.resumed,
            former: self.session.clone().filter(|former| *former != connected.session),
            expires_at_ms: connected.expires_at_ms,
            limits: connected.limits,
            connects: self.connects,
            attempts: self.attempts,
        }))));
    }

    /// The attempt failed: the candidates that are left at once, or all of them again after a while.
    pub(crate) fn failed(&mut self, opening: Opening, error: ConnectError, now: Time) {
        let Opening { connection, targets, purpose, token, .. } = opening;
        tracing::debug!(%error, ?purpose, "cannot connect");
        self.put_out(Output::Close { connection });
        let verdict = self.judge(&error, token.as_ref());
        if purpose.is_needed() && !verdict.is_own_fault() {
            let wait = error.retry_after().map(|wait| not_before(wait, (self.traffic.chance)()));
            for target in &targets {
                self.route.failed(&target.url, wait.map(|wait| now + wait));
            }
        }
        self.route.forget_named();
        if error.code() == Some(CloseCode::Overloaded.code()) {
            self.traffic.spare();
        }
        if self.live.is_some() {
            return self.stay(purpose, error, verdict, now);
        }
        if purpose == Purpose::Switch {
            self.put_out(Output::Switched(Err(error.clone())));
        }
        let round = self.route.is_exhausted(now);
        if verdict == Verdict::Final || (round && self.is_first) {
            let (code, reason) = (error.code(), error.to_string().into());
            if std::mem::take(&mut self.is_first) {
                self.put_out(Output::Opened(Err(error)));
            }
            return self.end(code, reason);
        }
        if verdict == Verdict::WithoutSecret {
            self.resume = None;
        }
        if !round && !verdict.is_own_fault() {
            return self.open(Purpose::Connect, None, None, now);
        }
        let wait = self.back_off();
        let wait = if round { wait } else { Duration::ZERO };
        let (code, reason) = (error.code(), error.to_string().into());
        self.put_out(Output::Status(Status::Disconnected { code, reason, will_reconnect: true }));
        self.is_told_when = self.route.rests_until(now).is_some();
        self.reconnect_at = Some(self.not_resting(now, now + wait));
    }

    /// That time, or later where nobody wants to be asked before.
    fn not_resting(&self, now: Time, at: Time) -> Time {
        self.route.rests_until(now).map_or(at, |rest| rest.max(at))
    }

    /// A move failed: the session goes on where it is.
    fn stay(&mut self, purpose: Purpose, error: ConnectError, verdict: Verdict, now: Time) {
        match purpose {
            Purpose::Switch => self.put_out(Output::Switched(Err(error))),
            // Those that are left in this round. Nodes that are slow are asked once, and not by all their clients again and
            // again: the next round begins when the old connection is dead.
            Purpose::Connect if verdict == Verdict::Elsewhere => self.seek_another(None, now),
            // The old connection ends sooner or later: those that are left at once, or all of them again after a while.
            Purpose::Drain if matches!(verdict, Verdict::Elsewhere | Verdict::NewToken) => {
                // Where it is for want of another token, the others would say the same.
                let is_others_turn = !self.route.is_exhausted(now) && verdict == Verdict::Elsewhere;
                let at = if is_others_turn {
                    now
                } else {
                    let wait = self.back_off();
                    self.not_resting(now, now + wait)
                };
                // Where to go, the node may have said meanwhile.
                let url = self.next_move.take().and_then(|next| next.url);
                self.next_move = Some(Move { at, url, purpose });
                if let Some(live) = &mut self.live {
                    live.stays_until = at;
                }
            }
            Purpose::Drain | Purpose::Prefer | Purpose::Connect => {}
        }
    }

    /// What a failed attempt asks for.
    fn judge(&mut self, error: &ConnectError, token: Option<&Arc<str>>) -> Verdict {
        let ConnectError::Refused { code, reconnect, .. } = error else {
            let denied = matches!(error, ConnectError::Token(TokenError::Denied(_)));
            return if denied { Verdict::Final } else { Verdict::Elsewhere };
        };
        let code = CloseCode::from_code(*code);
        // The secret of the former user's session may be what does not suit the token.
        if code == Some(CloseCode::Unauthenticated) && self.resume.is_some() {
            return Verdict::WithoutSecret;
        }
        match code {
            Some(CloseCode::Unauthenticated | CloseCode::TokenExpired)
                if matches!(self.options.tokens, Tokens::Fixed(_)) =>
            {
                self.token_refused(token);
                if self.has_other_token(token) { Verdict::NewToken } else { Verdict::Final }
            }
            Some(CloseCode::TokenExpired) if !self.has_other_token(token) => Verdict::Final,
            // The first failure may be that a connection broke; a token is seldom refused twice.
            Some(CloseCode::TokenExpired) if self.failures < 2 => Verdict::NewToken,
            _ if *reconnect => Verdict::Elsewhere,
            _ => Verdict::Final,
        }
    }

    /// The connection that carries the session, or was to, is over.
    pub fn ended(&mut self, connection: ConnectionId, code: Option<u16>, reason: &str, now: Time) {
        self.over(connection, Ending::closed(code, reason), now);
    }

    pub(crate) fn over(&mut self, connection: ConnectionId, ending: Ending, now: Time) {
        if self.live() == Some(connection) {
            self.lost(ending, now);
        } else if self.retiring.as_ref().is_some_and(|(old, _)| old.id() == connection) {
            self.retire(now);
        } else if self.opening.as_ref().is_some_and(|opening| opening.connection == connection) {
            self.give_up(ending.refusal(), now);
        }
    }
}
