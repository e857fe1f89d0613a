//! All queues of an outbox, and who gives way when they are full.

use super::{
    Counts, fill_room,
    lane::{Lane, LaneId},
};
use crate::broadcast::Event;
use bytes::Bytes;
use skywave_protocol::{Channel, CloseCode, Form};
use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Waker},
};

#[derive(Debug, Default)]
pub(super) struct Queues {
    pub(super) control: VecDeque<Bytes>,
    pub(super) control_bytes: usize,
    pub(super) latest: Option<Bytes>,
    pub(super) lanes: Vec<Option<Lane>>,
    /// Lanes from which the transport can take.
    pub(super) ready: VecDeque<LaneId>,
    /// So many frames the first of them had of its turn, where the wire is one pipe.
    pub(super) turn: usize,
    /// Closed lanes that the transport has yet to give back.
    pub(super) closed: Vec<LaneId>,
    pub(super) events: VecDeque<Arc<Event>>,
    pub(super) event_bytes: usize,
    /// Lanes that have fallen behind and are empty: to be filled from history when there is room.
    pub(super) to_fill: VecDeque<LaneId>,
    /// All that waits, in bytes.
    pub(super) bytes: usize,
    pub(super) close: Option<CloseCode>,
    /// Its last frame is among those for control.
    pub(super) has_ended: bool,
    pub(super) counts: Counts,
    /// Something was taken that leaves the session something to do.
    pub(super) is_session_due: bool,
    pub(super) waker: Option<Waker>,
}

impl Queues {
    pub(super) fn lane(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(id).and_then(Option::as_mut)
    }

    /// Whether answers wait that the peer does not read.
    pub(super) fn is_clogged(&self, max_bytes: usize) -> bool {
        self.control_bytes > max_bytes / 2
    }

    pub(super) fn register(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.waker = Some(context.waker().clone()),
        }
    }

    /// Brings a lane that changed to those whom it concerns: the transport, or the session that fills it.
    pub(super) fn settle(&mut self, id: LaneId) {
        let Some(lane) = self.lane(id) else { return };
        let to_fill = lane.is_to_fill();
        if lane.is_takable() && !lane.queued {
            lane.queued = true;
            self.ready.push_back(id);
        } else if to_fill && !self.to_fill.contains(&id) {
            self.to_fill.push_back(id);
        }
    }

    /// A lane that can be filled now, of those whose channel `may` be; it is from now on being filled.
    pub(super) fn fillable(&mut self, max_bytes: usize, may: impl Fn(&Channel) -> bool) -> Option<LaneId> {
        loop {
            // Others have frames to send first, and come back when they are out.
            let lanes = &self.lanes;
            let is_to_fill = |id: &LaneId| lanes[*id].as_ref().is_some_and(Lane::is_to_fill);
            self.to_fill.retain(is_to_fill);
            let may = |id: &LaneId| lanes[*id].as_ref().is_some_and(|lane| may(&lane.stream.channel));
            let index = self.to_fill.iter().position(may)?;
            let (id, bytes) = (self.to_fill[index], self.bytes);
            let lane = self.lane(id)?;
            if bytes == 0 || bytes + fill_room(max_bytes).max(lane.needs) <= max_bytes {
                lane.begin_reading();
                self.to_fill.remove(index);
                return Some(id);
            }
            if !self.drop_what_hinders(max_bytes) {
                return None;
            }
        }
    }

    /// Makes room for `size`. Events are dropped first, then the queues of the lanes that hold most: so a channel that
    /// is not read costs the others nothing.
    pub(super) fn free(&mut self, size: usize, max_bytes: usize) {
        if self.bytes + size > max_bytes {
            self.drop_events();
        }
        while self.bytes + size > max_bytes {
            let Some(largest) = self.largest_lane(|_, lane| lane.has_live_publications()) else { return };
            self.drop_queue(largest);
        }
    }

    /// Drops a queue that leaves no room to fill a lane, the first there is of: what gathers behind a lane that waits
    /// to be filled itself; what waits for a replay; more than half of all, which perhaps nobody reads. Answers whether
    /// there was one.
    pub(super) fn drop_what_hinders(&mut self, max_bytes: usize) -> bool {
        let waiting = self.largest_lane(|id, lane| self.to_fill.contains(&id) && lane.live_bytes() > 0);
        let is_unread = |lane: &Lane| lane.live_bytes() > max_bytes / 2 && lane.has_live_publications();
        let victim = waiting
            .or_else(|| self.largest_lane(|_, lane| lane.is_holding()))
            .or_else(|| self.largest_lane(|_, lane| is_unread(lane)));
        victim.map(|id| self.drop_queue(id)).is_some()
    }

    /// Of the lanes that are `wanted`, the one with the most live bytes.
    pub(super) fn largest_lane(&self, wanted: impl Fn(LaneId, &Lane) -> bool) -> Option<LaneId> {
        let lanes = self.lanes.iter().enumerate().filter_map(|(id, lane)| Some((id, lane.as_ref()?)));
        let wanted = lanes.filter(|(id, lane)| wanted(*id, lane));
        wanted.max_by_key(|(_, lane)| lane.live_bytes()).map(|(id, _)| id)
    }

    /// Drops a lane's live publications; they are read from history later.
    pub(super) fn drop_queue(&mut self, id: LaneId) {
        let Some(lane) = self.lane(id) else { return };
        let before = lane.bytes();
        lane.fall_behind();
        let after = lane.bytes();
        self.bytes = self.bytes + after - before;
        self.counts.queues_dropped += u64::from(after < before);
        self.settle(id);
    }

    pub(super) fn remove_event(&mut self, index: usize, form: &'static Form) -> Option<Arc<Event>> {
        let event = self.events.remove(index)?;
        let size = event.written(form).len();
        self.event_bytes -= size;
        self.bytes -= size;
        Some(event)
    }

    pub(super) fn drop_events(&mut self) {
        self.counts.events_dropped += self.events.len() as u64;
        self.bytes -= std::mem::take(&mut self.event_bytes);
        self.events = VecDeque::new();
    }
}
