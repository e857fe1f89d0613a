//! The engine of a session, one task: it dials, reads and writes, keeps the clock and the queues, and does what the
//! session says.

mod answers;
mod clock;
mod dialing;
mod path;
mod wire;

use crate::{
    error::{ConnectError, TokenError},
    options::ClientOptions,
    orders::{Command, Handle, Order, Outcome, Reply},
    readers::EventQueue,
    transport::{Closed, DialOptions, Dialer, Lane, Received, Via},
    url::NodeUrl,
};
use answers::Answers;
use clock::Clock;
use dialing::Reached;
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, select_all},
    stream::FuturesUnordered,
};
pub(crate) use path::Path;
use skywave_client_session::{
    ConnectionId, Dialed, Output, Publish, RouteOptions, Session, SessionOptions, Status, SubscriptionId,
    Surroundings, Ticket, TrafficOptions,
};
use skywave_protocol::{
    Channel, ClientFrame, ServerFrame, Text,
    frame::{self, ClientInfo},
};
use std::{
    borrow::Cow,
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use wire::Wire;

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

/// What the task wakes up for.
enum Input {
    Order(Option<Order>),
    Received(ConnectionId, Result<Received, Closed>),
    Dialed(Result<Reached, ConnectError>),
    /// The reader of this subscription has room again.
    Room(Channel, SubscriptionId),
    Token(Result<Option<Arc<str>>, TokenError>),
    Timer,
}

struct Task {
    options: ClientOptions,
    dialer: Dialer,
    session: Session<EventQueue>,
    orders: mpsc::UnboundedReceiver<Order>,
    status: watch::Sender<Status>,
    path: watch::Sender<Option<Path>>,
    /// Who waits for the first session.
    first: Option<Outcome>,
    /// Who waits for another transport.
    switching: Option<Outcome>,
    /// Told once all is closed.
    closed: Option<oneshot::Sender<()>>,
    answers: Answers,
    clock: Clock,
    wires: Vec<Wire>,
    /// Wires that are being closed.
    closing: JoinSet<()>,
    dialing: Option<(ConnectionId, BoxFuture<'static, Result<Reached, ConnectError>>)>,
    /// Readers that are waited for.
    rooms: FuturesUnordered<BoxFuture<'static, (Channel, SubscriptionId)>>,
    fetching: Option<BoxFuture<'static, Result<Option<Arc<str>>, TokenError>>>,
    /// When the task last noticed that it was suspended.
    suspended_at: Option<Instant>,
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
    let session = Session::new(session_options(&options)?, surroundings(&options));
    let dialer = Dialer::new(DialOptions {
        encoding: options.encoding,
        http2: options.http2,
        certificate: options.certificate.clone(),
        headers: options.headers.clone(),
    })
    .map_err(|error| ConnectError::Tls(Arc::new(error)))?;
    let (orders, order_queue) = mpsc::unbounded_channel();
    let (status, watch_status) = watch::channel(Status::Connecting { attempt: 1 });
    let (path, watch_path) = watch::channel(None);
    let (first, opened) = oneshot::channel();
    let task = Task {
        options,
        dialer,
        session,
        orders: order_queue,
        status,
        path,
        first: Some(first),
        switching: None,
        closed: None,
        answers: Answers::default(),
        clock: Clock::new(),
        wires: Vec::new(),
        closing: JoinSet::new(),
        dialing: None,
        rooms: FuturesUnordered::new(),
        fetching: None,
        suspended_at: None,
    };
    tokio::spawn(task.run());
    Ok((Handle::new(orders, COMMAND_QUEUE), watch_status, watch_path, opened))
}

fn session_options(options: &ClientOptions) -> Result<SessionOptions, ConnectError> {
    let mut urls = Vec::new();
    for url in &options.urls {
        let parsed: NodeUrl =
            url.parse().map_err(|error| ConnectError::InvalidUrl { url: url.clone(), error })?;
        options.certificate.permits(&parsed).map_err(|error| ConnectError::Tls(Arc::new(error)))?;
        urls.push(parsed);
    }
    if urls.is_empty() {
        return Err(ConnectError::NoUrl);
    }
    let named = |text: &str| Text::new(text).ok();
    Ok(SessionOptions {
        route: RouteOptions { urls, transport: options.transport, head_start: options.head_start },
        traffic: TrafficOptions { backoff: options.backoff, publish_queue: options.publish_queue },
        connect_timeout: options.connect_timeout,
        tokens: options.token.known(),
        client: named(&options.name).map(|name| ClientInfo { name, version: named(&options.version) }),
        network: options.network.clone(),
    })
}

fn surroundings(options: &ClientOptions) -> Surroundings {
    let certificate = options.certificate.clone();
    Surroundings {
        chance: Box::new(rand::random::<f64>),
        today: Box::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
        permits: Box::new(move |url| certificate.permits(url).is_ok()),
    }
}

impl Task {
    async fn run(mut self) {
        self.session.begin(self.clock.now());
        let end = loop {
            if let Some(end) = self.carry_out() {
                break end;
            }
            let deadline = self.next_deadline();
            let input = self.input(deadline).await;
            let now = Instant::now();
            let slept = self.clock.has_slept();
            if slept || deadline.is_some_and(|deadline| now > deadline + LEAST_SUSPENSION) {
                self.suspended_at = Some(now);
            }
            if slept {
                self.session.woke(self.clock.now());
            }
            self.handle(input);
        };
        self.end(end).await;
    }

    /// Waits for the next thing to do. Nothing is lost when another branch is quicker.
    async fn input(&mut self, deadline: Option<Instant>) -> Input {
        let Self { orders, wires, dialing, rooms, fetching, .. } = self;
        tokio::select! {
            (connection, received) = receive(wires) => Input::Received(connection, received),
            order = orders.recv() => Input::Order(order),
            reached = next(dialing.as_mut().map(|(_, dialing)| dialing)) => Input::Dialed(reached),
            Some((channel, id)) = rooms.next() => Input::Room(channel, id),
            token = next(fetching.as_mut()) => Input::Token(token),
            () = until(deadline) => Input::Timer,
        }
    }

    fn handle(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Order(Some(Order::Command(command, _place))) => self.command(command),
            Input::Order(Some(Order::Forget(channel, id))) => {
                self.session.traffic().unsubscribe(&channel, id, now);
            }
            Input::Order(None) => self.session.close("dropped"),
            Input::Received(connection, received) => self.received(connection, received),
            Input::Dialed(reached) => self.dialed(reached),
            Input::Room(channel, id) => self.session.traffic().resume(&channel, id, now),
            Input::Token(token) => {
                self.fetching = None;
                self.session.fetched(token, now);
            }
            Input::Timer => {
                let silent_since = self.session.silent_since();
                if let Some(wire) = self.live() {
                    wire.look(silent_since, now);
                }
                self.session.tick(now);
            }
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Close(closed) => {
                self.closed = Some(closed);
                self.session.close("closed");
            }
            Command::Subscribe { channel, id, options, reader, reply } => {
                let waiter = self.answers.wait(reply);
                self.session.traffic().subscribe(channel, id, options, reader, waiter, now);
            }
            Command::Publish { channel, data, key, reply } => {
                let ticket = self.answers.wait(reply);
                self.session.traffic().publish(Publish { ticket, channel, data, key }, now);
            }
            Command::Emit(emit) => self.emit(emit),
            Command::Request { frame, patience, reply } => {
                let ticket = self.ticket(reply);
                self.session.traffic().ask(ticket, frame, patience, now);
            }
            Command::Refresh { token, reply } => {
                let ticket = self.ticket(reply);
                self.session.bring(ticket, token, now);
            }
            Command::Network(hint) => self.session.network(hint),
            Command::Check => self.session.check(now),
            Command::Cut => {
                if let Some(wire) = self.live() {
                    wire.path.control.cut();
                    let connection = wire.connection;
                    self.session.ended(connection, None, "cut", now);
                }
            }
            Command::Switch { kind, reply } => match self.session.switch(kind, now) {
                Ok(()) => self.switching = Some(reply),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            },
        }
    }

    /// A ticket for a question. Where as many wait as may, those whom nobody waits for any more make room.
    fn ticket(&mut self, reply: Reply<ServerFrame>) -> Ticket {
        if !self.session.traffic().may_ask() {
            for ticket in self.answers.take_gone() {
                self.session.traffic().forget(ticket);
            }
        }
        self.answers.wait(reply)
    }

    fn emit(&mut self, emit: frame::Emit) {
        if self.live().is_some_and(|wire| !wire.is_congested())
            && let Err(error) = self.session.traffic().say(&ClientFrame::Emit(emit), Lane::Datagram)
        {
            tracing::warn!(%error, "a frame was not sent");
        }
    }

    // ---- connections

    fn wire(&mut self, connection: ConnectionId) -> Option<&mut Wire> {
        self.wires.iter_mut().find(|wire| wire.connection == connection)
    }

    /// The one that carries the session.
    fn live(&mut self) -> Option<&mut Wire> {
        let connection = self.session.live()?;
        self.wire(connection)
    }

    fn dialed(&mut self, reached: Result<Reached, ConnectError>) {
        let Some((connection, _)) = self.dialing.take() else { return };
        let dialed = reached.map(|Reached { winner, token }| {
            let (kind, encoding) = (winner.value.kind, winner.value.encoding);
            let ran = self.suspended_at.is_none_or(|suspended| suspended < winner.begun);
            let took = Some(winner.took).filter(|_| ran);
            self.wires.push(Wire::new(connection, winner.value));
            Dialed { index: winner.index, kind, encoding, took, failed: winner.failed, token }
        });
        self.session.dialed(connection, dialed, self.clock.now());
    }

    fn received(&mut self, connection: ConnectionId, received: Result<Received, Closed>) {
        let now = self.clock.now();
        match received {
            Ok(Received { frame, via }) => {
                if let Some(wire) = self.wire(connection) {
                    wire.heard();
                }
                let stream = match via {
                    Via::Stream(id) => Some(id),
                    Via::Control | Via::Datagram | Via::WebSocket => None,
                };
                self.session.received(connection, &frame, stream, now);
                if let Some(took) = self.session.traffic().round_trip()
                    && let Some(wire) = self.live()
                {
                    wire.path.replied(took);
                }
            }
            Err(Closed { code, reason }) => {
                self.wires.retain(|wire| wire.connection != connection);
                self.session.ended(connection, code, &reason, now);
            }
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        self.dialing.take_if(|(dialing, _)| *dialing == connection);
        for wire in self.wires.extract_if(.., |wire| wire.connection == connection) {
            self.closing.spawn(wire.close());
        }
    }

    // ---- time

    fn next_deadline(&mut self) -> Option<Instant> {
        let silent_since = self.session.silent_since();
        let look = self.live().and_then(|wire| wire.look_at(silent_since));
        let due =
            [look, self.session.deadline()].into_iter().flatten().min().map(|at| self.clock.instant(at));
        let now = Instant::now();
        let pulse = self.dialing.as_ref().map(|_| now + PULSE);
        let watch = self.session.live().map(|_| now + WATCH);
        [due, pulse, watch].into_iter().flatten().min()
    }

    // ---- what the session says

    /// Does what it says; answers why it is over, once it is.
    fn carry_out(&mut self) -> Option<(Option<u16>, Cow<'static, str>)> {
        while self.closing.try_join_next().is_some() {}
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send { connection, frame, lane } => {
                    if let Some(wire) = self.wire(connection) {
                        wire.write(frame, lane);
                    }
                }
                Output::Dial(dial) => {
                    let (dialer, tokens) = (self.dialer.clone(), self.options.token.clone());
                    self.dialing = Some((dial.connection, dialing::dial(dialer, tokens, dial)));
                }
                Output::Close { connection } => self.close(connection),
                Output::FetchToken => {
                    let (tokens, patience) = (self.options.token.clone(), self.options.connect_timeout);
                    self.fetching = Some(Box::pin(async move { tokens.token_within(patience).await }));
                }
                Output::Carry(carrier) => {
                    let wire = carrier.and_then(|connection| self.wire(connection));
                    let path = wire.map(|wire| wire.path.clone());
                    self.path.send_replace(path);
                }
                Output::Status(status) => {
                    self.status.send_replace(status);
                }
                Output::Expires(expires_at_ms) => self.expires(expires_at_ms),
                Output::Opened(outcome) => answer(self.first.take(), outcome),
                Output::Switched(outcome) => answer(self.switching.take(), outcome),
                Output::Answer { ticket, answer } => self.answers.give(ticket, answer),
                Output::AwaitRoom { channel, id } => {
                    if let Some(room) = self.session.traffic().reader(&channel, id).map(EventQueue::room) {
                        self.rooms.push(Box::pin(room.map(move |()| (channel, id))));
                    }
                }
                Output::End { code, reason } => return Some((code, reason)),
            }
        }
        None
    }

    /// For whoever looks; it is no change that has to be told.
    fn expires(&self, expires_at_ms: Option<u64>) {
        self.status.send_if_modified(|status| {
            if let Status::Connected(connected) = status {
                Arc::make_mut(connected).expires_at_ms = expires_at_ms;
            }
            false
        });
    }

    async fn end(mut self, (code, reason): (Option<u16>, Cow<'static, str>)) {
        self.orders.close();
        while self.closing.join_next().await.is_some() {}
        self.status.send_replace(Status::Closed { code, reason });
        if let Some(closed) = self.closed {
            let _ = closed.send(());
        }
    }
}

/// Tells whoever waits, unless nobody does any more.
fn answer(waiter: Option<Outcome>, outcome: Result<(), ConnectError>) {
    if let Some(waiter) = waiter {
        let _ = waiter.send(outcome);
    }
}

/// The next that comes on any of them.
async fn receive(wires: &mut [Wire]) -> (ConnectionId, Result<Received, Closed>) {
    match wires {
        [] => pending().await,
        [wire] => (wire.connection, wire.receive().await),
        wires => {
            let each =
                wires.iter_mut().map(|wire| Box::pin(async { (wire.connection, wire.receive().await) }));
            select_all(each).await.0
        }
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
