//! One subscription's queue in an outbox: history first, then what gathers live, admitted by position.

use crate::broadcast::Publication;
use skywave_protocol::{Admission, Point, Position, codec::EncodedFrame, frame::Gap};
use std::{collections::VecDeque, sync::Arc};

/// A subscription's queue within an outbox. It is not used again before the transport gave it back.
pub type LaneId = usize;

/// A publication's frame, or another that has its place among the publications of a channel.
#[derive(Debug, Clone)]
pub enum Item {
    Publication(Arc<Publication>),
    /// Sent in its place; moves nothing.
    Frame(EncodedFrame),
    /// Sent in its place; delivery of its origin goes on after its point.
    Gap(Box<Gap>),
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
    /// So many of the live items were there when the present reading began.
    pub(super) covered: usize,
    /// So many of the live items have been looked for in history: whatever of them does not follow is past.
    pub(super) verified: usize,
    /// After so many of the live items, history has to be asked whether they are followed by others.
    pub(super) doubt_after: Option<usize>,
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
    /// One that is being filled for the first time.
    pub(super) fn new() -> Self {
        Self {
            position: Position::new(),
            backfill: VecDeque::new(),
            live: VecDeque::new(),
            live_bytes: 0,
            needs: 0,
            state: LaneState::Filling,
            reading: true,
            queued: false,
            covered: 0,
            verified: 0,
            doubt_after: None,
        }
    }

    /// A part of its history is read from now on.
    pub(super) fn begin_reading(&mut self) {
        self.state = LaneState::Filling;
        self.reading = true;
        self.covered = self.live.len();
        self.doubt_after = None;
    }

    /// All of its history is there.
    pub(super) fn go_live(&mut self) {
        self.state = LaneState::Live;
        self.verified = std::mem::take(&mut self.covered);
        self.settle_doubt();
    }

    /// What it has may not be what there is: once that is out, history is asked.
    pub(super) fn doubt(&mut self) {
        // Where a reading is still to begin, that will tell.
        if self.state == LaneState::Live || self.reading && self.state == LaneState::Filling {
            self.doubt_after = Some(self.live.len());
            self.settle_doubt();
        }
    }

    /// Has history asked now if what came before a doubt is out.
    pub(super) fn settle_doubt(&mut self) {
        if self.state == LaneState::Live && self.backfill.is_empty() && self.doubt_after == Some(0) {
            self.doubt_after = None;
            self.state = LaneState::Filling;
        }
    }

    pub(super) fn pop_live(&mut self, size: usize) -> Option<Item> {
        self.live_bytes -= size;
        self.verified = self.verified.saturating_sub(1);
        self.doubt_after = self.doubt_after.map(|count| count.saturating_sub(1));
        self.live.pop_front()
    }

    /// Leaves out of a gap what gathered live: without history, nothing else brings it.
    pub(super) fn shorten(&self, gap: &mut Gap) {
        let mut first = None;
        for item in self.live.iter().rev() {
            let Item::Publication(publication) = item else { continue };
            let frame = publication.frame();
            if frame.origin != gap.origin || frame.epoch != gap.epoch {
                continue;
            }
            match first {
                Some(first) if frame.offset.checked_add(1) != Some(first) => break,
                _ => first = Some(frame.offset),
            }
        }
        if let Some(first) = first.filter(|first| (1..=gap.offset).contains(first)) {
            gap.offset = first - 1;
        }
    }

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
        (self.covered, self.verified, self.doubt_after) = (0, 0, None);
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
        Item::Gap(gap) => {
            position.set(gap.origin.clone(), Point { epoch: gap.epoch.clone(), offset: gap.offset });
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
