//! A session: one task, one `select!` loop over its transport, its outbox, its pending answers and its clock.

pub mod connection;
mod farewell;
mod filling;
mod joining;
mod opening;
mod pending;
mod progress;
mod questions;
mod refusal;
mod renewal;
mod requests;
mod subscriptions;

use crate::{
    auth::{AuthError, Grant},
    broker::ReadFrom,
    claim::Claim,
    hub::outbox::{Outbox, Task},
    limits::{Counted, TokenBucket},
    node::Node,
    registry::quotas::Places,
};
use connection::{Connection, Incoming};
use joining::Joining;
use pending::{Done, Pending};
use progress::{Progress, STALL_TIMEOUT};
use questions::Questions;
use renewal::Renewal;
use skywave_protocol::{
    Channel, ClientFrame, CloseCode, DecodeError, ErrorCode, ServerFrame, Text,
    codec::Unreadable,
    frame::{Error, Ping, RequestId, SessionId},
    heartbeat::{Action, Heartbeat},
};
use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use subscriptions::Subscription;
use tokio::time::{Instant, Sleep};

/// So many bad requests within [`BAD_REQUEST_WINDOW`] end the session.
const MAX_BAD_REQUESTS: u32 = 10;
const BAD_REQUEST_WINDOW: Duration = Duration::from_secs(60);

/// How a transport ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The node ends it, with a code.
    Closed(CloseCode),
    /// Its token is not accepted.
    Refused(AuthError),
    /// The peer went.
    Gone,
    /// The path broke.
    Cut,
}

/// A session on one transport, after `connect`.
struct Session<C> {
    node: Arc<Node>,
    connection: C,
    outbox: Arc<Outbox>,
    id: SessionId,
    /// Tells its transports apart.
    claim: Claim,
    grant: Grant,
    subscriptions: HashMap<Channel, Subscription>,
    /// Channels that count as subscribed to, but are not answered yet.
    joining: HashMap<Channel, Joining>,
    /// Those of them whose history, or who is there, waits for its turn to be read.
    unread: VecDeque<(Channel, ReadFrom)>,
    /// What those that are being read take of what may be.
    reads: usize,
    pending: Pending,
    questions: Questions,
    /// How many of those that are pending fill a lane.
    fills: filling::Fills,
    requests: TokenBucket,
    publishes: TokenBucket,
    heartbeat: Heartbeat,
    /// What the client last said of its network.
    network_kind: Option<Text<32>>,
    bad_requests: BadRequests,
    progress: Progress,
    renewal: Renewal,
    places: Places,
    served: Counted,
}

/// Runs a session on an established transport until it ends.
///
/// How it begins and how it ends is boxed, and so is the session: an idle one carries no room for either.
pub fn serve<C: Connection>(node: Arc<Node>, connection: C) -> impl Future<Output = ()> + Send {
    let beginning = Box::pin(begin(node.clone(), connection));
    async move {
        let _counted = node.sessions.transports.enter();
        let code = match beginning.await {
            Ok(mut session) => {
                let end = session.run().await;
                Box::pin(session.end(end)).await
            }
            Err(code) => code,
        };
        node.metrics.sessions_closed.with_label_values(&[&code]).inc();
    }
}

/// A session that is open, or the reason with which its transport was closed.
async fn begin<C: Connection>(node: Arc<Node>, mut connection: C) -> Result<Box<Session<C>>, String> {
    let outbox = Arc::new(Outbox::new(connection.form(), node.config.limits.outbox_bytes));
    match opening::open(&node, &mut connection, &outbox).await {
        Ok(opened) => {
            node.metrics.sessions.with_label_values(&[connection.transport()]).inc();
            Ok(Box::new(Session::new(node, connection, outbox, opened)))
        }
        Err(end) => {
            node.metrics.handshakes_refused.with_label_values(&[end.reason()]).inc();
            Err(finish(&node, connection, &outbox, end).await)
        }
    }
}

