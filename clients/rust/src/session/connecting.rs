//! From an attempt to a session that is up to date, or to the next attempt.

use super::{
    End, Move, Session, Which,
    connection::Live,
    opening::{self, Established, Opening, Purpose, Step},
};
use crate::{
    client::Path,
    error::ConnectError,
    options::{TokenError, TokenSource},
    staggered::{Pace, Winner},
    status::{Connected, Status},
    transport::{Lane, TransportKind},
    url::NodeUrl,
};
use skywave_client_session::{ConnectionId, Link, Target, Wanted, Wish, backoff::not_before};
use skywave_protocol::{
    Channel, ClientFrame, CloseCode, Text,
    frame::{self, ClientInfo, Connect, Network, SubscribeOptions},
};
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long `connected` may take after the handshake when there are other nodes.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

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

impl Session {
    /// Begins to open a connection: to `named` first, where a node or the application names one.
    pub(super) fn open(&mut self, purpose: Purpose, named: Option<NodeUrl>, forced: Option<TransportKind>) {
        let now = self.clock.now();
        let leaving = self.live.as_ref().map(|live| &live.url);
        let is_alone = matches!(purpose, Purpose::Prefer | Purpose::Switch(_));
        let wish = Wish { named: named.as_ref(), is_alone, forced, leaving };
        let targets = self.route.targets(&wish, now);
        let head_start = self.route.head_start(targets.first(), named.is_some());
        let pace = Pace { head_start, timeout: self.options.connect_timeout };
        let step = opening::dial(self.dialer.clone(), targets.clone(), self.options.token.clone(), pace);
        self.reconnect_at = None;
        self.attempts = self.attempts.saturating_add(1);
        if self.live.is_none() {
            self.status.send_replace(Status::Connecting { attempt: self.attempts });
        }
        let network = self.options.network.clone();
        self.opening = Some(Opening {
            targets,
            purpose,
            wanted: Wanted::default(),
            network,
            token: None,
            is_greeting: false,
            step,
        });
    }

    pub(super) fn step(&mut self, step: Step) -> ControlFlow<End> {
        let Some(mut opening) = self.opening.take() else { return ControlFlow::Continue(()) };
        match step {
            Step::Dialed(Ok(winner), token) => {
                let Winner { index, value: connection, begun, took, failed } = winner;
                for index in failed {
                    self.route.failed(&opening.targets[index].url, None);
                }
                let target = opening.targets.swap_remove(index);
                if self.ran_since(begun) {
                    self.route.dialed(&target, connection.kind, took, self.clock.now());
                }
                // However long the handshake took: a node that is given up now may have taken the session already, and
                // the connection before would end for nothing.
                let patience = self.options.connect_timeout;
                let patience =
                    if opening.targets.is_empty() { patience } else { patience.min(GREETING_TIMEOUT) };
                opening.token = token.clone();
                opening.wanted = self.traffic.wanted(self.frame_limit);
                let connect = self.connect_frame(token, std::mem::take(&mut opening.wanted.subscriptions));
                opening.network = self.options.network.clone();
                opening.is_greeting = true;
                opening.step = opening::greet(connection, connect, patience);
                opening.targets = vec![target];
                self.opening = Some(opening);
                ControlFlow::Continue(())
            }
            Step::Established(Ok(established)) => self.established(opening, *established),
            Step::Dialed(Err(error), _) | Step::Established(Err(error)) => self.failed(opening, error),
        }
    }

    fn connect_frame(
        &mut self,
        token: Option<Arc<str>>,
        subscriptions: BTreeMap<Channel, SubscribeOptions>,
    ) -> Connect {
        let named = |text: &str| Text::new(text).ok();
        self.last_attempt += 1;
        let network = Some(self.options.network.clone()).filter(|network| *network != Network::default());
        Connect {
            id: self.traffic.next_id(),
            token,
            resume: self.resume.clone(),
            attempt: Some(self.last_attempt),
            subscriptions,
            client: named(&self.options.name)
                .map(|name| ClientInfo { name, version: named(&self.options.version) }),
            network,
        }
    }

    pub(super) fn established(&mut self, opening: Opening, established: Established) -> ControlFlow<End> {
        let Established { connection, connected, mut early } = established;
        let Opening { mut targets, purpose, wanted, network, token, .. } = opening;
        let Some(Target { url, .. }) = targets.pop() else { return ControlFlow::Continue(()) };
        self.connects += 1;
        let pace = match self.live.as_ref().map(Live::is_steady) {
            Some(steady) => self.pace(steady),
            None => Duration::ZERO,
        };
        let link = Link {
            connection: ConnectionId(self.connects),
            encoding: connection.encoding,
            frame_limit: connected.limits.frame_bytes,
            over_udp: connection.kind == TransportKind::WebTransport,
        };
        let mut live = Live::new(link, self.last_attempt, url.clone(), connection);
        live.stay(pace);
        let reply_time_us = live.reply_time_us.clone();
        self.path.send_replace(Some(Path { control: live.control.clone(), reply_time_us }));
        let told = |region: &frame::Region| Some((region.name.clone(), self.trusted(&region.url)?));
        let regions = connected.regions.iter().filter_map(told).collect();
        self.route.arrived(&url, connected.region.clone(), regions);
        self.frame_limit = connected.limits.frame_bytes;
        let is_elsewhere = self.traffic.connected(link, &connected, wanted, self.clock.now());
        if network != self.options.network {
            self.say(&ClientFrame::Network(self.options.network.clone()), Lane::Reliable);
        }
        self.resume = Some(connected.resume.clone());
        self.token_taken(token, connected.expires_at_ms);
        self.publish_status(&live, &connected);
        self.session = Some(connected.session.clone());
        if is_elsewhere {
            self.next_move = None;
        }
        self.attempts = 0;
        if let Some(old) = self.live.replace(live) {
            self.begin_retirement(old);
        }
        match purpose {
            Purpose::Switch(reply) => {
                let _ = reply.send(Ok(()));
            }
            // A preference is followed once, so that two nodes cannot play ball with a client.
            Purpose::Prefer => {}
            Purpose::Connect | Purpose::Drain => self.consider(connected.prefer_url.as_deref()),
        }
        if let Some(first) = self.first.take() {
            let _ = first.send(Ok(()));
        }
        self.renew_token();
        self.traffic.catch_up(self.clock.now());
        for (frame, arrival) in early.take() {
            self.frame(Which::Live, frame, arrival)?;
        }
        ControlFlow::Continue(())
    }

