//! How far one connection is with each channel, and whose its frames are.

use crate::transport::Via;
use skywave_protocol::{
    Channel, RequestId,
    frame::{ServerFrame, Stream},
};
use std::{
    collections::{HashMap, VecDeque},
    mem,
};

/// The most that waits for `connected`, or of one channel for its `subscribed`: more than any node sends in a round trip.
/// The last frame may be larger.
const MAX_HELD_FRAMES: usize = 8192;
const MAX_HELD_BYTES: usize = 8 << 20;

/// Whether one more frame may wait behind so many, of so many bytes, that it would be the last within these bounds. Events
/// may be lost: they leave half of the room to the others.
pub(super) fn has_room(frame: &ServerFrame, frames: usize, bytes: usize) -> bool {
    let share = if matches!(frame, ServerFrame::Event(_)) { 2 } else { 1 };
    frames < MAX_HELD_FRAMES / share && bytes < MAX_HELD_BYTES / share
}

/// How a frame came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub via: Via,
    /// Its size in bytes.
    pub bytes: usize,
}

/// How far a connection is with a channel. A channel has one request under way at most: what is wanted meanwhile is
/// asked for when its answer is there, so that no frame can be taken for another subscription's.
#[derive(Debug)]
pub(super) enum Phase {
    Joining(Joining),
    Joined(Joined),
    /// `unsubscribe` waits for its answer: what comes is of the subscription that is left.
    Leaving,
}

/// Asked for on behalf of `entry`: what comes before `subscribed` waits.
#[derive(Debug)]
pub(super) struct Joining {
    entry: u64,
    /// None in `connect`.
    request: Option<RequestId>,
    held: VecDeque<(Via, ServerFrame)>,
    held_bytes: usize,
    /// The newest subscription of which a stream has come, and the stream's id.
    newest: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    pub entry: u64,
    /// The node's number for it; older nodes have none.
    subscription: Option<u64>,
    /// The id of its own stream, once that has come.
    stream: Option<u64>,
}

impl Joined {
    /// Whether what comes by `via` is this subscription's: on a stream of a node that gives numbers, only if the
    /// stream says so; elsewhere by its order.
    fn owns(&self, via: Via) -> bool {
        match via {
            Via::Stream(id) => self.subscription.is_none() || self.stream == Some(id),
            Via::Control | Via::Datagram | Via::WebSocket => true,
        }
    }
}

impl Phase {
    pub fn joining(entry: u64, request: Option<RequestId>) -> Self {
        Self::Joining(Joining { entry, request, held: VecDeque::new(), held_bytes: 0, newest: None })
    }
}

/// What to do with a frame of a channel.
#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "taken apart at once, and most frames are delivered")]
pub(super) enum Sorted {
    /// It is the reader's of this entry.
    Deliver(u64, ServerFrame),
    /// It waits, or is of no subscription that stands.
    Settled,
    /// More waits than any node sends in a round trip.
    TooMany,
}

/// All channels of one connection.
#[derive(Debug, Default)]
pub(super) struct Phases(HashMap<Channel, Phase>);

impl Phases {
    pub fn get(&self, channel: &Channel) -> Option<&Phase> {
        self.0.get(channel)
    }

    pub fn set(&mut self, channel: Channel, phase: Phase) {
        self.0.insert(channel, phase);
    }

    pub fn sort(&mut self, channel: &Channel, frame: ServerFrame, arrival: Arrival) -> Sorted {
        match self.0.get_mut(channel) {
            Some(Phase::Joined(joined)) if joined.owns(arrival.via) => Sorted::Deliver(joined.entry, frame),
            None | Some(Phase::Joined(_) | Phase::Leaving) => Sorted::Settled,
            Some(Phase::Joining(joining)) => {
                if has_room(&frame, joining.held.len(), joining.held_bytes) {
                    joining.held_bytes += arrival.bytes;
                    joining.held.push_back((arrival.via, frame));
                } else if !matches!(frame, ServerFrame::Event(_)) {
                    return Sorted::TooMany;
                }
                Sorted::Settled
            }
        }
    }

    /// The stream `id` has begun, and said whose it is.
    pub fn began(&mut self, stream: &Stream, id: u64) {
        match self.0.get_mut(&stream.channel) {
            Some(Phase::Joined(joined)) if joined.subscription == Some(stream.subscription) => {
                joined.stream = Some(id);
            }
            // Subscriptions that have ended may still be heard of, late: the one asked for is newer.
            Some(Phase::Joining(joining))
                if joining.newest.is_none_or(|(newest, _)| newest < stream.subscription) =>
            {
                joining.newest = Some((stream.subscription, id));
            }
            _ => {}
        }
    }

    /// `subscribed` has come, with this number: tells for which entry, and what of it has waited.
    pub fn joined(
        &mut self,
        channel: &Channel,
        subscription: Option<u64>,
    ) -> Option<(u64, VecDeque<(Via, ServerFrame)>)> {
        let phase = self.0.get_mut(channel)?;
        let Phase::Joining(joining) = phase else { return None };
        let stream = joining.newest.filter(|(newest, _)| Some(*newest) == subscription).map(|(_, id)| id);
        let joined = Joined { entry: joining.entry, subscription, stream };
        let mut held = mem::take(&mut joining.held);
        held.retain(|(via, _)| joined.owns(*via));
        *phase = Phase::Joined(joined);
        Some((joined.entry, held))
    }

    /// Whether any channel is being left: once it is gone there is room for another one.
    pub fn are_leaving(&self) -> bool {
        self.0.values().any(|phase| matches!(phase, Phase::Leaving))
    }

    /// `unsubscribe` was answered.
    pub fn left(&mut self, channel: &Channel) {
        if matches!(self.0.get(channel), Some(Phase::Leaving)) {
            self.0.remove(channel);
        }
    }

    /// The node has refused what `request` asked for; tells whose it was.
    pub fn refused(&mut self, channel: &Channel, request: RequestId) -> Option<u64> {
        match self.0.get(channel) {
            Some(Phase::Joining(joining)) if joining.request == Some(request) => self.ended(channel),
            _ => None,
        }
    }

    /// The node has ended the subscription, or refused it in answer to `connect`; tells whose it was.
    pub fn ended(&mut self, channel: &Channel) -> Option<u64> {
        let entry = match self.0.get(channel)? {
            Phase::Joining(joining) => joining.entry,
            Phase::Joined(joined) => joined.entry,
            // The answer to `unsubscribe` is still to come.
            Phase::Leaving => return None,
        };
        self.0.remove(channel);
        Some(entry)
    }
}
