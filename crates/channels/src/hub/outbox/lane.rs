//! One subscription's queue in an outbox: what was read of its history first, then what gathers live.

use super::{
    release_if_empty,
    sequel::{Room, Sequel},
};
use crate::{
    broadcast::{Publication, write},
    broker::Chunk,
};
use bytes::Bytes;
use skywave_protocol::{
    Admission, Channel, Form, Point, Position, ServerFrame,
    frame::{Gap, GapReason, Stream},
    position::Origin,
};
use std::{collections::VecDeque, sync::Arc};

/// A subscription's queue within an outbox. It is not used again before the transport gave it back.
pub type LaneId = usize;

/// A publication's frame, or another that has its place among the publications of a channel.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Publication(Arc<Publication>),
    /// Moves nothing.
    Frame(Bytes),
    Loss(Box<Loss>),
}

/// A gap that is told: delivery of its origin goes on after its point.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    origin: Origin,
    point: Point,
    frame: Bytes,
}

impl Item {
    pub(super) fn loss(
        channel: &Channel,
        origin: &Origin,
        point: Point,
        reason: GapReason,
        form: &'static Form,
    ) -> Self {
        let Point { epoch, offset } = point.clone();
        let gap = Gap { channel: channel.clone(), origin: origin.clone(), reason, epoch, offset };
        let frame = write(&ServerFrame::Gap(gap), form);
        Self::Loss(Box::new(Loss { origin: origin.clone(), point, frame }))
    }

    /// What goes out; whoever takes it stands at `position` then.
    pub(super) fn pass(&self, position: &mut Position, form: &'static Form) -> Bytes {
        match self {
            Self::Publication(publication) => {
                let frame = publication.frame();
                position.advance(&frame.origin, &frame.epoch, frame.offset);
            }
            Self::Frame(_) => {}
            Self::Loss(loss) => position.set(loss.origin.clone(), loss.point.clone()),
        }
        self.written(form).clone()
    }

    pub(super) fn size(&self, form: &'static Form) -> usize {
        self.written(form).len()
    }

    fn written(&self, form: &'static Form) -> &Bytes {
        match self {
            Self::Publication(publication) => publication.written(form),
            Self::Frame(frame) => frame,
            Self::Loss(loss) => &loss.frame,
        }
    }

    /// What it is to somebody who stands at `position`.
    pub(super) fn admission(&self, position: &Position) -> Admission {
        match self {
            Self::Publication(publication) => {
                let frame = publication.frame();
                position.admit(&frame.origin, &frame.epoch, frame.offset)
            }
            Self::Frame(_) | Self::Loss(_) => Admission::Next,
        }
    }

