//! What stands in the frames of the node.

use super::{Key, RequestId, SessionId, Slot};
use crate::{
    channel::Channel,
    codes::{CloseCode, ErrorCode},
    payload::Json,
    position::{Epoch, Origin, Position},
    text::Text,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, sync::Arc};

/// The session is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connected {
    pub id: RequestId,
    /// Public id of the session.
    pub session: SessionId,
    /// The secret that proves the session to any node.
    pub resume: Arc<str>,
    pub node: Arc<str>,
    pub region: Origin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// When the token expires, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    pub resumed: bool,
    pub heartbeat: Heartbeat,
    pub limits: Limits,
    pub regions: Vec<Region>,
    /// A node that suits this user better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer_url: Option<Arc<str>>,
}

/// When a client should take the connection for dead: nothing came for `interval_ms` + `timeout_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub interval_ms: u64,
    pub timeout_ms: u64,
}

/// What a session may do; 0 means without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub frame_bytes: u64,
    pub channels_per_session: u64,
    pub requests_per_second: u64,
    pub publishes_per_second: u64,
    /// For how long an idempotency key is remembered at least, in milliseconds; 0: the node does not say.
    #[serde(default)]
    pub idempotency_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    pub name: Origin,
    pub url: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    pub channel: Channel,
    /// Names this subscription among those of the transport, growing: a [`Stream`] says whose it is by it. Absent from
    /// older nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<u64>,
    /// The position before the first publication that follows.
    pub position: Position,
    /// Absent on a fresh subscription; `false` when some origin could not be recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<GapReason>,
    /// With `recovered`: how many publications after the client's position follow from what is retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovers: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<Members>,
}

/// The first frame of a channel's stream: whose publications follow on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    pub channel: Channel,
    /// That of [`Subscribed`].
    pub subscription: u64,
}

/// Why publications can never be had again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// History no longer reaches back so far.
    Trimmed,
    /// History was lost and offsets began anew.
    EpochChanged,
    /// The position lies beyond what the node knows.
    UnknownPosition,
    /// More publications are missing than may be recovered.
    TooFarBehind,
    /// One that this version does not know: a newer node's. The gap is one all the same.
    #[serde(other)]
    Other,
}

impl GapReason {
    /// Those that have a name.
    pub const ALL: [Self; 4] = [Self::Trimmed, Self::EpochChanged, Self::UnknownPosition, Self::TooFarBehind];
}

/// A reply to `unsubscribe`, or, without id, the end of a subscription with its code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unsubscribed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    pub channel: Channel,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
}

/// The publication was accepted and has this position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    pub id: RequestId,
    pub channel: Channel,
    pub origin: Origin,
    pub epoch: Epoch,
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History {
    pub id: RequestId,
    pub channel: Channel,
    /// Oldest first, in the region's order.
    pub publications: Vec<Publication>,
    /// Leads further back, as `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Text<128>>,
    /// More is retained in the direction that was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    pub id: RequestId,
    pub channel: Channel,
    pub count: u64,
    pub members: Vec<Member>,
}

/// Who is there: what `presence` answers and `subscribed` may bring along.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Members {
    pub count: u64,
    pub members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// The token's `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// When the session joined, in milliseconds since 1970.
    pub since_ms: u64,
}

payload_frame! {
    /// A call's result.
    CallResult via CallResultWire { id: RequestId, }
    optional { }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refreshed {
    pub id: RequestId,
    pub expires_at_ms: u64,
}

payload_frame! {
    /// A message of a channel, with its position.
    Publication via PublicationWire {
        channel: Channel,
        origin: Origin,
        epoch: Epoch,
        offset: u64,
        time_ms: u64,
    }
    optional { key: Key, user: Arc<str>, }
}

payload_frame! {
    /// An ephemeral message of a channel.
    Event via EventWire { channel: Channel, session: SessionId, }
    optional { user: Arc<str>, slot: Slot, }
}

/// Publications of an origin which this subscription will never get; delivery goes on after
/// (`epoch`, `offset`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    pub channel: Channel,
    pub origin: Origin,
    pub reason: GapReason,
    pub epoch: Epoch,
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PresenceChanged {
    pub channel: Channel,
    pub count: u64,
    pub joined: Vec<Member>,
    pub left: Vec<Member>,
}

/// Answer with `pong`; the times replace those of `connected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    pub seq: u32,
    pub interval_ms: u64,
    pub timeout_ms: u64,
}

/// This client should have moved to another node within `after_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub after_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Arc<str>>,
}

/// A request failed, or a frame could not be understood; the session goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Error {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    pub code: u16,
    pub reason: Cow<'static, str>,
    pub message: Cow<'static, str>,
    pub transient: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Error {
    pub fn new(id: Option<RequestId>, code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            id,
            code: code.code(),
            reason: code.reason().into(),
            message: message.into(),
            transient: code.is_transient(),
            retry_after_ms: None,
        }
    }
}

/// The last frame of a transport.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disconnect {
    pub code: u16,
    pub reason: Cow<'static, str>,
    /// For a developer, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'static, str>>,
    pub reconnect: bool,
    /// Not to come back sooner, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl From<CloseCode> for Disconnect {
    fn from(code: CloseCode) -> Self {
        Self {
            code: code.code(),
            reason: code.reason().into(),
            message: None,
            reconnect: code.reconnect(),
            retry_after_ms: None,
        }
    }
}
