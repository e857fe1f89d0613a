//! One subscription's queue in an outbox: history first, then what gathers live, admitted by position.

use crate::broadcast::Publication;
use skywave_protocol::{Admission, Position, codec::EncodedFrame};
use std::{collections::VecDeque, sync::Arc};

/// A subscription's queue within an outbox. It is not used again before the transport gave it back.
pub type LaneId = usize;

/// A publication's frame, or another that has its place among the publications of a channel.
#[derive(Debug, Clone)]
pub enum Item {
    Publication(Arc<Publication>),
    /// Sent in its place; moves nothing.
    Frame(EncodedFrame),
    /// Sent in its place; delivery goes on after the point of this origin.
    Gap {
        frame: EncodedFrame,
        position: Position,
    },
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) position: Position,
    /// From history, goes first.
    pub(super) backfill: VecDeque<Item>,
    pub(super) live: VecDeque<Item>,
    pub(super) live_bytes: usize,
    /// What the next publication of its history needs, where that is more than a usual fill.
    pub(super) needs: usize,
    pub(super) state: LaneState,
    /// The session reads a part of its history just now.
    pub(super) reading: bool,
    /// It is ready, or the transport's.
    pub(super) queued: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    /// Its history is being read, part by part; live publications gather behind it.
    Filling,
    /// History has been queued up to what gathers live.
    Live,
    /// Live publications are dropped; once what waits is out, they are read from history.
    Behind,
}

impl Lane {
    /// Whether a part of its history is due, and nothing else before it.
    pub(super) fn is_to_fill(&self) -> bool {
        self.state != LaneState::Live && !self.reading && self.backfill.is_empty()
    }

    /// Drops the live publications, which history has; other frames keep their place. Answers the bytes freed.
    pub(super) fn fall_behind(&mut self) -> usize {
        let mut freed = std::mem::take(&mut self.live_bytes);
        for item in std::mem::take(&mut self.live) {
            if let Item::Frame(frame) = &item {
                freed -= frame.len();
                self.backfill.push_back(item);
            }
        }
        self.state = LaneState::Behind;
        freed
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    Skip,
    Missing,
}

/// Moves `position` over the item, if it may be sent.
pub(super) fn admit(item: &Item, position: &mut Position) -> Verdict {
    match item {
        Item::Frame(_) => Verdict::Send,
        Item::Gap { position: moved, .. } => {
            for (origin, point) in moved.iter() {
                position.set(origin.clone(), point.clone());
            }
            Verdict::Send
        }
        Item::Publication(publication) => {
            let frame = publication.frame();
            match position.admit(&frame.origin, &frame.epoch, frame.offset) {
                Admission::Next => {
                    position.advance(&frame.origin, &frame.epoch, frame.offset);
                    Verdict::Send
                }
                Admission::Duplicate => Verdict::Skip,
                Admission::Gap | Admission::NewEpoch => Verdict::Missing,
            }
        }
    }
}
