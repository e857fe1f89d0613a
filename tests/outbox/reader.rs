//! What a transport takes out of an outbox.

use crate::content::{at, whole};
use bytes::Bytes;
use skywave::{
    broker::Chunk,
    hub::outbox::{LaneId, Outbox, Task},
};
use skywave_protocol::{
    Channel, Encoding, ServerFrame, Text, form, frame::GapReason, framing::without_prefix,
};
use std::task::{Context, Poll, Waker};

pub const LIMIT: usize = 4096;

pub fn outbox() -> Outbox {
    let outbox = Outbox::new(&form::JSON, LIMIT);
    outbox.identify(Text::new("me").unwrap());
    outbox
}

pub fn open_lane(outbox: &Outbox) -> LaneId {
    outbox.open_lane(Channel::new("chat:1").unwrap(), 7)
}

/// A lane that is live from `offset` on.
pub fn live_lane(outbox: &Outbox, offset: u64) -> LaneId {
    let lane = open_lane(outbox);
    outbox.set_position(lane, at(offset));
    fill(outbox, lane, &whole(&[], []));
    lane
}

pub fn decode(frame: Bytes) -> ServerFrame {
    Encoding::Json.decode_server(&without_prefix(frame)).unwrap()
}

/// All that a lane's peer gets now, as texts.
pub fn story(outbox: &Outbox, lane: LaneId) -> Vec<String> {
    let mut story = Vec::new();
    while let Some(frame) = outbox.take(lane) {
        story.push(match decode(frame) {
            ServerFrame::Publication(one) => format!("{} {}", one.epoch, one.offset),
            ServerFrame::Gap(gap) => format!("gap to {} {}", gap.epoch, gap.offset),
            ServerFrame::PresenceChanged(_) => "presence".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    story
}

/// The offsets of all publications that can be taken now.
pub fn drain(outbox: &Outbox) -> Vec<u64> {
    let mut offsets = Vec::new();
    while let Some(lane) = outbox.ready_lane() {
        while let Some(frame) = outbox.take(lane) {
            match decode(frame) {
                ServerFrame::Publication(publication) => offsets.push(publication.offset),
                other => panic!("{other:?}"),
            }
        }
    }
    offsets
}

pub fn events(outbox: &Outbox) -> Vec<String> {
    let mut data = Vec::new();
    while let Some(frame) = outbox.take_event() {
        match decode(frame) {
            ServerFrame::Event(event) => data.push(format!("{:?}", event.data)),
            other => panic!("{other:?}"),
        }
    }
    data
}

pub fn task(outbox: &Outbox) -> Option<Task> {
    match outbox.poll_task(&Context::from_waker(Waker::noop()), |_| true) {
        Poll::Ready(task) => Some(task),
        Poll::Pending => None,
    }
}

/// Brings a lane the part of its history that it asked for.
pub fn fill(outbox: &Outbox, lane: LaneId, chunk: &Chunk) -> Option<GapReason> {
    outbox.fill(lane, chunk)
}
