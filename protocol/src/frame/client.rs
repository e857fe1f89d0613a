//! What stands in the frames of a client.

use super::{Key, RequestId, Slot};
use crate::{channel::Channel, position::Position, text::Text};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// Opens or resumes a session: token, resume secret and all subscriptions in one round trip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connect {
    pub id: RequestId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Arc<str>>,
    /// Counts every `connect` that this client has sent, on whatever transport. Of two that resume one session the
    /// higher one wins, whichever comes last. 1 … 2⁵³−1; older clients send none, which counts as 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subscriptions: BTreeMap<Channel, SubscribeOptions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// Declares a structure that has, beside its own fields, those that say how to subscribe: on the wire they stand side by
/// side.
macro_rules! subscription_frame {
    ($(#[$meta:meta])* $name:ident { $($field:ident : $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            $(pub $field: $type,)*
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
    };
}

subscription_frame! {
    /// How to subscribe to a channel.
    #[derive(Default)]
    SubscribeOptions {}
}

subscription_frame! {
    /// Asks for a channel's publications.
    Subscribe { id: RequestId, channel: Channel, }
}

impl Subscribe {
    pub fn new(id: RequestId, channel: Channel, options: SubscribeOptions) -> Self {
        let SubscribeOptions { position, history, presence } = options;
        Self { id, channel, position, history, presence }
    }

    /// How to subscribe.
    pub fn into_options(self) -> SubscribeOptions {
        let Self { position, history, presence, .. } = self;
        SubscribeOptions { position, history, presence }
    }
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
