//! The session's task: one connection or, during a move, two; subscriptions, requests, reconnects.

mod channels;
mod connection;
mod opening;
mod publishes;
mod requests;
mod traffic;

use crate::{
    candidates::Candidates,
    client::{Handle, Path},
    error::{ConnectError, RequestError},
    options::{ClientOptions, TokenError, TokenSource},
    race::Memory,
    status::{Connected, Status},
    subscription::ChannelEvent,
    transport::{Closed, DialOptions, Dialer, Received, TransportKind},
    url::NodeUrl,
};
use channels::{Entry, Phase};
use connection::Live;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use opening::{Dialed, Established, Opening, Purpose, Step};
use publishes::Publishes;
use requests::Requests;
use skywave_protocol::{
    Channel, ClientFrame, CloseCode, Payload, RequestId, ServerFrame, Text,
    frame::{self, ClientInfo, Connect, Drain, Key, Network, Published, SubscribeOptions},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
    future::pending,
    ops::ControlFlow,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

/// Commands that wait for the task.
const COMMAND_QUEUE: usize = 256;
/// How long an old connection may still give replies after a move.
const RETIREMENT: Duration = Duration::from_secs(2);
/// A connection that held so long was a good one: the next failure begins with the shortest wait.
const STABLE: Duration = Duration::from_secs(5);
/// The least time between two moves to a node that another one prefers.
const PREFERENCE_INTERVAL: Duration = Duration::from_secs(60);

/// The least time before a token is fetched again, however short tokens live.
const LEAST_REFRESH_INTERVAL: Duration = Duration::from_millis(200);
/// What a `connect` may take apart from its subscriptions: token, resume secret and the rest.
const CONNECT_BYTES: usize = 16 * 1024;
/// The limit on frames until a node has told its own.
const USUAL_FRAME_LIMIT: u64 = 65_536;

type Reply<T> = oneshot::Sender<Result<T, RequestError>>;
type Outcome = oneshot::Sender<Result<(), ConnectError>>;

/// What the application asks for.
pub(crate) enum Command {
    Subscribe {
        channel: Channel,
        id: u64,
        options: SubscribeOptions,
        events: mpsc::Sender<ChannelEvent>,
        ended: Arc<OnceLock<ChannelEvent>>,
        reply: Reply<()>,
    },
    Publish {
        channel: Channel,
        data: Payload,
        key: Key,
        reply: Reply<Published>,
    },
    Emit(frame::Emit),
    Request {
        frame: Box<dyn FnOnce(RequestId) -> ClientFrame + Send>,
        reply: Reply<ServerFrame>,
    },
    /// Replaces a fixed token.
    Token(Arc<str>),
    Network(Network),
    Cut,
    Switch {
        kind: TransportKind,
        reply: Outcome,
    },
    Close(oneshot::Sender<()>),
}

/// Which of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Live,
    Retiring,
}

/// What the task wakes up for.
enum Input {
    Command(Option<Command>),
    Forgotten(Channel, u64),
    Received(Which, Result<Received, Closed>),
    Step(Step),
    /// A paused subscription may be taken up again.
    Room(Channel, u64),
    Token(Result<Option<Arc<str>>, TokenError>),
    Timer,
}

/// A move that is due.
struct Move {
    at: Instant,
    url: Option<NodeUrl>,
    purpose: Purpose,
}

struct Session {
    options: ClientOptions,
    dialer: Dialer,
    candidates: Candidates,
    memory: Memory,
    commands: mpsc::Receiver<Command>,
    forgotten: mpsc::UnboundedReceiver<(Channel, u64)>,
    status: watch::Sender<Status>,
    path: watch::Sender<Option<Path>>,
    /// Who waits for the first session.
    first: Option<Outcome>,
    resume: Option<Arc<str>>,
    channels: HashMap<Channel, Entry>,
    publishes: Publishes,
    requests: Requests,
    live: Option<Live>,
    retiring: Option<(Live, Instant)>,
    opening: Option<Opening>,
    reconnect_at: Option<Instant>,
    next_move: Option<Move>,
    rooms: FuturesUnordered<BoxFuture<'static, (Channel, u64)>>,
    refresh_at: Option<Instant>,
    fetching: Option<BoxFuture<'static, Result<Option<Arc<str>>, TokenError>>>,
    /// Failures in a row, for the backoff.
    failures: u32,
    /// Attempts since the last success.
    attempts: u32,
    connects: u64,
    preferred_at: Option<Instant>,
    /// The node's limit on frames in bytes; 0: none.
    frame_limit: u64,
}

type Started = (
    Handle,
    watch::Receiver<Status>,
    watch::Receiver<Option<Path>>,
    oneshot::Receiver<Result<(), ConnectError>>,
);

