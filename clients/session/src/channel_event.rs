//! What happens on a channel, as its reader sees it.

use crate::RequestError;
use skywave_protocol::{
    Position,
    frame::{self, Event, Gap, GapReason, Members, PresenceChanged, Publication},
};
use std::borrow::Cow;

/// What happens on a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum ChannelEvent {
    /// The subscription is in place: at first, and again whenever it was taken up after a break.
    Subscribed(Subscribed),
    /// Per origin in order, each once, none missing that no `Gap` tells of.
    Publication(Publication),
    /// Ephemeral; dropped when the reader is too slow.
    Event(Event),
    /// Publications of this origin are lost for good.
    Gap(Gap),
    PresenceChanged(PresenceChanged),
    /// The last one: the node, or the client's end, has ended the subscription.
    Unsubscribed {
        code: Option<u16>,
        reason: Cow<'static, str>,
    },
}

/// The subscription is in place.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribed {
    /// Before the first publication that follows.
    pub position: Position,
    /// Absent on a fresh subscription; `false` when some origin could not be recovered.
    pub recovered: Option<bool>,
    pub reason: Option<GapReason>,
    /// How many publications after the position follow from what is retained, where the node says so.
    pub recovers: Option<u64>,
    /// Who is there, for those who asked for it.
    pub presence: Option<Members>,
}

impl Subscribed {
    pub(crate) fn new(frame: frame::Subscribed, position: Position) -> Self {
        let frame::Subscribed { recovered, reason, recovers, presence, .. } = frame;
        Self { position, recovered, reason, recovers, presence }
    }
}

/// There was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The reader of a channel, as whoever drives the session has it.
pub trait Reader: Sized {
    /// Hands on what happens next.
    ///
    /// # Errors
    /// `Full` when there is no room for it: then it was not taken.
    fn offer(&mut self, event: ChannelEvent) -> Result<(), Full>;

    /// The subscription is over: nothing happens any more. `code`: where the node gave one.
    fn end(self, code: Option<u16>, error: &RequestError);
}
