//! How far a connection is with one channel, and which of the channel's frames belong to its present subscription.

use skywave_protocol::{RequestId, frame::ServerFrame};
use std::{collections::VecDeque, mem};

/// The most that waits for `connected`, or of one channel for its `subscribed`: more than any node sends in a round trip.
/// The last frame may be larger.
const MAX_HELD_FRAMES: usize = 8192;
const MAX_HELD_BYTES: usize = 8 << 20;

/// How a frame came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The id of the stream that the node opened for it; none where it came in its order among replies, or by a datagram.
    pub(crate) stream: Option<u64>,
    /// Its size in bytes.
    pub(crate) bytes: usize,
}

/// Frames that wait for what they come after, in their order.
#[derive(Debug, Default)]
pub(crate) struct Held {
    frames: VecDeque<(ServerFrame, Arrival)>,
    bytes: usize,
}

impl Held {
    /// Holds one more, and answers whether there was room for it. Events may be lost: they leave half of it to the others.
    pub(crate) fn hold(&mut self, frame: ServerFrame, arrival: Arrival) -> bool {
        let is_event = matches!(frame, ServerFrame::Event(_));
        let share = if is_event { 2 } else { 1 };
        if self.frames.len() >= MAX_HELD_FRAMES / share || self.bytes >= MAX_HELD_BYTES / share {
            return is_event;
        }
        self.bytes += arrival.bytes;
        self.frames.push_back((frame, arrival));
        true
    }

    pub(crate) fn take(&mut self) -> impl Iterator<Item = (ServerFrame, Arrival)> + use<> {
        self.bytes = 0;
        mem::take(&mut self.frames).into_iter()
    }
}

/// What has asked for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Its answer has no id.
    ByConnect,
    By(RequestId),
}

impl From<Option<RequestId>> for Asked {
    fn from(id: Option<RequestId>) -> Self {
        id.map_or(Self::ByConnect, Self::By)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Phase {
    /// What has asked for it, and `subscribed` is awaited or has come; none while the channel is only being left.
    pub(crate) asked: Option<Asked>,
    /// The last `unsubscribe` that is not answered: until then the old subscription's frames may come.
    pub(crate) leaving: Option<RequestId>,
    pub(crate) held: Held,
    is_joined: bool,
    /// The node's number for the present subscription; older nodes have none.
    subscription: Option<u64>,
    /// Subscriptions up to this number are over.
    past: Option<u64>,
    /// The newest subscription of which a stream has come, and the stream's id.
    newest: Option<(u64, u64)>,
}

impl Phase {
    /// Asks anew. Subscriptions up to the number `past` are older ones.
    pub(crate) fn ask(&mut self, asked: Asked, past: Option<u64>) {
        self.end(past);
        self.asked = Some(asked);
    }

    pub(crate) fn leave(&mut self, request: RequestId) {
        self.end(None);
        self.leaving = Some(request);
    }

    /// Whatever comes of the present subscription from now on is dropped.
    pub(crate) fn end(&mut self, past: Option<u64>) {
        self.past = self.past.max(past).max(self.subscription);
        self.asked = None;
        self.subscription = None;
        self.is_joined = false;
        self.held = Held::default();
    }

    /// A `subscribed` came. Answers whether it is the one that is awaited.
    pub(crate) fn confirm(&mut self, asked: Asked, subscription: Option<u64>) -> bool {
        if self.asked != Some(asked) || self.is_joined {
            self.past = self.past.max(subscription);
            return false;
        }
        self.is_joined = true;
        self.leaving = None;
        self.subscription = subscription;
        true
    }

    pub(crate) fn is_joined(&self) -> bool {
        self.is_joined
    }

    /// The stream `id` has begun, and said whose it is. Subscriptions that have ended may still be heard of, late.
    pub(crate) fn began(&mut self, subscription: u64, id: u64) {
        if self.newest.is_none_or(|(newest, _)| newest < subscription) {
            self.newest = Some((subscription, id));
        }
    }

    /// Whether a frame of the channel is the present subscription's, by where it came from; before `subscribed`, whether it
    /// may be.
    pub(crate) fn is_own(&self, stream: Option<u64>) -> bool {
        if self.asked.is_none() {
            return false;
        }
        // Order says whose it is: before `unsubscribed` it is the old subscription's.
        let Some(stream) = stream else { return self.leaving.is_none() };
        let named = self.newest.filter(|(_, id)| *id == stream).map(|(subscription, _)| subscription);
        if self.is_joined {
            self.subscription.is_none() || named == self.subscription
        } else {
            named.is_none_or(|named| Some(named) > self.past)
        }
    }
}
