//! Why there is no session.

use crate::url::InvalidUrl;
use std::{borrow::Cow, error::Error, sync::Arc, time::Duration};

/// A token could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// For now; the client asks again later.
    #[error("no token for now: {0}")]
    Unavailable(String),
    /// For good; the client stops.
    #[error("no token: {0}")]
    Denied(String),
}

/// Why no transport connected, in the words of whoever opens them.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct DialFailure {
    pub error: Arc<dyn Error + Send + Sync>,
    /// Whether the same may succeed later.
    pub is_transient: bool,
}

/// No session could be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    #[error("`{url}`: {error}")]
    InvalidUrl { url: String, error: InvalidUrl },
    #[error("no URL is given")]
    NoUrl,
    /// The options name something that is out of bounds.
    #[error("{0}")]
    InvalidOption(&'static str),
    /// What is trusted does not fit the address, or cannot be used.
    #[error("{0}")]
    Tls(Arc<dyn Error + Send + Sync>),
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No connection. All transports that were tried say why.
    #[error(transparent)]
    Dial(#[from] DialFailure),
    /// The node was reached and refused the session, or the connection ended before it was open.
    #[error("refused: {}", described(*code, reason, message.as_deref()))]
    Refused {
        code: u16,
        reason: Cow<'static, str>,
        /// For a developer, where the node said more.
        message: Option<Cow<'static, str>>,
        reconnect: bool,
        /// That node is not to be asked sooner, where it said so.
        retry_after: Option<Duration>,
    },
    #[error("the connection ended before the session was open: {0}")]
    Lost(String),
    #[error("the node sent something that cannot be understood: {0}")]
    Protocol(String),
    #[error("timed out")]
    TimedOut,
    /// Another connection is being opened already, or there is no session to move.
    #[error("cannot change transport now")]
    Busy,
    #[error("the client is closed")]
    Closed,
}

/// A node's reason with its code, and what it said beside it.
fn described(code: u16, reason: &str, message: Option<&str>) -> String {
    let message = message.map(|message| format!(": {message}")).unwrap_or_default();
    format!("{reason} ({code}){message}")
}

impl ConnectError {
    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::InvalidUrl { .. } | Self::NoUrl | Self::InvalidOption(_) | Self::Tls(_) | Self::Closed => {
                false
            }
            Self::Token(error) => matches!(error, TokenError::Unavailable(_)),
            Self::Refused { reconnect, .. } => *reconnect,
            Self::Dial(failure) => failure.is_transient,
            Self::Lost(_) | Self::Protocol(_) | Self::TimedOut | Self::Busy => true,
        }
    }

    /// How long to wait before that node is asked again, where it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The node's close code, where it gave one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
