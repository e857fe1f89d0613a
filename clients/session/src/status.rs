//! What a client is doing.

use crate::{TransportKind, url::NodeUrl};
use skywave_protocol::{
    frame::{Limits, SessionId},
    position::Origin,
};
use std::{borrow::Cow, sync::Arc};

/// What a client is doing; its changes are told.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// No session yet, or none any more and one is being opened.
    Connecting {
        /// Attempts since the last success, this one included.
        attempt: u32,
    },
    Connected(Arc<Connected>),
    /// The connection is gone.
    Disconnected {
        code: Option<u16>,
        reason: Cow<'static, str>,
        will_reconnect: bool,
    },
    /// The client has ended, by itself or because it was told to.
    Closed {
        code: Option<u16>,
        reason: Cow<'static, str>,
    },
}

/// The session and the connection that carries it now.
#[derive(Debug, Clone, PartialEq)]
pub struct Connected {
    pub transport: TransportKind,
    pub url: NodeUrl,
    pub node: Arc<str>,
    pub region: Origin,
    pub session: SessionId,
    pub user: Option<Arc<str>>,
    /// Whether the node knew the session.
    pub resumed: bool,
    /// The session before, if this is not its continuation: it could not be resumed any more, or was another user's.
    /// Subscriptions go on from their positions all the same; presence begins anew.
    pub former: Option<SessionId>,
    /// When the token expires, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    pub limits: Limits,
    /// How often this client has been connected, this time included.
    pub connects: u64,
    /// How many attempts this time took.
    pub attempts: u32,
}

impl Status {
    pub fn connected(&self) -> Option<&Arc<Connected>> {
        match self {
            Self::Connected(connected) => Some(connected),
            _ => None,
        }
    }
}
