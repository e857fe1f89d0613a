//! What waits to go to one session: bounded, shared bytes, a queue per channel so that none holds up another.
//!
//! Three parties meet here. The hub and the session put frames in; the transport takes them out as
//! fast as its peer reads; the session is told when a channel must be filled from history. A slow
//! reader costs, step by step: events are conflated, then dropped; then a channel's queue is
//! dropped and filled from history once there is room again; at last the session is closed.

mod lane;
mod queues;
mod sequel;
mod taking;

pub use lane::LaneId;
pub use taking::LANE_TURN;

use crate::{
    broadcast::{Event, PresenceChanged, Publication, write},
    broker::Chunk,
};
use bytes::Bytes;
use lane::{Item, Lane};
use parking_lot::{Mutex, MutexGuard};
use queues::Queues;
use sequel::Room;
use skywave_protocol::{
    Channel, CloseCode, Form, Position, ServerFrame,
    form::Outgoing,
    frame::{self, Disconnect, GapReason, SessionId, Stream},
};
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

/// A part of the bytes that events may take, beside publications: one quarter.
const EVENT_SHARE: usize = 4;
/// The part of the bytes that one read of a lane's history may take. A lane whose peer reads no more keeps its part,
/// and the others still have room.
const FILL_SHARE: usize = 8;
/// The most events that wait for one session.
const MAX_EVENTS: usize = 256;
/// Queues that grew beyond this give their memory back when they are empty.
const KEPT_CAPACITY: usize = 64;

/// What a session has to do for its outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Read the lane's history from its position and [`Outbox::fill`] it.
    Fill(LaneId),
    /// End the session.
    Close(CloseCode),
}

/// What happened since it was last asked, for metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub frames_sent: u64,
    pub events_conflated: u64,
    pub events_dropped: u64,
    pub queues_dropped: u64,
}

#[derive(Debug)]
pub struct Outbox {
    form: &'static Form,
    session: OnceLock<SessionId>,
    max_bytes: usize,
    queues: Mutex<Queues>,
}

impl Outbox {
    /// An outbox of at most `max_bytes` for a wire of this form. It belongs to no session until [`Outbox::identify`]
    /// was called.
    pub fn new(form: &'static Form, max_bytes: usize) -> Self {
        Self { form, session: OnceLock::new(), max_bytes, queues: Mutex::new(Queues::default()) }
    }

    /// Says whose outbox it is: it does not get its own session's events.
    pub fn identify(&self, session: SessionId) {
        self.session.get_or_init(|| session);
    }

    /// The most bytes that may wait.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    // ---- what the session does ----