async fn finish<C: Connection>(node: &Node, connection: C, outbox: &Outbox, end: End) -> String {
    let disconnect = match end {
        End::Closed(code) => farewell::farewell(node, code),
        End::Refused(error) => farewell::refusal(node, error),
        End::Gone | End::Cut => return end.reason().to_owned(),
    };
    outbox.end(disconnect.clone());
    let code = disconnect.code;
    connection.close(outbox, disconnect).await;
    code.to_string()
}

fn count(node: &Node, transport: &str, outbox: &Outbox) {
    let counts = outbox.take_counts();
    node.metrics.frames_sent.with_label_values(&[transport]).inc_by(counts.frames_sent);
    node.metrics.events_conflated.inc_by(counts.events_conflated);
    node.metrics.events_dropped.inc_by(counts.events_dropped);
    node.metrics.queues_dropped.inc_by(counts.queues_dropped);
}

impl End {
    fn reason(self) -> &'static str {
        match self {
            Self::Closed(code) => code.reason(),
            Self::Refused(error) => error.close_code().reason(),
            Self::Gone => "gone",
            Self::Cut => "cut",
        }
    }
}

impl<C: Connection> Session<C> {
    fn new(node: Arc<Node>, connection: C, outbox: Arc<Outbox>, opened: opening::Opened) -> Self {
        let now = Instant::now();
        let limits = &node.config.limits;
        let mut session = Self {
            requests: TokenBucket::new(limits.requests_per_second, now),
            publishes: TokenBucket::new(limits.publishes_per_second, now),
            bad_requests: BadRequests { count: 0, since: now },
            progress: Progress::new(now.into_std()),
            renewal: Renewal::new(node.host.clock.now()),
            pending: Pending::new(limits.outbox_bytes),
            questions: Questions::default(),
            node,
            connection,
            outbox,
            id: opened.id,
            claim: opened.claim,
            grant: opened.grant,
            subscriptions: HashMap::new(),
            joining: HashMap::new(),
            unread: VecDeque::new(),
            reads: 0,
            fills: filling::Fills::default(),
            heartbeat: opened.heartbeat,
            network_kind: opened.network_kind,
            places: opened.places,
            served: opened.served,
        };
        session.refuse_all(opened.refused);
        session.join_all(opened.wanted);
        session
    }

    /// Gives back what the session had, and closes its transport. Answers the reason.
    async fn end(self: Box<Self>, end: End) -> String {
        let now = Instant::now().into_std();
        let memory = match end {
            End::Cut => self.heartbeat.memory_of_cut(now),
            End::Closed(_) | End::Refused(_) | End::Gone => self.heartbeat.memory(now),
        };
        let Self { node, connection, outbox, id, subscriptions, joining, pending, places, served, .. } =
            *self;
        let transport = connection.transport();
        node.sessions.path_memories.keep(id.clone(), transport, memory);
        // Others are told as soon as the session is over, not when its transport has closed.
        node.metrics.subscriptions.sub(subscriptions.len() as i64);
        drop((subscriptions, joining, pending, places));
        if let Some(attached) = node.sessions.detach(&id, &outbox) {
            node.cluster.fencing.release(&id, &attached);
        }
        count(&node, transport, &outbox);
        node.metrics.sessions.with_label_values(&[transport]).dec();
        tracing::debug!(session = %id, ?end, "session left its transport");
        let code = finish(&node, connection, &outbox, end).await;
        drop(served);
        code
    }

