//! Every frame on the wire.

use crate::text::Text;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

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
    Stream(Stream),
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
        "stream",
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
            pub data: crate::payload::Payload,
        }

        #[derive(serde::Serialize, serde::Deserialize)]
        struct $wire {
            $($field: $type,)*
            $(#[serde(default, skip_serializing_if = "Option::is_none")] $option: Option<$option_type>,)*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[serde(deserialize_with = "crate::payload::present")]
            data: Option<crate::payload::Data>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            data_b64: Option<crate::payload::Base64>,
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let (data, data_b64) = self.data.clone().into_fields(serializer.is_human_readable());
                let wire = $wire {
                    $($field: self.$field.clone(),)*
                    $($option: self.$option.clone(),)*
                    data,
                    data_b64,
                };
                serde::Serialize::serialize(&wire, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let wire = <$wire as serde::Deserialize>::deserialize(deserializer)?;
                let data = crate::payload::Payload::from_fields(wire.data, wire.data_b64)
                    .map_err(serde::de::Error::custom)?;
                Ok(Self { $($field: wire.$field,)* $($option: wire.$option,)* data })
            }
        }
    };
}

mod client;
mod server;

pub use client::*;
pub use server::*;
