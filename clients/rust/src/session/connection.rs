//! One connection that carries the session: its writer, its heartbeat.

use crate::{
    error::RequestError,
    transport::{Closed, Connection, Control, Lane, Received, Receiver, Sender, TransportKind},
    url::NodeUrl,
};
use skywave_client_session::Link;
use skywave_protocol::{
    ClientFrame,
    codec::EncodedFrame,
    frame::{Connected, Disconnect, Heartbeat, Ping},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};

/// Frames that the writer's task holds.
const WRITER_QUEUE: usize = 64;
/// Frames that wait for the writer before events are dropped.
const MAX_WAITING_EVENTS: usize = 1024;
/// A connection that held so long was a good one: the next failure begins with the shortest wait.
const STABLE: Duration = Duration::from_secs(5);
/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The least time without a word after which a connection counts as dead, whatever the node says.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// The longest time without a word, in case a node says something absurd.
const MOST_PATIENCE: Duration = Duration::from_secs(86_400);
/// When a request has been sent and nothing was heard since for so long, the node's port is looked at.
const DOUBT: Duration = Duration::from_secs(1);
/// How long it is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// The least time without a word after which a node that owes a reply is asked for one, and then another connection is
/// opened beside its own; more where the heartbeat says that the path needs it.
const LEAST_DOUBT: Duration = Duration::from_secs(1);
/// What a connection gets on top when its time is over.
const LAST_CHANCE: Duration = Duration::from_millis(100);

type Outgoing = (EncodedFrame, Lane);

/// How far a node is doubted that owes a reply and says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// It was asked for a sign of life then.
    Asked(Instant),
    /// So it was, and another connection is sought.
    Elsewhere(Instant),
}

/// What a doubt asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubted {
    AskNode,
    SeekAnother,
}

/// A connection on which `connected` has come. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Live {
    /// What it is to the session.
    pub link: Link,
    /// That of its `connect`.
    pub attempt: u64,
    pub url: NodeUrl,
    pub kind: TransportKind,
    pub control: Control,
    /// When it will have held for so long that it was a good one.
    steady_at: Instant,
    /// What the node directs is not followed sooner.
    pub stays_until: Instant,
    /// The node's last word, once it came.
    pub disconnect: Option<Disconnect>,
    /// Smoothed time from request to reply, in microseconds; 0: none yet.
    pub reply_time_us: Arc<AtomicU64>,
    heartbeat: Heartbeat,
    heard: Instant,
    /// Of the node's last ping.
    last_seq: Option<u32>,
    /// Whether a sign of life was sent since something was heard.
    nudged: bool,
    /// The first request since something was heard, or when that was while a reply is outstanding.
    asked: Option<Instant>,
    /// Whether the node's port has been looked at since something was heard.
    looked: bool,
    /// How far it is doubted since something was heard.
    doubt: Doubt,
    /// Ends when the node's port turns out to be closed, or when it was looked at for long enough.
    looking: JoinSet<bool>,
    /// Nothing came in time, or the machine slept: until when it may still come.
    last_chance: Option<Instant>,
    receiver: Receiver,
    waiting: VecDeque<Outgoing>,
    writer: mpsc::Sender<Outgoing>,
    writing: JoinHandle<()>,
}

