//! One connection as it is read and written: its halves, and what waits to be written.

use super::path::Path;
use crate::transport::{Closed, Connection, Lane, Received, Receiver, Sender, TransportKind};
use skywave_client_session::{ConnectionId, Time};
use skywave_protocol::codec::EncodedFrame;
use std::{collections::VecDeque, time::Duration};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// Frames that the writer's task holds.
const WRITER_QUEUE: usize = 64;
/// Frames that wait for the writer before events are dropped.
const MAX_WAITING_EVENTS: usize = 1024;
/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// When a request has been sent and nothing was heard since for so long, the node's port is looked at.
const DOUBT: Duration = Duration::from_secs(1);
/// How long it is looked at.
const LOOK: Duration = Duration::from_secs(5);
type Outgoing = (EncodedFrame, Lane);

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Wire {
    /// What the session calls it.
    pub(super) connection: ConnectionId,
    kind: TransportKind,
    pub(super) path: Path,
    /// Whether the node's port has been looked at since something was heard.
    looked: bool,
    /// Ends when the node's port turns out to be closed, or when it was looked at for long enough.
    looking: JoinSet<bool>,
    receiver: Receiver,
    waiting: VecDeque<Outgoing>,
    writer: mpsc::Sender<Outgoing>,
    writing: JoinHandle<()>,
}

impl Wire {
    pub(super) fn new(connection: ConnectionId, open: Connection) -> Self {
        let Connection { kind, sender, receiver, control, .. } = open;
        let (writer, queue) = mpsc::channel(WRITER_QUEUE);
        Self {
            connection,
            kind,
            path: Path::new(control),
            looked: false,
            looking: JoinSet::new(),
            receiver,
            waiting: VecDeque::new(),
            writer,
            writing: tokio::spawn(write(sender, queue)),
        }
    }

    /// Queues a frame.
    pub(super) fn write(&mut self, frame: EncodedFrame, lane: Lane) {
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

    /// Whether so much waits to be written that events are better dropped.
    pub(super) fn is_congested(&self) -> bool {
        self.waiting.len() >= MAX_WAITING_EVENTS
    }

    /// The next frame; writes on meanwhile. Cancel-safe.
    pub(super) async fn receive(&mut self) -> Result<Received, Closed> {
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

    /// Something was heard: whether the port is closed may be worth another look.
    pub(super) fn heard(&mut self) {
        self.looked = false;
    }

    /// When to look whether the node's port is closed: a WebTransport session is told by nobody that it is.
    /// It owes an answer since then, and has said nothing.
    pub(super) fn look_at(&self, silent_since: Option<Time>) -> Option<Time> {
        let due = self.kind == TransportKind::WebTransport && !self.looked && self.looking.is_empty();
        silent_since.filter(|_| due).map(|since| since + DOUBT)
    }

    /// Looks, if that is due.
    pub(super) fn look(&mut self, silent_since: Option<Time>, now: Time) {
        if self.look_at(silent_since).is_some_and(|at| at <= now) {
            self.looked = true;
            let control = self.path.control.clone();
            let looking = async move { timeout(LOOK, control.refused()).await.is_ok() };
            self.looking.spawn(looking);
        }
    }

    /// Writes out what waits and closes.
    pub(super) async fn close(self) {
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
