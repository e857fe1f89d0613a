//! From an attempt to a session that is up to date, or to the next attempt.

use super::{
    End, Move, Session, Which,
    channels::Phase,
    connection::Live,
    opening::{self, Dialed, Established, Opening, Purpose, Step},
};
use crate::{
    client::Path,
    error::ConnectError,
    options::{TokenError, TokenSource},
    status::{Connected, Status},
    transport::TransportKind,
    url::NodeUrl,
};
use skywave_protocol::{
    Channel, CloseCode, Text,
    frame::{self, ClientInfo, Connect, Network, SubscribeOptions},
};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// What a `connect` may take apart from its subscriptions: token, resume secret and the rest.
const CONNECT_BYTES: usize = 16 * 1024;
/// The least time before a token is fetched again, however short tokens live.
const LEAST_REFRESH_INTERVAL: Duration = Duration::from_millis(200);

impl Session {
    /// Begins to open a connection to the current candidate.
    pub(super) fn open(&mut self, forced: Option<TransportKind>, purpose: Purpose) {
        let now = Instant::now();
        let url = self.candidates.current().clone();
        let choice = self.options.choice_of(forced);
        let plan = self.memory.plan(&url, choice, self.options.head_start, now);
        let deadline = now + self.options.connect_timeout;
        let step =
            opening::dial(self.dialer.clone(), url.clone(), plan, self.options.token.clone(), deadline);
        self.reconnect_at = None;
        self.attempts = self.attempts.saturating_add(1);
        if self.live.is_none() {
            self.status.send_replace(Status::Connecting { attempt: self.attempts });
        }
        self.opening = Some(Opening { url, plan, purpose, deadline, channels: Vec::new(), step });
    }

    pub(super) fn step(&mut self, step: Step) -> ControlFlow<End> {
        let Some(mut opening) = self.opening.take() else { return ControlFlow::Continue(()) };
        match step {
            Step::Dialed(Ok(dialed)) => {
                self.memory.remember(&opening.url, opening.plan, dialed.connection.kind, Instant::now());
                let Dialed { connection, token } = dialed;
                let connect = self.connect_frame(token);
                opening.channels = self.asked(&connect);
                opening.step = opening::greet(connection, connect, opening.deadline);
                self.opening = Some(opening);
                ControlFlow::Continue(())
            }
            Step::Established(Ok(established)) => self.established(opening, *established),
            Step::Dialed(Err(error)) | Step::Established(Err(error)) => self.failed(opening.purpose, error),
        }
    }

    pub(super) fn connect_frame(&mut self, token: Option<Arc<str>>) -> Connect {
        let named = |text: &str| Text::new(text).ok();
        let subscriptions = self.subscriptions_that_fit();
        let network = Some(self.options.network.clone()).filter(|network| *network != Network::default());
        Connect {
            id: self.requests.next_id(),
            token,
            resume: self.resume.clone(),
            subscriptions,
            client: named(&self.options.name)
                .map(|name| ClientInfo { name, version: named(&self.options.version) }),
            network,
        }
    }

