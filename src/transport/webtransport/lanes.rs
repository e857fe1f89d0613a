//! The streams of channels, one for each that has something to send.

use super::{
    control::ControlStream,
    strays::UNIDIRECTIONAL_HEADER,
    streams::{NO_ERROR, Writing, write_varint},
    window::with_reserve,
};
use crate::hub::outbox::{LANE_TURN, LaneId};
use bytes::Bytes;
use quinn::{SendStream, WriteError};
use std::{mem, pin::pin, task::Poll};

pub(crate) struct Lanes {
    session_id: u64,
    streams: Vec<Option<LaneStream>>,
    /// Lanes whose stream takes no more for now; whoever had least of late is first.
    blocked: Vec<LaneId>,
}

/// A channel's stream.
struct LaneStream {
    carrier: Carrier,
    /// The frame that is being written, whole, and what the stream has yet to take of it.
    frame: Bytes,
    unwritten: Bytes,
    /// Whether this frame was offered to the reserve. Once is enough: the stream itself may be what blocks it.
    tried_reserve: bool,
    /// Whether the stream took anything when it was written to last.
    has_moved: bool,
}

enum Carrier {
    Stream(SendStream),
    /// The peer grants no stream: publications ride the control stream, from the first on.
    Control,
}

impl Lanes {
    pub(crate) fn new(session_id: u64) -> Self {
        Self { session_id, streams: Vec::new(), blocked: Vec::new() }
    }

    /// Whether any of them has to wait for the peer.
    pub(crate) fn are_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Writes what lanes have, as far as the peer takes it: those that were blocked first.
    pub(crate) fn write(
        &mut self,
        writing: &mut Writing<'_, '_>,
        control: &mut ControlStream,
    ) -> Result<(), WriteError> {
        for id in mem::take(&mut self.blocked) {
            self.write_lane(writing, control, id)?;
            writing.has_taken |= self.streams[id].as_ref().is_some_and(|lane| lane.has_moved);
        }
        while let Some(id) = writing.outbox.ready_lane() {
            self.write_lane(writing, control, id)?;
        }
        // Whatever becomes free of the window goes to the others first.
        let streams = &self.streams;
        self.blocked.sort_by_key(|id| streams[*id].as_ref().is_some_and(|lane| lane.has_moved));
        Ok(())
    }

    /// Ends a lane's stream.
    pub(crate) fn close(&mut self, id: LaneId) {
        self.blocked.retain(|blocked| *blocked != id);
        let Some(lane) = self.streams.get_mut(id).and_then(Option::take) else { return };
        if let Carrier::Stream(mut stream) = lane.carrier {
            // Nobody waits for what is left of the subscription, which would only hold up the next one. It fails only
            // on a stream that the peer stopped already.
            let _ = stream.reset(NO_ERROR);
        }
    }

    /// Writes what a lane has until it is empty, its stream is blocked, or its turn is over.
    fn write_lane(
        &mut self,
        writing: &mut Writing<'_, '_>,
        control: &mut ControlStream,
        id: LaneId,
    ) -> Result<(), WriteError> {
        if self.streams.len() <= id {
            self.streams.resize_with(id + 1, || None);
        }
        if let Some(lane) = &mut self.streams[id] {
            lane.has_moved = false;
        }
        for turn in 0.. {
            let waits = self.streams[id].as_ref().is_some_and(|lane| !lane.unwritten.is_empty());
            if !waits {
                if turn >= LANE_TURN {
                    writing.outbox.put_back(id);
                    return Ok(());
                }
                let Some(frame) = writing.outbox.take(id) else { return Ok(()) };
                self.queue(writing, id, frame);
            }
            let Some(lane) = &mut self.streams[id] else { return Ok(()) };
            let mut written = lane.poll(writing, control)?;
            if written.is_pending()
                && !writing.outbox.has_backlog(id)
                && !mem::replace(&mut lane.tried_reserve, true)
            {
                written = with_reserve(writing.quic, || lane.poll(writing, control))?;
            }
            if written.is_pending() {
                lane.has_moved |= turn > 0;
                self.blocked.push(id);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Puts a frame next on the lane, on a stream that is opened for its first one.
    fn queue(&mut self, writing: &mut Writing<'_, '_>, id: LaneId, frame: Bytes) {
        writing.has_written = true;
        match &mut self.streams[id] {
            Some(lane) => {
                lane.frame = frame.clone();
                lane.unwritten = frame;
                lane.tried_reserve = false;
            }
            lane => *lane = Some(LaneStream::open(writing, self.session_id, id, frame)),
        }
    }
}

impl LaneStream {
    /// Opens a stream for a lane's first frame.
    fn open(writing: &mut Writing<'_, '_>, session_id: u64, id: LaneId, frame: Bytes) -> Self {
        // Asked once, not awaited: while a publication is due nobody waits for stream credit.
        let opened = pin!(writing.quic.open_uni()).poll(writing.context);
        let (carrier, unwritten) = match opened {
            Poll::Ready(Ok(stream)) => {
                let opening = writing.outbox.opening(id).unwrap_or_default();
                let mut first = Vec::with_capacity(opening.len() + frame.len() + 16);
                write_varint(UNIDIRECTIONAL_HEADER, &mut first);
                write_varint(session_id, &mut first);
                first.extend_from_slice(&opening);
                first.extend_from_slice(&frame);
                (Carrier::Stream(stream), first.into())
            }
            Poll::Ready(Err(_)) | Poll::Pending => (Carrier::Control, frame.clone()),
        };
        Self { carrier, frame, unwritten, tried_reserve: false, has_moved: false }
    }

    /// Goes on with its frame; ready once that is written.
    fn poll(
        &mut self,
        writing: &mut Writing<'_, '_>,
        control: &mut ControlStream,
    ) -> Result<Poll<()>, WriteError> {
        if let Carrier::Stream(stream) = &mut self.carrier {
            let before = self.unwritten.len();
            let written = writing.poll_write(stream, &mut self.unwritten);
            self.has_moved |= self.unwritten.len() < before;
            match written {
                Poll::Ready(Err(WriteError::Stopped(_))) => {
                    // The peer does not want this stream: this frame and what follows come on the control stream.
                    self.carrier = Carrier::Control;
                    self.unwritten = self.frame.clone();
                }
                Poll::Ready(written) => {
                    self.frame = Bytes::new();
                    return written.map(Poll::Ready);
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        let carried = control.carry(writing, &mut self.unwritten)?;
        if carried.is_ready() {
            self.frame = Bytes::new();
        }
        Ok(carried)
    }
}