/// Starts the session's task; the last part tells when the first session is open.
pub(crate) fn start(options: ClientOptions) -> Result<Started, ConnectError> {
    if options.subscription_queue < 2 || options.publish_queue < 1 {
        return Err(ConnectError::InvalidOption(
            "a subscription holds at least 2 events, and a client 1 publish",
        ));
    }
    let mut urls = Vec::new();
    for url in &options.urls {
        let parsed: NodeUrl =
            url.parse().map_err(|error| ConnectError::InvalidUrl { url: url.clone(), error })?;
        options.certificate.permits(&parsed)?;
        urls.push(parsed);
    }
    if urls.is_empty() {
        return Err(ConnectError::NoUrl);
    }
    let dialer = Dialer::new(DialOptions {
        encoding: options.encoding,
        http2: options.http2,
        certificate: options.certificate.clone(),
        headers: options.headers.clone(),
    })?;
    let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
    let (forgotten, forgotten_queue) = mpsc::unbounded_channel();
    let (status, watch_status) = watch::channel(Status::Connecting { attempt: 1 });
    let (path, watch_path) = watch::channel(None);
    let (first, opened) = oneshot::channel();
    let session = Session {
        dialer,
        candidates: Candidates::new(urls),
        memory: Memory::default(),
        commands: command_queue,
        forgotten: forgotten_queue,
        status,
        path,
        first: Some(first),
        resume: None,
        channels: HashMap::new(),
        publishes: Publishes::new(options.publish_queue),
        requests: Requests::default(),
        live: None,
        retiring: None,
        opening: None,
        reconnect_at: None,
        next_move: None,
        rooms: FuturesUnordered::new(),
        refresh_at: None,
        fetching: None,
        failures: 0,
        attempts: 0,
        connects: 0,
        preferred_at: None,
        frame_limit: USUAL_FRAME_LIMIT,
        options,
    };
    tokio::spawn(session.run());
    Ok((Handle { commands, forgotten }, watch_status, watch_path, opened))
}

/// Why the task ends.
struct End {
    code: Option<u16>,
    reason: Cow<'static, str>,
    /// Told once all is closed.
    closed: Option<oneshot::Sender<()>>,
}

impl Session {
    async fn run(mut self) {
        self.open(None, Purpose::Connect);
        let end = loop {
            let input = self.input().await;
            if let ControlFlow::Break(end) = self.handle(input) {
                break end;
            }
        };
        self.end(end).await;
    }

    /// Waits for the next thing to do. Nothing is lost when another branch is quicker.
    async fn input(&mut self) -> Input {
        let deadline = self.next_deadline();
        let Self { commands, forgotten, live, retiring, opening, rooms, fetching, .. } = self;
        tokio::select! {
            received = receive(live.as_mut()) => Input::Received(Which::Live, received),
            received = receive(retiring.as_mut().map(|(live, _)| live)) => Input::Received(Which::Retiring, received),
            command = commands.recv() => Input::Command(command),
            Some((channel, id)) = forgotten.recv() => Input::Forgotten(channel, id),
            step = next(opening.as_mut().map(|opening| &mut opening.step)) => Input::Step(step),
            Some((channel, id)) = rooms.next() => Input::Room(channel, id),
            token = next(fetching.as_mut()) => Input::Token(token),
            () = until(deadline) => Input::Timer,
        }
    }

    fn handle(&mut self, input: Input) -> ControlFlow<End> {
        match input {
            Input::Command(command) => return self.command(command),
            Input::Forgotten(channel, id) => self.forget(&channel, id),
            Input::Received(which, Ok(received)) => return self.received(which, &received),
            Input::Received(Which::Live, Err(closed)) => return self.lost(closed),
            Input::Received(Which::Retiring, Err(_)) => self.retire(),
            Input::Step(step) => return self.step(step),
            Input::Room(channel, id) => self.rejoin(&channel, id),
            Input::Token(token) => self.refresh(token),
            Input::Timer => return self.timer(),
        }
        ControlFlow::Continue(())
    }