    /// All subscriptions, as far as they fit into one frame; the others are asked for after it.
    pub(super) fn subscriptions_that_fit(&self) -> BTreeMap<Channel, SubscribeOptions> {
        let mut left = match self.frame_limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(CONNECT_BYTES),
        };
        let wanted = self.channels.iter().filter(|(_, entry)| !entry.paused);
        wanted
            .map(|(channel, entry)| (channel.clone(), entry.request()))
            .take_while(|(channel, options)| {
                let size = subscription_size(channel, options);
                let fits = size <= left;
                left = left.saturating_sub(size);
                fits
            })
            .collect()
    }

    /// Which subscriptions, by their ids, a `connect` asks for.
    pub(super) fn asked(&self, connect: &Connect) -> Vec<(Channel, u64)> {
        let channels = connect.subscriptions.keys();
        channels
            .filter_map(|channel| self.channels.get(channel).map(|entry| (channel.clone(), entry.id)))
            .collect()
    }

    pub(super) fn established(&mut self, opening: Opening, established: Established) -> ControlFlow<End> {
        let Established { connection, connected, early } = established;
        let Opening { url, purpose, channels, .. } = opening;
        self.connects += 1;
        let awaiting =
            channels.iter().map(|(channel, _)| (channel.clone(), Phase::Awaiting(VecDeque::new())));
        let live = Live::new(
            self.connects,
            url.clone(),
            connection,
            connected.heartbeat,
            connected.limits,
            awaiting.collect(),
        );
        let reply_time_us = live.reply_time_us.clone();
        self.path.send_replace(Some(Path { control: live.control.clone(), reply_time_us }));
        self.candidates.succeeded(&url);
        let regions: Vec<NodeUrl> =
            connected.regions.iter().filter_map(|region| self.trusted(&region.url)).collect();
        self.candidates.learn(regions.into_iter());
        self.frame_limit = connected.limits.frame_bytes;
        self.resume = Some(connected.resume.clone());
        self.schedule_refresh(connected.expires_at_ms);
        self.publish_status(&live, &connected);
        self.attempts = 0;
        self.next_move = None;
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
        self.catch_up(channels);
        for frame in early {
            self.frame(Which::Live, frame)?;
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
            expires_at_ms: connected.expires_at_ms,
            limits: connected.limits,
            connects: self.connects,
            attempts: self.attempts,
        })));
    }

    /// Brings the new connection to what the application has asked for meanwhile.
    pub(super) fn catch_up(&mut self, asked: Vec<(Channel, u64)>) {
        for (channel, id) in asked {
            // Dropped meanwhile, even if somebody else has subscribed since.
            if self.channels.get(&channel).is_none_or(|entry| entry.paused || entry.id != id) {
                self.leave(&channel);
            }
        }
        let Some(live) = &self.live else { return };
        let missing: Vec<Channel> = self
            .channels
            .iter()
            .filter(|(channel, entry)| {
                !entry.paused && matches!(live.phases.get(*channel), None | Some(Phase::Leaving(_)))
            })
            .map(|(channel, _)| channel.clone())
            .collect();
        for channel in missing {
            self.join(&channel);
        }
        self.send_publishes();
    }

    /// The attempt failed: the next candidate at once, or all of them again after a while.
    pub(super) fn failed(&mut self, purpose: Purpose, error: ConnectError) -> ControlFlow<End> {
        tracing::debug!(%error, ?purpose, "cannot connect");
        let (expired, fatal) = self.judge(&error);
        let round = self.candidates.failed();
        if self.live.is_some() {
            match purpose {
                Purpose::Switch(reply) => {
                    let _ = reply.send(Err(error));
                }
                // The old connection ends sooner or later: try again until then.
                Purpose::Drain if !fatal => {
                    let at = Instant::now() + self.options.backoff.wait(self.attempts.saturating_sub(1));
                    self.next_move = Some(Move { at, url: None, purpose: Purpose::Drain });
                }
                Purpose::Drain | Purpose::Prefer | Purpose::Connect => {}
            }
            if let Some(live) = &self.live {
                self.candidates.go_unless_draining(&live.url, self.next_move.is_some());
            }
            return ControlFlow::Continue(());
        }
        if let Purpose::Switch(reply) = purpose {
            let _ = reply.send(Err(error.clone()));
        }
        if fatal || (round && self.first.is_some() && !expired) {
            let end = End { code: error.code(), reason: error.to_string().into(), closed: None };
            if let Some(first) = self.first.take() {
                let _ = first.send(Err(error));
            }
            return ControlFlow::Break(end);
        }
        if round {
            let wait = self.options.backoff.wait(self.failures);
            self.failures = self.failures.saturating_add(1);
            self.status.send_replace(Status::Disconnected {
                code: error.code(),
                reason: error.to_string().into(),
                will_reconnect: true,
            });
            self.reconnect_at = Some(Instant::now() + wait);
        } else {
            self.open(None, Purpose::Connect);
        }
        ControlFlow::Continue(())
    }

    /// Whether a token has expired that can be replaced, and whether trying again is in vain.
    pub(super) fn judge(&self, error: &ConnectError) -> (bool, bool) {
        let token_expired = error.code() == Some(CloseCode::TokenExpired.code());
        let replaceable = matches!(self.options.token, TokenSource::Callback(_));
        let expired = token_expired && replaceable && self.failures == 0;
        let fatal = match error {
            ConnectError::Refused { reconnect, .. } => !reconnect || (token_expired && !replaceable),
            ConnectError::Token(TokenError::Denied(_)) => true,
            _ => false,
        };
        (expired, fatal)
    }

    /// Fetches a new token when three quarters of the old one's life from now are over.
    pub(super) fn schedule_refresh(&mut self, expires_at_ms: Option<u64>) {
        self.refresh_at = None;
        let (Some(expires_at_ms), TokenSource::Callback(_)) = (expires_at_ms, &self.options.token) else {
            return;
        };
        let expiry = UNIX_EPOCH.checked_add(Duration::from_millis(expires_at_ms));
        let left = expiry.and_then(|expiry| expiry.duration_since(SystemTime::now()).ok());
        let wait = left.unwrap_or_default().mul_f64(0.75).max(LEAST_REFRESH_INTERVAL);
        self.refresh_at = Instant::now().checked_add(wait);
    }
}

/// The bytes that a subscription takes in `connect`, at most, in either encoding.
fn subscription_size(channel: &Channel, options: &SubscribeOptions) -> usize {
    // JSON may escape `"` and `\` in a name, two bytes for one; the rest is field names and numbers.
    let points = options.position.iter().flat_map(|position| position.iter());
    let position: usize = points.map(|(origin, point)| 2 * (origin.len() + point.epoch.len()) + 64).sum();
    2 * channel.len() + 80 + position
}
