//! Every frame on the wire.

use crate::{
    channel::Channel,
    close::{CloseCode, ErrorCode},
    payload::{Base64, Data, Json, Payload, present},
    position::{Epoch, Origin, Position},
    text::Text,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, collections::BTreeMap, num::NonZeroU32, sync::Arc};

/// Chosen by the client, echoed in the reply: 1 … 2³²−1.
pub type RequestId = NonZeroU32;
/// An idempotency key: unique for its message, at most 64 bytes.
pub type Key = Text<64>;
/// Names what an event is about; only the latest per (sender, slot) matters. At most 64 bytes.
pub type Slot = Text<64>;
/// The public id of a session.
pub type SessionId = Text<64>;

/// The most publications that one `history` request may ask for.
pub const MAX_HISTORY_LIMIT: u32 = 1000;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientFrame {
    Connect(Connect),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Publish(Publish),
    Emit(Emit),
    History(HistoryRequest),
    Presence(PresenceRequest),
    Call(Call),
    Refresh(Refresh),
    Network(Network),
    Pong(Pong),
}

impl ClientFrame {
    /// The names of all frames that a client may send.
    pub const NAMES: &'static [&'static str] = &[
        "connect",
        "subscribe",
        "unsubscribe",
        "publish",
        "emit",
        "history",
        "presence",
        "call",
        "refresh",
        "network",
        "pong",
    ];
}

/// What the node sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerFrame {
    Connected(Connected),
    Subscribed(Subscribed),
    Unsubscribed(Unsubscribed),
    Published(Published),
    History(History),
    Presence(Presence),
    Result(CallResult),
    Refreshed(Refreshed),
    Publication(Publication),
    Event(Event),
    Gap(Gap),
    PresenceChanged(PresenceChanged),
    Ping(Ping),
    Drain(Drain),
    Error(Error),
    Disconnect(Disconnect),
}

impl ServerFrame {
    /// The names of all frames that the node may send.
    pub const NAMES: &'static [&'static str] = &[
        "connected",
        "subscribed",
        "unsubscribed",
        "published",
        "history",
        "presence",
        "result",
        "refreshed",
        "publication",
        "event",
        "gap",
        "presence_changed",
        "ping",
        "drain",
        "error",
        "disconnect",
    ];
}

/// Defines a frame that carries a payload: `data` in MessagePack and for JSON values, `data_b64`
/// for bytes in JSON. serde reads and writes it through a twin with both fields.
macro_rules! payload_frame {
    (
        $(#[$meta:meta])*
        $name:ident via $wire:ident { $($field:ident : $type:ty,)* }
        optional { $($option:ident : $option_type:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $(pub $field: $type,)*
            $(pub $option: Option<$option_type>,)*
            pub data: Payload,
        }

        #[derive(Serialize, Deserialize)]
        struct $wire {
            $($field: $type,)*
            $(#[serde(default, skip_serializing_if = "Option::is_none")] $option: Option<$option_type>,)*
            #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
            data: Option<Data>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            data_b64: Option<Base64>,
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let (data, data_b64) = self.data.clone().into_fields(serializer.is_human_readable());
                $wire {
                    $($field: self.$field.clone(),)*
                    $($option: self.$option.clone(),)*
                    data,
                    data_b64,
                }
                .serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let wire = $wire::deserialize(deserializer)?;
                let data = Payload::from_fields(wire.data, wire.data_b64).map_err(de::Error::custom)?;
                Ok(Self { $($field: wire.$field,)* $($option: wire.$option,)* data })
            }
        }
    };
}

/// Opens or resumes a session: token, resume secret and all subscriptions in one round trip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connect {
    pub id: RequestId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subscriptions: BTreeMap<Channel, SubscribeOptions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// How to subscribe to a channel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SubscribeOptions {
    /// Go on after this position; absent: from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Begin with the last so many publications; 1 … 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<u32>,
    /// Tell who is there, now and as it changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub presence: bool,
}

/// The client's software.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientInfo {
    pub name: Text<64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Text<64>>,
}

/// A hint for heartbeats: what the client knows of its network and of its own visibility.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// For example `wifi`, `cellular`, `ethernet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text<32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    pub id: RequestId,
    pub channel: Channel,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub presence: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unsubscribe {
    pub id: RequestId,
    pub channel: Channel,
}

payload_frame! {
    /// Asks for a publication on a channel.
    Publish via PublishWire { id: RequestId, channel: Channel, }
    optional { key: Key, }
}

payload_frame! {
    /// Sends an event to whoever is there now.
    Emit via EmitWire { channel: Channel, }
    optional { slot: Slot, }
}

/// Asks for retained publications.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryRequest {
    pub id: RequestId,
    pub channel: Channel,
    /// 1 … 1,000.
    pub limit: u32,
    /// Those after this position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Position>,
    /// Those before this cursor, from an earlier answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Text<128>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PresenceRequest {
    pub id: RequestId,
    pub channel: Channel,
}

payload_frame! {
    /// Calls a method of the application behind the node.
    Call via CallWire { id: RequestId, method: Text<128>, }
    optional { deadline_ms: u64, }
}

/// Brings a newer token for the same user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refresh {
    pub id: RequestId,
    pub token: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    pub seq: u32,
}

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
    /// The position before the first publication that follows.
    pub position: Position,
    /// Absent on a fresh subscription; `false` when some origin could not be recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<GapReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<Members>,
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
    pub reconnect: bool,
}

impl From<CloseCode> for Disconnect {
    fn from(code: CloseCode) -> Self {
        Self { code: code.code(), reason: code.reason().into(), reconnect: code.reconnect() }
    }
}
