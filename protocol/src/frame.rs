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

/// Declares the frames of one direction, once: what is read and written, their names on the wire, and which of their
/// fields is the request's id (`[id]`, or `[id?]` where it may be absent).
macro_rules! frames {
    ($(#[$meta:meta])* $direction:ident { $($name:literal => $frame:ident($fields:ident) $([$($id:tt)+])?;)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum $direction {
            $(#[serde(rename = $name)] $frame($fields),)+
        }

        impl $direction {
            /// The names of all of them on the wire.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// Its name on the wire.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$frame(_) => $name,)+
                }
            }

            /// The id of the request that it is, or that it answers.
            pub fn id(&self) -> Option<RequestId> {
                match self {
                    $(Self::$frame(_frame) => frames!(@id _frame $($($id)+)?),)+
                }
            }
        }
    };
    (@id $frame:ident) => { None };
    (@id $frame:ident id) => { Some($frame.id) };
    (@id $frame:ident id?) => { $frame.id };
}

frames! {
    /// What a client sends.
    ClientFrame {
        "connect" => Connect(Connect) [id];
        "subscribe" => Subscribe(Subscribe) [id];
        "unsubscribe" => Unsubscribe(Unsubscribe) [id];
        "publish" => Publish(Publish) [id];
        "emit" => Emit(Emit);
        "history" => History(HistoryRequest) [id];
        "presence" => Presence(PresenceRequest) [id];
        "call" => Call(Call) [id];
        "refresh" => Refresh(Refresh) [id];
        "network" => Network(Network);
        "pong" => Pong(Pong);
    }
}

frames! {
    /// What the node sends.
    ServerFrame {
        "connected" => Connected(Connected) [id];
        "subscribed" => Subscribed(Subscribed) [id?];
        "unsubscribed" => Unsubscribed(Unsubscribed) [id?];
        "stream" => Stream(Stream);
        "published" => Published(Published) [id];
        "history" => History(History) [id];
        "presence" => Presence(Presence) [id];
        "result" => Result(CallResult) [id];
        "refreshed" => Refreshed(Refreshed) [id];
        "publication" => Publication(Publication);
        "event" => Event(Event);
        "gap" => Gap(Gap);
        "presence_changed" => PresenceChanged(PresenceChanged);
        "ping" => Ping(Ping);
        "drain" => Drain(Drain);
        "error" => Error(Error) [id?];
        "disconnect" => Disconnect(Disconnect);
    }
}

/// Defines a frame that carries a payload: `data` in MessagePack and for JSON values, `data_b64`
/// for bytes in JSON. serde reads and writes it through twins with both fields.
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

        #[derive(serde::Deserialize)]
        struct $wire {
            $($field: $type,)*
            $(#[serde(default)] $option: Option<$option_type>,)*
            #[serde(default, deserialize_with = "crate::payload::present")]
            data: Option<crate::payload::Data>,
            #[serde(default)]
            data_b64: Option<crate::payload::Base64>,
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // By reference: this is written for each publication, and to count holders of its parts costs as much
                // as the writing.
                #[derive(serde::Serialize)]
                struct Written<'a> {
                    $($field: &'a $type,)*
                    $(#[serde(skip_serializing_if = "Option::is_none")] $option: Option<&'a $option_type>,)*
                    #[serde(skip_serializing_if = "Option::is_none")]
                    data: Option<crate::payload::AsData<'a>>,
                    #[serde(skip_serializing_if = "Option::is_none")]
                    data_b64: Option<crate::payload::AsBase64<'a>>,
                }
                let (data, data_b64) = self.data.fields(serializer.is_human_readable());
                let written = Written {
                    $($field: &self.$field,)*
                    $($option: self.$option.as_ref(),)*
                    data,
                    data_b64,
                };
                serde::Serialize::serialize(&written, serializer)
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