    async fn run(&mut self) -> End {
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            match self.beat() {
                Ok(wake_at) => set_timer(timer.as_mut(), wake_at),
                Err(code) => return End::Closed(code),
            }
            let (fills, broker) = (&self.fills, &*self.node.broker);
            let has_room = fills.has_room(broker);
            let may_fill = |channel: &Channel| has_room && fills.may_begin(channel, broker);
            let (asks, reads) = (self.questions.is_due(), self.is_read_due());
            tokio::select! {
                // An end that was asked for comes before more traffic.
                biased;
                due = poll_fn(|context| poll_due(&self.outbox, context, may_fill, (asks, reads))) => match due {
                    Due::Task(Task::Close(code)) => return End::Closed(code),
                    Due::Task(Task::Fill(lane)) => self.start_filling(lane),
                    Due::Read => self.read_in_turn(),
                    Due::Answer => if let Err(code) = self.begin_answer() {
                        return End::Closed(code);
                    },
                },
                Some(done) = self.pending.next(), if !self.pending.is_empty() => {
                    if let Err(code) = self.finish(done) {
                        return End::Closed(code);
                    }
                }
                incoming = self.connection.drive(&self.outbox) => {
                    if let Err(end) = self.incoming(incoming) {
                        return end;
                    }
                }
                () = timer.as_mut() => {}
            }
        }
    }

    /// Takes what came of work.
    fn finish(&mut self, done: Done) -> Result<(), CloseCode> {
        match done {
            Done::Reply(reply) => self.send(&reply),
            Done::Answered(reply) => {
                self.questions.answered();
                self.send(&reply);
            }
            Done::Refreshed(id, verified) => self.finish_refresh(id, verified),
            Done::Read(filling) => self.finish_filling(filling),
            Done::Joined(joined) => return self.finish_joining(joined),
        }
        Ok(())
    }

    /// Does what the clock asks for. Answers when it has to be asked again, at the latest.
    fn beat(&mut self) -> Result<Instant, CloseCode> {
        let (now, date) = (Instant::now().into_std(), self.node.host.clock.now());
        if self.grant.expires_at.is_some_and(|at| at <= date) {
            return Err(CloseCode::TokenExpired);
        }
        self.renew(date);
        let flow = self.connection.flow();
        if let Some(at) = flow.last_sent {
            self.heartbeat.sent(at);
        }
        if let Some(at) = flow.last_taken {
            self.heartbeat.taken(at);
        }
        let stalls_at = self.progress.stalls_at(flow, self.outbox.control_bytes(), now);
        if stalls_at <= now {
            return Err(CloseCode::SlowConsumer);
        }
        // The date may jump: it is looked at now and then, whatever else there is to wait for.
        let next = self.heartbeats_at(now)?.min(stalls_at).min(now + STALL_TIMEOUT);
        let next = Instant::from_std(next);
        Ok(match self.grant.expires_at {
            Some(at) => next.min(Instant::now() + at.duration_since(date).unwrap_or_default()),
            None => next,
        })
    }

    /// Pings when that is due. Answers when it is due again.
    fn heartbeats_at(&mut self, now: std::time::Instant) -> Result<std::time::Instant, CloseCode> {
        if !self.outbox.takes_requests() {
            // Nothing of the peer is read, its beats neither. Whether it lives, what it takes will tell.
            return Ok(now + STALL_TIMEOUT);
        }
        loop {
            match self.heartbeat.poll(now) {
                Action::Wait(at) => return Ok(at),
                Action::Ping { seq } => self.ping(seq),
                Action::Dead if self.outbox.bytes() > 0 => return Err(CloseCode::SlowConsumer),
                Action::Dead => return Err(CloseCode::HeartbeatTimeout),
            }
        }
    }

    fn ping(&mut self, seq: u32) {
        if let Some(rtt) = self.connection.rtt() {
            self.sample_rtt(rtt);
            self.heartbeat.rtt_sample(rtt);
        }
        count(&self.node, self.connection.transport(), &self.outbox);
        let schedule = self.heartbeat.schedule();
        let ping = ServerFrame::Ping(Ping {
            seq,
            interval_ms: schedule.interval.as_millis() as u64,
            timeout_ms: schedule.timeout.as_millis() as u64,
        });
        self.outbox.latest(&ping);
        self.node.metrics.pings.with_label_values(&[self.connection.transport()]).inc();
    }

    fn sample_rtt(&self, rtt: Duration) {
        let transport = self.connection.transport();
        self.node.metrics.session_rtt.with_label_values(&[transport]).observe(rtt.as_secs_f64());
    }

    fn incoming(&mut self, incoming: Incoming) -> Result<(), End> {
        let now = Instant::now().into_std();
        match incoming {
            Incoming::Frame(frame) => {
                self.received(now);
                self.frame(frame).map_err(End::Closed)
            }
            Incoming::Unreadable(Unreadable { error, .. }) => {
                self.received(now);
                match error {
                    DecodeError::Malformed(_) => Err(End::Closed(CloseCode::BadFrame)),
                    error => self.bad_request(error.id(), error.to_string()).map_err(End::Closed),
                }
            }
            Incoming::Alive => {
                self.heartbeat.received(now);
                Ok(())
            }
            Incoming::Moved(address) => {
                tracing::debug!(session = %self.id, %address, "the session goes on from another address");
                self.node.metrics.address_changes.inc();
                self.node.sessions.moved(&self.id, self.claim.number, address);
                self.places.moved(&self.node.sessions.quotas, address.ip());
                self.heartbeat.path_changed(now);
                Ok(())
            }
            Incoming::Broken(code) => Err(End::Closed(code)),
            Incoming::Gone => Err(End::Gone),
            Incoming::Cut => Err(End::Cut),
        }
    }

    fn received(&mut self, now: std::time::Instant) {
        self.heartbeat.received(now);
        self.node.metrics.frames_received.with_label_values(&[self.connection.transport()]).inc();
    }

    fn frame(&mut self, frame: ClientFrame) -> Result<(), CloseCode> {
        match frame {
            ClientFrame::Pong(pong) => {
                if let Some(rtt) = self.heartbeat.pong(pong.seq, Instant::now().into_std())
                    && self.connection.rtt().is_none()
                {
                    self.sample_rtt(rtt);
                }
                Ok(())
            }
            frame => self.request(frame),
        }
    }

    /// Answers a frame that makes no sense; the tenth within a minute ends the session.
    fn bad_request(&mut self, id: Option<RequestId>, message: String) -> Result<(), CloseCode> {
        self.fail(Error::new(id, ErrorCode::BadRequest, message));
        if self.bad_requests.is_too_many(Instant::now()) {
            return Err(CloseCode::BadFrame);
        }
        Ok(())
    }

    fn send(&self, frame: &ServerFrame) {
        if let ServerFrame::Error(error) = frame {
            self.node.metrics.errors.with_label_values(&[&error.reason]).inc();
        }
        self.outbox.control(frame);
    }

    fn fail(&self, error: Error) {
        self.send(&ServerFrame::Error(error));
    }
}