impl Live {
    pub fn new(
        link: Link,
        attempt: u64,
        url: NodeUrl,
        connection: Connection,
        connected: &Connected,
    ) -> Self {
        let Connection { kind, sender, receiver, control, .. } = connection;
        let (writer, queue) = mpsc::channel(WRITER_QUEUE);
        let now = Instant::now();
        Self {
            link,
            attempt,
            url,
            kind,
            control,
            steady_at: now + STABLE,
            stays_until: now,
            disconnect: None,
            reply_time_us: Arc::default(),
            heartbeat: connected.heartbeat,
            heard: now,
            last_seq: None,
            nudged: false,
            asked: None,
            looked: false,
            doubt: Doubt::None,
            looking: JoinSet::new(),
            last_chance: None,
            receiver,
            waiting: VecDeque::new(),
            writer,
            writing: tokio::spawn(write(sender, queue)),
        }
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// `bad_request` when it is larger than the node takes; it would end the session.
    pub fn send(&mut self, frame: &ClientFrame, lane: Lane) -> Result<(), RequestError> {
        self.write(self.link.encode(frame)?, lane);
        Ok(())
    }

    /// Queues a frame that is encoded for it.
    pub fn write(&mut self, frame: EncodedFrame, lane: Lane) {
        if lane == Lane::Reliable {
            self.asked.get_or_insert_with(Instant::now);
        }
        let outgoing = (frame, lane);
        if self.waiting.is_empty() {
            match self.writer.try_send(outgoing) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(outgoing)) => self.waiting.push_back(outgoing),
            }
        } else {
            self.waiting.push_back(outgoing);
        }
    }

    /// Queues what has no reply that anybody waits for.
    pub fn send_or_log(&mut self, frame: &ClientFrame, lane: Lane) {
        if let Err(error) = self.send(frame, lane) {
            tracing::warn!(%error, "a frame was not sent");
        }
    }

    /// Whether so much waits to be written that events are better dropped.
    pub fn is_congested(&self) -> bool {
        self.waiting.len() >= MAX_WAITING_EVENTS
    }

    /// The next frame; writes on meanwhile. Cancel-safe.
    pub async fn receive(&mut self) -> Result<Received, Closed> {
        while !self.waiting.is_empty() || !self.looking.is_empty() {
            tokio::select! {
                received = self.receiver.receive() => return received,
                Some(Ok(true)) = self.looking.join_next() => return Err(Closed::lost("nothing listens there any more")),
                permit = self.writer.reserve(), if !self.waiting.is_empty() => match (permit, self.waiting.pop_front()) {
                    (Ok(permit), Some(outgoing)) => permit.send(outgoing),
                    // The writer failed; the receiver will tell why.
                    _ => self.waiting.clear(),
                },
            }
        }
        self.receiver.receive().await
    }

    /// Whether it has held for so long that it was a good one.
    pub fn is_steady(&self) -> bool {
        Instant::now() >= self.steady_at
    }

    /// Is not left for so long by the node's word alone; what it is held for is not its merit.
    pub fn stay(&mut self, pace: Duration) {
        self.steady_at += pace;
        self.stays_until = Instant::now() + pace;
    }

    pub fn heard(&mut self) {
        self.heard = Instant::now();
        self.asked = None;
        self.looked = false;
        self.doubt = Doubt::None;
        self.last_chance = None;
        self.nudged = false;
    }

    /// Something was heard, and a reply is still outstanding: the node may have gone right after it.
    pub fn owes(&mut self) {
        self.asked = Some(self.heard);
    }

    /// When to look whether the node's port is closed: a WebTransport session is told by nobody that it is.
    pub fn look_at(&self) -> Option<Instant> {
        let due = self.kind == TransportKind::WebTransport && !self.looked && self.looking.is_empty();
        self.asked.filter(|_| due).map(|asked| asked + DOUBT)
    }

    /// Looks, if that is due.
    pub fn look(&mut self, now: Instant) {
        if self.look_at().is_some_and(|at| at <= now) {
            self.looked = true;
            let control = self.control.clone();
            let looking = async move { timeout(LOOK, control.refused()).await.is_ok() };
            self.looking.spawn(looking);
        }
    }

    /// When something has to be done because it owes a reply and says nothing; it is not doubted before `earliest`.
    pub fn doubt_at(&self, earliest: Instant) -> Option<Instant> {
        let patience = (self.timeout() / 4).max(LEAST_DOUBT);
        match self.doubt {
            Doubt::None => self.asked.map(|asked| (asked + patience).max(earliest)),
            Doubt::Asked(at) => Some(at + patience),
            Doubt::Elsewhere(_) => None,
        }
    }

    /// What has to be done, if that is due: each once in every silence.
    pub fn doubted(&mut self, earliest: Instant, now: Instant) -> Option<Doubted> {
        self.doubt_at(earliest).filter(|at| *at <= now)?;
        match self.doubt {
            Doubt::None => {
                self.doubt = Doubt::Asked(now);
                Some(Doubted::AskNode)
            }
            Doubt::Asked(at) => {
                self.doubt = Doubt::Elsewhere(at);
                Some(Doubted::SeekAnother)
            }
            Doubt::Elsewhere(_) => None,
        }
    }

    /// Whether another connection is sought because of its silence.
    pub fn is_doubted(&self) -> bool {
        matches!(self.doubt, Doubt::Elsewhere(_))
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.heartbeat.timeout_ms).min(MOST_PATIENCE)
    }

    /// Takes the heartbeat's times from a ping.
    pub fn pinged(&mut self, ping: Ping) {
        self.heartbeat = Heartbeat { interval_ms: ping.interval_ms, timeout_ms: ping.timeout_ms };
        self.last_seq = Some(ping.seq);
    }

    /// When to send a `pong` that nobody asked for, so that a NAT which forgot this UDP path learns it again and
    /// the node's next probe comes through: half of the time-out before the connection counts as dead.
    pub fn nudge_at(&self) -> Option<Instant> {
        if self.nudged || self.kind != TransportKind::WebTransport {
            return None;
        }
        self.last_seq?;
        let silence = self.heartbeat.interval_ms.saturating_add(self.heartbeat.timeout_ms / 2);
        Some(self.heard + Duration::from_millis(silence).min(MOST_PATIENCE))
    }

    /// The sequence number to nudge the path with, if that is due.
    pub fn nudge(&mut self, now: Instant) -> Option<u32> {
        if self.nudge_at()? > now {
            return None;
        }
        self.nudged = true;
        self.last_seq
    }

    /// The machine slept, and the clock that this goes by stood still: unless something comes within the time-out from
    /// now on, the connection is dead.
    pub fn woke(&mut self, now: Instant) {
        let patience = Duration::from_millis(self.heartbeat.timeout_ms).clamp(LEAST_PATIENCE, MOST_PATIENCE);
        self.last_chance = Some(now + patience);
    }

    /// When the connection counts as dead unless something comes.
    pub fn patience_ends(&self) -> Instant {
        let patience = self.heartbeat.interval_ms.saturating_add(self.heartbeat.timeout_ms);
        let patience = Duration::from_millis(patience).clamp(LEAST_PATIENCE, MOST_PATIENCE);
        let silent = self.heard + patience;
        // What it was asked for comes as soon as the answer to a ping.
        let ends = match self.doubt {
            Doubt::None => silent,
            Doubt::Asked(at) | Doubt::Elsewhere(at) => silent.min(at + self.timeout().max(2 * LEAST_DOUBT)),
        };
        self.last_chance.unwrap_or(ends)
    }

    /// Whether it is dead by now. When this task was held up itself, what came meanwhile has not been
    /// read yet; so the first time it only gets a last chance.
    pub fn is_dead(&mut self, now: Instant) -> bool {
        if now < self.patience_ends() {
            return false;
        }
        let given = self.last_chance.is_some();
        self.last_chance.get_or_insert(now + LAST_CHANCE);
        given
    }

    /// Tells the smoothed time from request to reply.
    pub fn replied(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.reply_time_us.store(micros, Ordering::Relaxed);
    }

    /// Writes out what waits and closes.
    pub async fn close(self) {
        let Self { mut waiting, writer, writing, receiver, .. } = self;
        let finish = async move {
            while let Some(outgoing) = waiting.pop_front() {
                if writer.send(outgoing).await.is_err() {
                    break;
                }
            }
            drop(writer);
            if let Err(error) = writing.await {
                tracing::debug!(%error, "writer task");
            }
        };
        if timeout(CLOSE_TIMEOUT, finish).await.is_err() {
            tracing::debug!("closing timed out");
        }
        drop(receiver);
    }
}

/// Writes what comes, in batches; closes the connection when no more can come.
async fn write(mut sender: Sender, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some((frame, lane)) = queue.recv().await {
        let batch = async {
            sender.feed(&frame, lane).await?;
            while let Ok((frame, lane)) = queue.try_recv() {
                sender.feed(&frame, lane).await?;
            }
            sender.flush().await
        };
        if let Err(error) = batch.await {
            tracing::debug!(%error, "cannot write");
            return;
        }
    }
    sender.close(0, "").await;
}
