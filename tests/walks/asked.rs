//! Requests of a client that wait for their answer.

use skywave_protocol::{Channel, Payload, Point, Position};

#[derive(Debug)]
pub enum Asked {
    Subscribe(Wanted),
    Unsubscribe(Channel),
    Publish(Message),
    History,
    Presence,
    Refresh,
    /// A `connect` after the first one.
    Connect,
}

impl Asked {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Subscribe(_) => "subscribe",
            Self::Unsubscribe(_) => "unsubscribe",
            Self::Publish(_) => "publish",
            Self::History => "history",
            Self::Presence => "presence",
            Self::Refresh => "refresh",
            Self::Connect => "connect",
        }
    }
}

/// A subscription that was asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub channel: Channel,
    pub position: Option<Position>,
    pub has_history: bool,
    /// What the channel had when it was asked for.
    pub head: Option<Point>,
}

/// A publication with its number, which is its key too.
#[derive(Debug, Clone)]
pub struct Message {
    pub channel: Channel,
    pub number: u64,
    pub data: Payload,
}