/// What is to be done now, before anything is read.
enum Due {
    Task(Task),
    /// Begin to answer the next question.
    Answer,
    /// Begin to read channels that are joined.
    Read,
}

/// A question, or a channel to be read, is due only while the peer reads its answers.
fn poll_due(
    outbox: &Outbox,
    context: &Context<'_>,
    may_fill: impl Fn(&Channel) -> bool,
    (asks, reads): (bool, bool),
) -> Poll<Due> {
    match outbox.poll_task(context, may_fill) {
        Poll::Pending if reads && !outbox.is_clogged() => Poll::Ready(Due::Read),
        Poll::Pending if asks && !outbox.is_clogged() => Poll::Ready(Due::Answer),
        task => task.map(Due::Task),
    }
}

/// Sets the timer only when it has to ring earlier, or rang: most frames leave it alone.
fn set_timer(timer: std::pin::Pin<&mut Sleep>, wake_at: Instant) {
    if timer.is_elapsed() || timer.deadline() > wake_at {
        timer.reset(wake_at);
    }
}

/// Counts bad requests within the current window.
struct BadRequests {
    count: u32,
    since: Instant,
}

impl BadRequests {
    fn is_too_many(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) > BAD_REQUEST_WINDOW {
            *self = Self { count: 0, since: now };
        }
        self.count += 1;
        self.count >= MAX_BAD_REQUESTS
    }
}
