//! How far one connection is with each channel, and whose its frames are.

use skywave_protocol::{Channel, RequestId, frame::ServerFrame};
use std::{
    collections::{HashMap, VecDeque},
    mem,
};

/// The most frames of one channel that wait for its `subscribed`: more than any node sends in a round trip.
const MAX_HELD: usize = 8192;

/// How far a connection is with a channel. A channel has one request under way at most: what is wanted meanwhile is
/// asked for when its answer is there, so that no frame can be taken for another subscription's.
#[derive(Debug)]
pub(super) enum Phase {
    /// Asked for, on behalf of `entry`, by `connect` or by a request: what comes before `subscribed` waits.
    Joining {
        entry: u64,
        request: Option<RequestId>,
        held: VecDeque<ServerFrame>,
    },
    Joined {
        entry: u64,
    },
    /// `unsubscribe` waits for its answer: what comes is of the subscription that is left.
    Leaving,
}

impl Phase {
    pub fn joining(entry: u64, request: Option<RequestId>) -> Self {
        Self::Joining { entry, request, held: VecDeque::new() }
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

    pub fn sort(&mut self, channel: &Channel, frame: ServerFrame) -> Sorted {
        match self.0.get_mut(channel) {
            None | Some(Phase::Leaving) => Sorted::Settled,
            Some(Phase::Joined { entry }) => Sorted::Deliver(*entry, frame),
            Some(Phase::Joining { held, .. }) if held.len() >= MAX_HELD => Sorted::TooMany,
            Some(Phase::Joining { held, .. }) => {
                held.push_back(frame);
                Sorted::Settled
            }
        }
    }

    /// `subscribed` has come: tells for which entry, and what has waited for it.
    pub fn joined(&mut self, channel: &Channel) -> Option<(u64, VecDeque<ServerFrame>)> {
        let phase = self.0.get_mut(channel)?;
        let Phase::Joining { entry, held, .. } = phase else { return None };
        let (entry, held) = (*entry, mem::take(held));
        *phase = Phase::Joined { entry };
        Some((entry, held))
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
            Some(Phase::Joining { entry, request: Some(asked), .. }) if *asked == request => {
                let entry = *entry;
                self.0.remove(channel);
                Some(entry)
            }
            _ => None,
        }
    }

    /// The node has ended the subscription, or refused it in answer to `connect`; tells whose it was.
    pub fn ended(&mut self, channel: &Channel) -> Option<u64> {
        match self.0.get(channel) {
            Some(Phase::Joining { entry, .. } | Phase::Joined { entry }) => {
                let entry = *entry;
                self.0.remove(channel);
                Some(entry)
            }
            // The answer to `unsubscribe` is still to come.
            Some(Phase::Leaving) | None => None,
        }
    }
}