    fn command(&mut self, command: Option<Command>) -> ControlFlow<End> {
        match command {
            None => return ControlFlow::Break(End { code: None, reason: "dropped".into(), closed: None }),
            Some(Command::Close(closed)) => {
                return ControlFlow::Break(End { code: None, reason: "closed".into(), closed: Some(closed) });
            }
            Some(Command::Subscribe { channel, id, options, events, ended, reply }) => {
                self.subscribe(channel, Entry::new(id, options, events, ended, reply));
            }
            Some(Command::Publish { channel, data, key, reply }) => {
                if let Some(number) = self.publishes.push(channel, data, key, reply) {
                    self.send_publish(number);
                }
            }
            Some(Command::Emit(emit)) => self.emit(emit),
            Some(Command::Request { frame, reply }) => self.request(frame, reply),
            Some(Command::Token(token)) => {
                if let TokenSource::Fixed(fixed) = &mut self.options.token {
                    *fixed = token;
                }
            }
            Some(Command::Network(hint)) => self.network(hint),
            Some(Command::Cut) => {
                if let Some(live) = &self.live {
                    live.control.cut();
                    return self.lost(Closed::lost("cut"));
                }
            }
            Some(Command::Switch { kind, reply }) => self.switch(kind, reply),
        }
        ControlFlow::Continue(())
    }

    // ---- time

