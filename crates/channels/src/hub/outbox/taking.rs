//! What a transport takes out of an outbox: each queue by itself, or one frame after the other.

use super::{Outbox, fill_room, lane::LaneId, queues::Queues, release_if_empty, wake};
use crate::broadcast::write;
use bytes::Bytes;
use skywave_protocol::{Form, ServerFrame};
use std::task::Context;

/// Frames of one channel before the next one has its turn.
pub const LANE_TURN: usize = 16;

impl Outbox {
    /// Wakes the task of `context` when anything comes. To be called before the queues are looked at.
    pub fn register(&self, context: &Context<'_>) {
        self.queues.lock().register(context);
    }

    /// The next frame for a wire that is one pipe: what is urgent first, then answers, then channels in turns, and
    /// events last. The wire keeps nothing of a lane, so one that is closed is given back at once.
    pub fn next(&self) -> Option<Bytes> {
        self.take_of(|queues| {
            queues.closed.clear();
            let first = queues.latest.take().or_else(|| queues.take_control(self.max_bytes));
            let next = first.or_else(|| queues.take_in_turn(self.form, self.max_bytes));
            next.or_else(|| queues.take_event(self.form, self.max_bytes))
        })
    }

    pub fn take_control(&self) -> Option<Bytes> {
        self.take_of(|queues| queues.take_control(self.max_bytes))
    }

    /// A lane from which something can be taken; it is the transport's until [`Self::take`] finds it empty
    /// or [`Self::put_back`].
    pub fn ready_lane(&self) -> Option<LaneId> {
        let mut queues = self.queues.lock();
        while let Some(id) = queues.ready.pop_front() {
            if queues.lane(id).is_some() {
                return Some(id);
            }
        }
        None
    }

    /// The lane goes to the end of the line of those that are ready.
    pub fn put_back(&self, id: LaneId) {
        let mut queues = self.queues.lock();
        if queues.lane(id).is_some() {
            queues.ready.push_back(id);
        }
    }

    /// The lane's next frame, in order and without repetition. `None`: it is empty for now and will be
    /// ready again when there is more.
    pub fn take(&self, id: LaneId) -> Option<Bytes> {
        self.take_of(|queues| queues.take(id, self.form, self.max_bytes))
    }

    /// What a stream of the lane begins with: whose it is.
    pub fn opening(&self, id: LaneId) -> Option<Bytes> {
        let stream = self.queues.lock().lane(id)?.stream.clone();
        Some(write(&ServerFrame::Stream(stream), self.form))
    }

    /// Whether more waits on the lane than was taken, or is to come from history.
    pub fn has_backlog(&self, id: LaneId) -> bool {
        self.queues.lock().lane(id).is_some_and(|lane| lane.has_backlog())
    }

    pub fn take_latest(&self) -> Option<Bytes> {
        self.queues.lock().latest.take()
    }

    pub fn take_event(&self) -> Option<Bytes> {
        self.take_of(|queues| queues.take_event(self.form, self.max_bytes))
    }

    /// A lane that was closed; its id may be used again from now on.
    pub fn take_closed_lane(&self) -> Option<LaneId> {
        self.queues.lock().closed.pop()
    }

    /// Takes something, and wakes the session where that leaves it something to do.
    fn take_of<T>(&self, take: impl FnOnce(&mut Queues) -> T) -> T {
        let mut queues = self.queues.lock();
        let taken = take(&mut queues);
        if std::mem::take(&mut queues.is_session_due) {
            wake(queues);
        }
        taken
    }
}

impl Queues {
    fn take_control(&mut self, max_bytes: usize) -> Option<Bytes> {
        let frame = self.control.pop_front()?;
        release_if_empty(&mut self.control);
        let was_clogged = self.is_clogged(max_bytes);
        self.control_bytes -= frame.len();
        self.bytes -= frame.len();
        // The session goes on answering.
        self.is_session_due |= was_clogged && !self.is_clogged(max_bytes);
        self.count_taken(max_bytes);
        Some(frame)
    }

    /// The next frame of the lane whose turn it is.
    fn take_in_turn(&mut self, form: &'static Form, max_bytes: usize) -> Option<Bytes> {
        while let Some(id) = self.ready.front().copied() {
            if let Some(frame) = self.take(id, form, max_bytes) {
                self.turn += 1;
                if self.turn == LANE_TURN {
                    self.turn = 0;
                    self.ready.rotate_left(1);
                }
                return Some(frame);
            }
            self.turn = 0;
            self.ready.pop_front();
        }
        None
    }

    fn take(&mut self, id: LaneId, form: &'static Form, max_bytes: usize) -> Option<Bytes> {
        let lane = self.lane(id)?;
        let before = lane.bytes();
        let next = lane.next(form);
        let freed = before - lane.bytes();
        lane.queued &= next.is_some();
        let to_fill = lane.is_to_fill();
        self.bytes -= freed;
        if next.is_some() {
            self.count_taken(max_bytes);
        } else if to_fill {
            // What waited is out, or something before it is missing: history is asked.
            self.settle(id);
            self.is_session_due = true;
        } else if freed > 0 && !self.to_fill.is_empty() {
            // The peer had all of it: there is room for others.
            self.is_session_due = true;
        }
        next
    }

    fn take_event(&mut self, form: &'static Form, max_bytes: usize) -> Option<Bytes> {
        let event = self.remove_event(0, form)?;
        release_if_empty(&mut self.events);
        self.count_taken(max_bytes);
        Some(event.written(form).clone())
    }

    /// Counts a frame that left. There may be room now to fill a lane that fell behind.
    fn count_taken(&mut self, max_bytes: usize) {
        self.counts.frames_sent += 1;
        self.is_session_due |= !self.to_fill.is_empty() && self.bytes + fill_room(max_bytes) <= max_bytes;
    }
}