    /// Queues a frame for the control stream.
    pub fn control<'a>(&self, frame: impl Into<Outgoing<'a>>) {
        self.divert(write(frame, self.form));
    }

    /// Queues the last frame for the control stream: none comes behind it.
    pub fn end(&self, disconnect: Disconnect) {
        self.control(&ServerFrame::Disconnect(disconnect));
        self.queues.lock().has_ended = true;
    }

    /// Queues for the control stream what was taken and found no other way.
    pub fn divert(&self, frame: Bytes) {
        let mut queues = self.queues.lock();
        if queues.has_ended {
            return;
        }
        queues.bytes += frame.len();
        queues.control_bytes += frame.len();
        queues.control.push_back(frame);
        wake(queues);
    }

    /// Queues a frame that may be lost and is worth nothing once a later one is due, such as a ping.
    pub fn latest(&self, frame: &ServerFrame) {
        let frame = write(frame, self.form);
        let mut queues = self.queues.lock();
        queues.latest = Some(frame);
        wake(queues);
    }

    /// Whether answers wait that the peer does not read.
    pub fn is_clogged(&self) -> bool {
        self.queues.lock().is_clogged(self.max_bytes)
    }

    /// Whether the transport should read requests. Otherwise it only writes.
    pub fn takes_requests(&self) -> bool {
        !self.is_clogged()
    }

    /// Asks the session to end. The first code stands.
    pub fn close(&self, code: CloseCode) {
        let mut queues = self.queues.lock();
        queues.close.get_or_insert(code);
        wake(queues);
    }

    /// Opens a lane for a subscription, which holds its publications back until it has been filled.
    pub fn open_lane(&self, channel: Channel, subscription: u64) -> LaneId {
        let mut queues = self.queues.lock();
        let lane = Lane::new(Stream { channel, subscription });
        let closed = &queues.closed;
        let free = queues.lanes.iter().enumerate().find(|(id, lane)| lane.is_none() && !closed.contains(id));
        match free.map(|(id, _)| id) {
            Some(id) => {
                queues.lanes[id] = Some(lane);
                id
            }
            None => {
                queues.lanes.push(Some(lane));
                queues.lanes.len() - 1
            }
        }
    }

    pub fn set_position(&self, id: LaneId, position: Position) {
        if let Some(lane) = self.queues.lock().lane(id) {
            lane.position = position;
        }
    }

    /// Whose publications the lane carries.
    pub fn channel(&self, id: LaneId) -> Option<Channel> {
        self.queues.lock().lane(id).map(|lane| lane.stream.channel.clone())
    }

    /// What the lane's peer was sent last.
    pub fn position(&self, id: LaneId) -> Option<Position> {
        self.queues.lock().lane(id).map(|lane| lane.position.clone())
    }

    /// Brings the part of the history that was asked for, as much of it as there is room for, joined with what gathered
    /// live. Answers why the peer does not get all that follows its position, if so, as far as it is known.
    pub fn fill(&self, id: LaneId, chunk: &Chunk) -> Option<GapReason> {
        let mut queues = self.queues.lock();
        let free = self.max_bytes.saturating_sub(queues.bytes);
        let lane = queues.lane(id).filter(|lane| lane.is_reading())?;
        let bytes = fill_room(self.max_bytes).max(lane.needs).min(free);
        let before = lane.bytes();
        let room = Room { bytes, is_all: free == self.max_bytes };
        let loss = lane.fill(chunk, room, self.form);
        let after = lane.bytes();
        queues.bytes = queues.bytes + after - before;
        queues.free(0, self.max_bytes);
        queues.settle(id);
        wake(queues);
        loss
    }

    /// Drops the lane and what waits in it.
    pub fn close_lane(&self, id: LaneId) {
        let mut queues = self.queues.lock();
        let Some(lane) = queues.lanes.get_mut(id).and_then(Option::take) else { return };
        queues.bytes -= lane.bytes();
        queues.to_fill.retain(|waiting| *waiting != id);
        queues.closed.push(id);
        wake(queues);
    }

    /// What the session has to do, when there is something; of the lanes those whose channel `may_fill`. Registers for
    /// a wake-up otherwise.
    pub fn poll_task(&self, context: &Context<'_>, may_fill: impl Fn(&Channel) -> bool) -> Poll<Task> {
        let mut queues = self.queues.lock();
        if let Some(code) = queues.close {
            return Poll::Ready(Task::Close(code));
        }
        if let Some(id) = queues.fillable(self.max_bytes, may_fill) {
            return Poll::Ready(Task::Fill(id));
        }
        queues.register(context);
        Poll::Pending
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.queues.lock().bytes
    }

    /// Bytes of answers that wait.
    pub fn control_bytes(&self) -> usize {
        self.queues.lock().control_bytes
    }

    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.queues.lock().counts)
    }

    // ---- what the hub does ----

    /// Queues a publication of the lane's channel, or drops the queue when it is over the limit.
    pub fn publication(&self, id: LaneId, publication: &Arc<Publication>) {
        let size = publication.written(self.form).len();
        self.push(id, Item::Publication(publication.clone()), size, |_, _| {});
    }

    /// Queues a change of presence in its place among the lane's publications. Where there is no room for one, the peer
    /// is told how many are there, once there is room. So it knows that it missed something.
    pub fn presence_changed(&self, id: LaneId, change: &PresenceChanged) {
        let frame = change.written(self.form).clone();
        let size = frame.len();
        self.push(id, Item::Frame(frame), size, |lane, is_kept| {
            if is_kept && !lane.has_dropped() {
                return;
            }
            let frame::PresenceChanged { channel, count, .. } = change.frame();
            let (channel, joined, left) = (channel.clone(), Vec::new(), Vec::new());
            let recount = frame::PresenceChanged { channel, count: *count, joined, left };
            lane.recount(write(&ServerFrame::PresenceChanged(recount), self.form));
        });
    }

    /// What the lane's peer was sent may not be what there is: once what waits is out, history is asked.
    pub fn doubt(&self, id: LaneId) {
        let mut queues = self.queues.lock();
        let Some(lane) = queues.lane(id) else { return };
        lane.doubt();
        queues.settle(id);
        wake(queues);
    }

    /// Tells `then` whether there was room for it.
    fn push(&self, id: LaneId, item: Item, size: usize, then: impl FnOnce(&mut Lane, bool)) {
        let mut queues = self.queues.lock();
        let is_frame = matches!(item, Item::Frame(_));
        match queues.lane(id) {
            None => return,
            // History has it.
            Some(lane) if lane.is_behind() && !is_frame => return,
            Some(_) => queues.free(size, self.max_bytes),
        }
        let fits = queues.bytes + size <= self.max_bytes;
        let Some(lane) = queues.lane(id) else { return };
        let is_kept = fits && (is_frame || !lane.is_behind());
        if is_kept {
            lane.push(item, size);
            queues.bytes += size;
        } else if !is_frame && !lane.is_behind() {
            queues.drop_queue(id);
        }
        if let Some(lane) = queues.lane(id) {
            then(lane, is_kept);
        }
        queues.settle(id);
        wake(queues);
    }

    /// Queues an event, unless this session sent it; a waiting one of the same sender and slot is replaced.
    pub fn event(&self, event: &Arc<Event>) {
        let frame = event.frame();
        if self.session.get() == Some(&frame.session) {
            return;
        }
        let size = event.written(self.form).len();
        let mut queues = self.queues.lock();
        if frame.slot.is_some() {
            let same = |waiting: &Arc<Event>| {
                let waiting = waiting.frame();
                waiting.slot == frame.slot
                    && waiting.session == frame.session
                    && waiting.channel == frame.channel
            };
            if let Some(index) = queues.events.iter().position(same) {
                queues.remove_event(index, self.form);
                queues.counts.events_conflated += 1;
            }
        }
        let limit = self.max_bytes / EVENT_SHARE;
        while queues.events.len() >= MAX_EVENTS
            || (queues.event_bytes + size > limit && !queues.events.is_empty())
        {
            queues.remove_event(0, self.form);
            queues.counts.events_dropped += 1;
        }
        if queues.event_bytes + size > limit || queues.bytes + size > self.max_bytes {
            queues.counts.events_dropped += 1;
            return;
        }
        queues.events.push_back(event.clone());
        queues.event_bytes += size;
        queues.bytes += size;
        wake(queues);
    }
}

/// The bytes of one fill.
fn fill_room(max_bytes: usize) -> usize {
    max_bytes / FILL_SHARE
}

/// Idle sessions keep no large queues.
fn release_if_empty<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT_CAPACITY {
        *queue = VecDeque::new();
    }
}

/// Wakes outside of the lock: the woken task looks into the queues at once.
fn wake(mut queues: MutexGuard<'_, Queues>) {
    let waker = queues.waker.take();
    drop(queues);
    if let Some(waker) = waker {
        waker.wake();
    }
}
