//! The session's task: one connection or, during a move, two; subscriptions, requests, reconnects.

mod answers;
mod clock;
mod connecting;
mod connection;
mod moving;
mod opening;
mod readers;
mod traffic;

use crate::{
    client::{Handle, Path},
    error::{ConnectError, RequestError},
    options::{ClientOptions, TokenError},
    status::Status,
    transport::{Closed, DialOptions, Dialer, Received, TransportKind},
    url::NodeUrl,
};
use answers::Answers;
use clock::Clock;
use connection::Live;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use opening::{Opening, Purpose, Step};
pub(crate) use readers::EventQueue;
use skywave_client_session::{
    Output, Publish, Route, RouteOptions, SubscriptionId, TokenSchedule, Traffic, TrafficOptions,
};
use skywave_protocol::{
    Channel, ClientFrame, CloseCode, Payload, RequestId, ServerFrame,
    frame::{self, Key, Network, SessionId, SubscribeOptions},
};
use std::{borrow::Cow, future::pending, ops::ControlFlow, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

/// While the time of a handshake is taken, the task wakes so often, to know whether it ran all the time.
const PULSE: Duration = Duration::from_millis(500);
/// While it is connected, it wakes so often, to notice that the machine slept.
const WATCH: Duration = Duration::from_secs(5);
/// Who wakes so late was suspended with its process or machine: times that span this say nothing of the network.
const LEAST_SUSPENSION: Duration = Duration::from_millis(500);
/// Commands that wait for the task.
const COMMAND_QUEUE: usize = 256;

/// The longest time that an attempt to connect may take, so that any can be added to a moment.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(86_400);

/// The limit on frames until a node has told its own.
const USUAL_FRAME_LIMIT: u64 = 65_536;

type Reply<T> = oneshot::Sender<Result<T, RequestError>>;
type Outcome = oneshot::Sender<Result<(), ConnectError>>;

/// What the application does.
pub(crate) enum Order {
    /// With its place in the queue.
    Command(Command, OwnedSemaphorePermit),
    /// It has dropped this subscription.
    Forget(Channel, SubscriptionId),
}

/// What the application asks for.
pub(crate) enum Command {
    Subscribe {
        channel: Channel,
        id: SubscriptionId,
        options: SubscribeOptions,
        reader: EventQueue,
        reply: Reply<ServerFrame>,
    },
    Publish {
        channel: Channel,
        data: Payload,
        key: Key,
        reply: Reply<ServerFrame>,
    },
    Emit(frame::Emit),
    Request {
        frame: Box<dyn FnOnce(RequestId) -> ClientFrame + Send>,
        /// How long the reply may take.
        patience: Duration,
        reply: Reply<ServerFrame>,
    },
    /// Brings a newer token, which replaces a fixed one.
    Refresh {
        token: Arc<str>,
        reply: Reply<ServerFrame>,
    },
    Network(Network),
    /// Something may have happened to the connection.
    Check,
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
    Order(Option<Order>),
    Received(Which, Result<Received, Closed>),
    Step(Step),
    /// The reader of this subscription has room again.
    Room(Channel, SubscriptionId),
    Token(Result<Option<Arc<str>>, TokenError>),
    Timer,
}

/// A move that is due; while a connection is on its way, once that has failed.
struct Move {
    at: Instant,
    url: Option<NodeUrl>,
    purpose: Purpose,
}

struct Session {
    options: ClientOptions,
    dialer: Dialer,
    route: Route,
    orders: mpsc::UnboundedReceiver<Order>,
    status: watch::Sender<Status>,
    path: watch::Sender<Option<Path>>,
    /// Who waits for the first session.
    first: Option<Outcome>,
    resume: Option<Arc<str>>,
    /// The last one's public id.
    session: Option<SessionId>,
    traffic: Traffic<EventQueue>,
    answers: Answers,
    clock: Clock,
    live: Option<Live>,
    retiring: Option<(Live, Instant)>,
    opening: Option<Opening>,
    reconnect_at: Option<Instant>,
    /// Whether a node has named that time: it is not to be sooner.
    is_told_when: bool,
    next_move: Option<Move>,
    /// Readers that are waited for.
    rooms: FuturesUnordered<BoxFuture<'static, (Channel, SubscriptionId)>>,
    tokens: TokenSchedule,
    /// The last one that a node took, for when it refuses a newer one.
    taken: Option<Arc<str>>,
    fetching: Option<BoxFuture<'static, Result<Option<Arc<str>>, TokenError>>>,
    /// Failures in a row, for the backoff.
    failures: u32,
    /// Attempts since the last success.
    attempts: u32,
    connects: u64,
    /// Counts every `connect` that was sent: nodes tell by it which transport is the session's newest.
    last_attempt: u64,
    /// When the task last noticed that it was suspended.
    suspended_at: Option<Instant>,
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
    let connect_timeout = options.connect_timeout.min(LONGEST_ATTEMPT);
    let options = ClientOptions { connect_timeout, ..options };
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
    let (orders, order_queue) = mpsc::unbounded_channel();
    let (status, watch_status) = watch::channel(Status::Connecting { attempt: 1 });
    let (path, watch_path) = watch::channel(None);
    let (first, opened) = oneshot::channel();
    let session = Session {
        dialer,
        route: Route::new(RouteOptions {
            urls,
            transport: options.transport,
            head_start: options.head_start,
        }),
        orders: order_queue,
        status,
        path,
        first: Some(first),
        resume: None,
        session: None,
        traffic: Traffic::new(
            TrafficOptions { backoff: options.backoff, publish_queue: options.publish_queue },
            Box::new(rand::random::<f64>),
        ),
        answers: Answers::default(),
        clock: Clock::new(),
        live: None,
        retiring: None,
        opening: None,
        reconnect_at: None,
        is_told_when: false,
        next_move: None,
        rooms: FuturesUnordered::new(),
        tokens: TokenSchedule::default(),
        taken: None,
        fetching: None,
        failures: 0,
        attempts: 0,
        connects: 0,
        last_attempt: 0,
        suspended_at: None,
        frame_limit: USUAL_FRAME_LIMIT,
        options,
    };
    tokio::spawn(session.run());
    Ok((Handle::new(orders, COMMAND_QUEUE), watch_status, watch_path, opened))
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
        self.open(Purpose::Connect, None, None);
        let end = loop {
            let deadline = self.next_deadline();
            let input = self.input(deadline).await;
            let now = Instant::now();
            let slept = self.clock.has_slept();
            if slept || deadline.is_some_and(|deadline| now > deadline + LEAST_SUSPENSION) {
                self.suspended_at = Some(now);
            }
            if slept {
                self.woke();
            }
            let outcome = match self.handle(input) {
                ControlFlow::Continue(()) => self.carry_out(),
                end => end,
            };
            if let ControlFlow::Break(end) = outcome {
                break end;
            }
        };
        self.end(end).await;
    }

    /// Waits for the next thing to do. Nothing is lost when another branch is quicker.
    async fn input(&mut self, deadline: Option<Instant>) -> Input {
        let Self { orders, live, retiring, opening, rooms, fetching, .. } = self;
        tokio::select! {
            received = receive(live.as_mut()) => Input::Received(Which::Live, received),
            received = receive(retiring.as_mut().map(|(live, _)| live)) => Input::Received(Which::Retiring, received),
            order = orders.recv() => Input::Order(order),
            step = next(opening.as_mut().map(|opening| &mut opening.step)) => Input::Step(step),
            Some((channel, id)) = rooms.next() => Input::Room(channel, id),
            token = next(fetching.as_mut()) => Input::Token(token),
            () = until(deadline) => Input::Timer,
        }
    }

    fn handle(&mut self, input: Input) -> ControlFlow<End> {
        match input {
            Input::Order(Some(Order::Command(command, _place))) => return self.command(command),
            Input::Order(Some(Order::Forget(channel, id))) => {
                self.traffic.unsubscribe(&channel, id, self.clock.now());
            }
            Input::Order(None) => {
                return ControlFlow::Break(End { code: None, reason: "dropped".into(), closed: None });
            }
            Input::Received(which, Ok(received)) => return self.received(which, &received),
            Input::Received(Which::Live, Err(closed)) => return self.lost(closed),
            Input::Received(Which::Retiring, Err(_)) => self.retire(),
            Input::Step(step) => return self.step(step),
            Input::Room(channel, id) => self.traffic.resume(&channel, id, self.clock.now()),
            Input::Token(token) => self.refresh(token),
            Input::Timer => return self.timer(),
        }
        ControlFlow::Continue(())
    }

    fn command(&mut self, command: Command) -> ControlFlow<End> {
        match command {
            Command::Close(closed) => {
                return ControlFlow::Break(End { code: None, reason: "closed".into(), closed: Some(closed) });
            }
            Command::Subscribe { channel, id, options, reader, reply } => {
                let waiter = self.answers.wait(reply);
                self.traffic.subscribe(channel, id, options, reader, waiter, self.clock.now());
            }
            Command::Publish { channel, data, key, reply } => {
                let ticket = self.answers.wait(reply);
                self.traffic.publish(Publish { ticket, channel, data, key }, self.clock.now());
            }
            Command::Emit(emit) => self.emit(emit),
            Command::Request { frame, patience, reply } => {
                self.make_room();
                let ticket = self.answers.wait(reply);
                self.traffic.ask(ticket, frame, patience, self.clock.now());
            }
            Command::Refresh { token, reply } => self.bring(token, reply),
            Command::Network(hint) => self.network(hint),
            Command::Check => self.check(),
            Command::Cut => {
                if let Some(live) = &self.live {
                    live.control.cut();
                    return self.lost(Closed::lost("cut"));
                }
            }
            Command::Switch { kind, reply } => self.switch(kind, reply),
        }
        ControlFlow::Continue(())
    }

    // ---- time

    /// Whether what began then has run without a suspension.
    fn ran_since(&self, begun: Instant) -> bool {
        self.suspended_at.is_none_or(|suspended| suspended < begun)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let look = self.live.as_ref().and_then(|live| live.look_at(self.traffic.silent_since()));
        let look = look.map(|at| self.clock.instant(at));
        let now = Instant::now();
        let traffic = self.traffic.deadline().map(|at| self.clock.instant(at));
        let retiring = self.retiring.as_ref().map(|(_, until)| *until);
        let pulse = self.opening.as_ref().map(|_| now + PULSE);
        let watch = self.live.as_ref().map(|_| now + WATCH);
        let next_move = self.next_move.as_ref().filter(|_| self.opening.is_none()).map(|next| next.at);
        [
            look,
            traffic,
            pulse,
            watch,
            retiring,
            self.reconnect_at,
            next_move,
            self.tokens.refresh_at().map(|at| self.clock.instant(at)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn timer(&mut self) -> ControlFlow<End> {
        let now = Instant::now();
        if let Some(live) = &mut self.live {
            live.look(self.traffic.silent_since(), self.clock.now());
        }
        if self.retiring.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.retire();
        }
        if self.tokens.take_due(self.clock.now()) {
            let (tokens, patience) = (self.options.token.clone(), self.options.connect_timeout);
            self.fetching = Some(Box::pin(async move { tokens.token_within(patience).await }));
        }
        if self.opening.is_none() {
            if self.reconnect_at.is_some_and(|at| at <= now) {
                self.open(Purpose::Connect, None, None);
            } else if let Some(due) = self.next_move.take_if(|next| next.at <= now) {
                self.follow(due);
            }
        }
        self.traffic.tick(self.clock.now());
        ControlFlow::Continue(())
    }

    // ---- what the session says

    fn carry_out(&mut self) -> ControlFlow<End> {
        while let Some(output) = self.traffic.poll_output() {
            match output {
                Output::Send { connection, frame, lane } => {
                    if let Some(live) = self.live.as_mut().filter(|live| live.link.connection == connection) {
                        live.write(frame, lane);
                    }
                }
                Output::Answer { ticket, answer } => self.answers.give(ticket, answer),
                Output::Dead { connection } => {
                    if self.live.as_ref().is_some_and(|live| live.link.connection == connection) {
                        self.lost(Closed::lost(CloseCode::HeartbeatTimeout.reason()))?;
                    }
                }
                Output::SeekAnother => self.doubt(),
                Output::AwaitRoom { channel, id } => {
                    if let Some(room) = self.traffic.reader(&channel, id).map(EventQueue::room) {
                        self.rooms.push(Box::pin(room.map(move |()| (channel, id))));
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    // ---- the end

    async fn end(mut self, end: End) {
        let error = RequestError { reason: end.reason.clone(), ..RequestError::closed() };
        let error = RequestError { code: end.code.unwrap_or(error.code), ..error };
        self.orders.close();
        self.traffic.end_all(end.code, &error);
        // It ends anyway.
        let _ = self.carry_out();
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