    fn next_deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let connected = self.live.as_ref().map(Live::patience_ends);
        let release = self.live.as_ref().and_then(|_| self.publishes.next_release(now));
        let retiring = self.retiring.as_ref().map(|(_, until)| *until);
        let next_move = self.next_move.as_ref().map(|next| next.at);
        [connected, release, retiring, self.reconnect_at, next_move, self.refresh_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn timer(&mut self) -> ControlFlow<End> {
        let now = Instant::now();
        if self.live.as_mut().is_some_and(|live| live.is_dead(now)) {
            return self.lost(Closed::lost(CloseCode::HeartbeatTimeout.reason()));
        }
        if self.retiring.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.retire();
        }
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = None;
            let tokens = self.options.token.clone();
            self.fetching = Some(Box::pin(async move { tokens.token().await }));
        }
        if self.opening.is_none() {
            if self.reconnect_at.is_some_and(|at| at <= now) {
                self.open(None, Purpose::Connect);
            } else if let Some(due) = self.next_move.take_if(|next| next.at <= now) {
                self.follow(due);
            }
        } else if self.next_move.as_ref().is_some_and(|next| next.at <= now) {
            // A connection is on its way already, and will be told again if it has to move.
            self.next_move = None;
        }
        self.send_publishes();
        ControlFlow::Continue(())
    }

    // ---- connecting

    /// Begins to open a connection to the current candidate.
    fn open(&mut self, forced: Option<TransportKind>, purpose: Purpose) {
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

    fn step(&mut self, step: Step) -> ControlFlow<End> {
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

    fn connect_frame(&mut self, token: Option<Arc<str>>) -> Connect {
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
    fn subscriptions_that_fit(&self) -> BTreeMap<Channel, SubscribeOptions> {
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
    fn asked(&self, connect: &Connect) -> Vec<(Channel, u64)> {
        let channels = connect.subscriptions.keys();
        channels
            .filter_map(|channel| self.channels.get(channel).map(|entry| (channel.clone(), entry.id)))
            .collect()
    }

    fn established(&mut self, opening: Opening, established: Established) -> ControlFlow<End> {
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

    fn publish_status(&self, live: &Live, connected: &frame::Connected) {
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
    fn catch_up(&mut self, asked: Vec<(Channel, u64)>) {
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
    fn failed(&mut self, purpose: Purpose, error: ConnectError) -> ControlFlow<End> {
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
    fn judge(&self, error: &ConnectError) -> (bool, bool) {
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

    // ---- losing and moving

    /// The live connection is over.
    fn lost(&mut self, closed: Closed) -> ControlFlow<End> {
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
            self.candidates.go(url);
        }
        let steady = live.since.elapsed() >= STABLE;
        drop(live);
        // One's own move replaces the old connection, which may hear of it first.
        let own_move = code == Some(CloseCode::Replaced.code()) && self.opening.is_some();
        let token_is_final = code == Some(CloseCode::TokenExpired.code())
            && !matches!(self.options.token, TokenSource::Callback(_));
        if (!reconnect && !own_move) || token_is_final {
            return ControlFlow::Break(End { code, reason, closed: None });
        }
        self.status.send_replace(Status::Disconnected { code, reason, will_reconnect: true });
        if self.opening.is_some() {
            return ControlFlow::Continue(());
        }
        if steady {
            self.failures = 0;
        }
        // These say that nothing is wrong: come back at once.
        let at_once = [CloseCode::Rotate, CloseCode::TokenExpired].map(|code| Some(code.code()));
        if at_once.contains(&code) && self.failures == 0 {
            self.failures = 1;
            self.open(None, Purpose::Connect);
        } else {
            self.reconnect_at = Some(Instant::now() + self.options.backoff.wait(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
        ControlFlow::Continue(())
    }

    /// Keeps the old connection for replies that only it can give.
    fn begin_retirement(&mut self, old: Live) {
        self.retire();
        if self.requests.needs(old.number) {
            self.retiring = Some((old, Instant::now() + RETIREMENT));
        } else {
            self.requests.lost(old.number);
            close_aside(old);
        }
    }

    fn retire(&mut self) {
        if let Some((old, _)) = self.retiring.take() {
            self.requests.lost(old.number);
            close_aside(old);
        }
    }

    /// The node wants this client gone; all its clients spread over the first half of the time.
    fn drain(&mut self, drain: Drain) {
        let wait = Duration::from_millis(drain.after_ms).div_f64(2.0).mul_f64(rand::random());
        let at = Instant::now() + wait.min(Duration::from_secs(3600));
        if self.opening.is_some() || self.next_move.as_ref().is_some_and(|next| next.at <= at) {
            return;
        }
        let url = drain.url.and_then(|url| self.trusted(&url));
        self.next_move = Some(Move { at, url, purpose: Purpose::Drain });
    }

    /// The node knows of a better one for this user.
    fn consider(&mut self, url: Option<&str>) {
        let Some(url) = url.and_then(|url| self.trusted(url)) else { return };
        let now = Instant::now();
        let recently = self.preferred_at.is_some_and(|at| now - at < PREFERENCE_INTERVAL);
        if recently || self.live.as_ref().is_some_and(|live| live.url == url) {
            return;
        }
        self.preferred_at = Some(now);
        self.next_move = Some(Move { at: now, url: Some(url), purpose: Purpose::Prefer });
    }

    fn follow(&mut self, due: Move) {
        if let Some(url) = due.url {
            self.candidates.go(url);
        }
        self.open(None, due.purpose);
    }

    /// An address that a node gave: the token goes there, so it may not be less protected than here.
    fn trusted(&self, url: &str) -> Option<NodeUrl> {
        let url: NodeUrl = url.parse().ok()?;
        let protected = url.is_tls() || !self.candidates.current().is_tls();
        (protected && self.options.certificate.permits(&url).is_ok()).then_some(url)
    }

    fn switch(&mut self, kind: TransportKind, reply: Outcome) {
        let Some(live) = self.live.as_ref().filter(|_| self.opening.is_none()) else {
            let _ = reply.send(Err(ConnectError::Busy));
            return;
        };
        self.candidates.go(live.url.clone());
        self.open(Some(kind), Purpose::Switch(reply));
    }

    // ---- tokens

    /// Fetches a new token when three quarters of the old one's life from now are over.
    fn schedule_refresh(&mut self, expires_at_ms: Option<u64>) {
        self.refresh_at = None;
        let (Some(expires_at_ms), TokenSource::Callback(_)) = (expires_at_ms, &self.options.token) else {
            return;
        };
        let expiry = UNIX_EPOCH.checked_add(Duration::from_millis(expires_at_ms));
        let left = expiry.and_then(|expiry| expiry.duration_since(SystemTime::now()).ok());
        let wait = left.unwrap_or_default().mul_f64(0.75).max(LEAST_REFRESH_INTERVAL);
        self.refresh_at = Instant::now().checked_add(wait);
    }

    // ---- the end

    async fn end(mut self, end: End) {
        let error = RequestError { reason: end.reason.clone(), ..RequestError::closed() };
        let error = RequestError { code: end.code.unwrap_or(error.code), ..error };
        self.commands.close();
        for (_, entry) in self.channels.drain() {
            entry.end(error.clone(), end.code);
        }
        self.publishes.fail_all(&error);
        self.requests.fail_all(&error);
        self.path.send_replace(None);
        if let Some(Opening { purpose: Purpose::Switch(reply), .. }) = self.opening.take() {
            let _ = reply.send(Err(ConnectError::Closed));
        }
        if let Some(live) = self.live.take() {
            live.close().await;
        }
        if let Some((old, _)) = self.retiring.take() {
            old.close().await;
        }
        self.status.send_replace(Status::Closed { code: end.code, reason: end.reason });
        if let Some(closed) = end.closed {
            let _ = closed.send(());
        }
    }
}

/// The bytes that a subscription takes in `connect`, at most, in either encoding.
fn subscription_size(channel: &Channel, options: &SubscribeOptions) -> usize {
    // JSON may escape `"` and `\` in a name, two bytes for one; the rest is field names and numbers.
    let points = options.position.iter().flat_map(|position| position.iter());
    let position: usize = points.map(|(origin, point)| 2 * (origin.len() + point.epoch.len()) + 64).sum();
    2 * channel.len() + 80 + position
}

/// Closes a connection beside the session.
fn close_aside(old: Live) {
    tokio::spawn(old.close());
}

async fn receive(live: Option<&mut Live>) -> Result<Received, Closed> {
    match live {
        Some(live) => live.receive().await,
        None => pending().await,
    }
}

async fn next<T>(future: Option<&mut BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