    pub(super) fn publish_status(&self, live: &Live, connected: &frame::Connected) {
        self.status.send_replace(Status::Connected(Arc::new(Connected {
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
        })));
    }

    /// The attempt failed: the candidates that are left at once, or all of them again after a while.
    pub(super) fn failed(&mut self, opening: Opening, error: ConnectError) -> ControlFlow<End> {
        let Opening { targets, purpose, token, .. } = opening;
        tracing::debug!(%error, ?purpose, "cannot connect");
        let verdict = self.judge(&error, token.as_ref());
        if matches!(purpose, Purpose::Connect | Purpose::Drain) && !verdict.is_own_fault() {
            let wait = error.retry_after().map(|wait| not_before(wait, rand::random()));
            for target in &targets {
                self.route.failed(&target.url, wait.map(|wait| self.clock.now() + wait));
            }
        }
        self.route.forget_named();
        if self.live.is_some() {
            self.stay(purpose, error, verdict);
            return ControlFlow::Continue(());
        }
        if let Purpose::Switch(reply) = purpose {
            let _ = reply.send(Err(error.clone()));
        }
        let now = self.clock.now();
        let round = self.route.is_exhausted(now);
        if verdict == Verdict::Final || (round && self.first.is_some()) {
            let end = End { code: error.code(), reason: error.to_string().into(), closed: None };
            if let Some(first) = self.first.take() {
                let _ = first.send(Err(error));
            }
            return ControlFlow::Break(end);
        }
        if verdict == Verdict::WithoutSecret {
            self.resume = None;
        }
        if round || verdict.is_own_fault() {
            let wait = if round { self.wait(self.failures) } else { Duration::ZERO };
            self.failures = self.failures.saturating_add(1);
            self.status.send_replace(Status::Disconnected {
                code: error.code(),
                reason: error.to_string().into(),
                will_reconnect: true,
            });
            let rest = self.route.rests_until(now);
            self.is_told_when = rest.is_some();
            self.reconnect_at = Some(self.clock.instant(rest.unwrap_or(now).max(now + wait)));
        } else {
            self.open(Purpose::Connect, None, None);
        }
        ControlFlow::Continue(())
    }

    /// A move failed: the session goes on where it is.
    fn stay(&mut self, purpose: Purpose, error: ConnectError, verdict: Verdict) {
        match purpose {
            Purpose::Switch(reply) => {
                let _ = reply.send(Err(error));
            }
            // Those that are left in this round. Nodes that are slow are asked once, and not by all their clients again and
            // again: the next round begins when the old connection is dead.
            Purpose::Connect if verdict == Verdict::Elsewhere => self.seek_another(None),
            // The old connection ends sooner or later: try again until then.
            Purpose::Drain if matches!(verdict, Verdict::Elsewhere | Verdict::NewToken) => {
                // Where it is for want of another token, the others would say the same.
                let round = self.route.is_exhausted(self.clock.now()) || verdict == Verdict::NewToken;
                let failures = if round { self.attempts.saturating_sub(1) } else { 0 };
                let wait = self.wait(failures);
                let Some(live) = &mut self.live else { return };
                live.stay(wait);
                let stays_until = live.stays_until;
                let retry = Move { at: stays_until, url: None, purpose: Purpose::Drain };
                // What the node said meanwhile is newer.
                let next = self.next_move.get_or_insert(retry);
                next.at = next.at.max(stays_until);
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
        let is_fixed = matches!(self.options.token, TokenSource::Fixed(_));
        match code {
            Some(CloseCode::Unauthenticated | CloseCode::TokenExpired) if is_fixed => {
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

    /// Whether there is another token to be had than one that is not good any more.
    pub(super) fn has_other_token(&self, than: Option<&Arc<str>>) -> bool {
        match &self.options.token {
            TokenSource::None => false,
            TokenSource::Fixed(fixed) => than != Some(fixed),
            TokenSource::Callback(_) => true,
        }
    }

    /// The application has brought a token while this connection was opened with the one before.
    fn renew_token(&mut self) {
        if let TokenSource::Fixed(fixed) = &self.options.token
            && self.has_other_token(self.taken.as_ref())
        {
            self.refresh(Ok(Some(fixed.clone())));
        }
    }

    /// The node has taken a token: plans when the next one is fetched.
    pub(super) fn token_taken(&mut self, token: Option<Arc<str>>, expires_at_ms: Option<u64>) {
        self.taken = token;
        // For whoever looks; it is no change that has to be told.
        self.status.send_if_modified(|status| {
            if let Status::Connected(connected) = status {
                Arc::make_mut(connected).expires_at_ms = expires_at_ms;
            }
            false
        });
        self.tokens.stop();
        let (Some(expires_at_ms), TokenSource::Callback(_)) = (expires_at_ms, &self.options.token) else {
            return;
        };
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expiry = Duration::from_millis(expires_at_ms);
        self.tokens.taken(self.taken.as_deref(), expiry, today, self.clock.now());
    }
}