    fn is_of(&self, origin: &Origin) -> bool {
        matches!(self, Self::Publication(publication) if publication.frame().origin == *origin)
    }
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, item: Item, size: usize) {
        self.items.push_back(item);
        self.bytes += size;
    }

    fn extend(&mut self, items: impl IntoIterator<Item = Item>, form: &'static Form) {
        for item in items {
            let size = item.size(form);
            self.push(item, size);
        }
    }

    fn remove(&mut self, index: usize, size: usize) {
        self.items.remove(index);
        self.bytes -= size;
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    /// Whose it is.
    pub(super) stream: Stream,
    /// What its peer was sent last.
    pub(super) position: Position,
    /// From history: all of it follows the position. Goes first.
    backfill: Queue,
    /// Is admitted when its turn comes.
    live: Queue,
    /// So many of the live items wait at the front for what is missing before them, as it may come yet.
    held: usize,
    /// So many of the live items were there when the present reading began: it knows of them.
    covered: usize,
    /// What the next publication of its history needs, where that is more than a usual fill.
    pub(super) needs: usize,
    state: LaneState,
    /// The session reads a part of its history just now.
    reading: bool,
    /// Its first reading is done, so that `subscribed` goes out before whatever is taken of it.
    begun: bool,
    /// A change of presence was dropped: so many are there now, which is told once all that waits is out.
    recount: Option<Bytes>,
    /// What the peer was sent may not be what there is: history is to be asked.
    doubted: bool,
    /// It is ready, or the transport's.
    pub(super) queued: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneState {
    /// Its history is being read, part by part; live publications gather behind it.
    Filling,
    /// History has been queued up to what gathers live.
    Live,
    /// Live publications are dropped; once what waits is out, they are read from history.
    Behind,
}

enum Verdict {
    Send,
    Skip,
    /// What is missing before it may come yet.
    Hold,
    /// What is missing before it has to be looked for in history.
    Read,
}

impl Lane {
    /// One that is being filled for the first time.
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            position: Position::new(),
            backfill: Queue::default(),
            live: Queue::default(),
            held: 0,
            covered: 0,
            needs: 0,
            state: LaneState::Filling,
            reading: true,
            begun: false,
            recount: None,
            doubted: false,
            queued: false,
        }
    }

    /// All that waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.backfill.bytes + self.live.bytes
    }

    /// What can be dropped of it, since history has it.
    pub(super) fn live_bytes(&self) -> usize {
        self.live.bytes
    }

    pub(super) fn has_live_publications(&self) -> bool {
        self.live.items.iter().any(|item| !matches!(item, Item::Frame(_)))
    }

    pub(super) fn is_reading(&self) -> bool {
        self.reading
    }

    pub(super) fn is_behind(&self) -> bool {
        self.state == LaneState::Behind
    }

    /// Whether the transport can take something, or only admission can tell.
    pub(super) fn is_takable(&self) -> bool {
        let is_live = self.state == LaneState::Live && self.live.items.len() > self.held;
        self.begun && (!self.backfill.items.is_empty() || is_live || self.is_to_recount())
    }

    /// Whether the number of those who are there is due: no change that was made before waits.
    fn is_to_recount(&self) -> bool {
        self.recount.is_some() && self.live.items.len() == self.held
    }

    /// Whether a change of presence was dropped that is yet to be told.
    pub(super) fn has_dropped(&self) -> bool {
        self.recount.is_some()
    }

    /// A change of presence was dropped, now or before: how many are there by now is told instead.
    pub(super) fn recount(&mut self, recount: Bytes) {
        self.recount = Some(recount);
    }

    /// Whether some of it waits for what may come before it.
    pub(super) fn is_holding(&self) -> bool {
        self.held > 0
    }

    /// Whether a part of its history is due, and nothing else before it.
    pub(super) fn is_to_fill(&self) -> bool {
        self.state != LaneState::Live && !self.reading && self.backfill.items.is_empty()
    }

    /// Whether more waits, or is to come from history.
    pub(super) fn has_backlog(&self) -> bool {
        self.state != LaneState::Live || self.is_takable()
    }

    /// Queues what was published, or another frame in its place among that. A lane that is behind takes only these.
    pub(super) fn push(&mut self, item: Item, size: usize) {
        let queue = if self.is_behind() { &mut self.backfill } else { &mut self.live };
        queue.push(item, size);
    }

    /// A part of its history is read from now on.
    pub(super) fn begin_reading(&mut self) {
        self.state = LaneState::Filling;
        self.reading = true;
        self.covered = self.live.items.len();
        self.doubted = false;
    }

    /// What it was sent may not be what there is: once all that waits is out, history is asked.
    pub(super) fn doubt(&mut self) {
        // Where a reading is still to begin, that will tell.
        self.doubted = self.state == LaneState::Live || self.reading && !self.is_behind();
        self.settle_doubt();
    }

    fn settle_doubt(&mut self) {
        if self.doubted && self.state == LaneState::Live && !self.is_takable() {
            self.doubted = false;
            self.state = LaneState::Filling;
        }
    }

    /// The next frame for its peer; `None` when there is none for now.
    pub(super) fn next(&mut self, form: &'static Form) -> Option<Bytes> {
        if !self.begun {
            return None;
        }
        if let Some(item) = self.backfill.items.pop_front() {
            let frame = item.pass(&mut self.position, form);
            self.backfill.bytes -= frame.len();
            return Some(frame);
        }
        while self.state == LaneState::Live
            && let Some(item) = self.live.items.get(self.held)
        {
            match self.judge(item) {
                Verdict::Send => {
                    let frame = item.pass(&mut self.position, form);
                    self.live.remove(self.held, frame.len());
                    return Some(frame);
                }
                Verdict::Skip => {
                    let size = item.size(form);
                    self.live.remove(self.held, size);
                }
                Verdict::Hold => self.held += 1,
                Verdict::Read => self.state = LaneState::Filling,
            }
        }
        if self.is_to_recount() {
            return self.recount.take();
        }
        self.settle_doubt();
        release_if_empty(&mut self.backfill.items);
        release_if_empty(&mut self.live.items);
        None
    }

    fn judge(&self, item: &Item) -> Verdict {
        match item.admission(&self.position) {
            Admission::Next => Verdict::Send,
            Admission::Duplicate => Verdict::Skip,
            Admission::Gap | Admission::NewEpoch => {
                let Item::Publication(publication) = item else { return Verdict::Send };
                let mut held = self.live.items.iter().take(self.held).rev();
                match held.any(|held| held.is_of(&publication.frame().origin)) {
                    true => Verdict::Hold,
                    false => Verdict::Read,
                }
            }
        }
    }

    /// Joins a part of its history with what gathered live: see [`Sequel`]. Answers why the peer does not get all, if
    /// so, as far as it is known.
    pub(super) fn fill(&mut self, chunk: &Chunk, room: Room, form: &'static Form) -> Option<GapReason> {
        let live = std::mem::take(&mut self.live);
        let mut sequel = Sequel::new(&self.stream.channel, &self.position, &live.items, form);
        let (loss, whole) = sequel.read(chunk, room);
        (self.reading, self.begun) = (false, true);
        self.needs = sequel.needs;
        self.backfill.extend(std::mem::take(&mut sequel.items), form);
        let mut held = Vec::new();
        let is_known =
            |index| whole && self.state == LaneState::Filling && !self.doubted && index < self.covered;
        for (index, item) in live.items.iter().enumerate() {
            if !is_known(index) {
                sequel.keep(item);
            } else if !sequel.go_on(item, &chunk.coming) {
                held.push(item.clone());
            }
        }
        self.held = held.len();
        let queued = std::mem::take(&mut sequel.items);
        self.live.extend(held.into_iter().chain(queued), form);
        if whole && self.state == LaneState::Filling && !self.doubted {
            self.state = LaneState::Live;
        }
        self.covered = 0;
        loss
    }

    /// Drops the live publications, which history has; other frames keep their place.
    pub(super) fn fall_behind(&mut self) {
        for item in std::mem::take(&mut self.live).items {
            if let Item::Frame(frame) = &item {
                let size = frame.len();
                self.backfill.push(item, size);
            }
        }
        self.state = LaneState::Behind;
        (self.held, self.covered, self.doubted) = (0, 0, false);
    }
}
