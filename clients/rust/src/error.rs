//! Why something failed.

use crate::{options::TokenError, tls::TlsError, transport::DialError, url::InvalidUrl};
pub use skywave_client_session::RequestError;
use std::{borrow::Cow, sync::Arc, time::Duration};

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
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No connection. With both transports tried, both say why.
    #[error("{0}")]
    Dial(#[from] Arc<RaceError>),
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
            Self::Dial(error) => error.is_transient(),
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

/// Why no transport connected.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", self.describe())]
pub struct RaceError {
    pub webtransport: Option<DialError>,
    pub websocket: Option<DialError>,
}

impl RaceError {
    fn describe(&self) -> String {
        let named =
            |name: &str, error: &Option<DialError>| error.as_ref().map(|error| format!("{name}: {error}"));
        let told: Vec<String> =
            [named("webtransport", &self.webtransport), named("websocket", &self.websocket)]
                .into_iter()
                .flatten()
                .collect();
        if told.is_empty() { "no transport to try".to_owned() } else { told.join("; ") }
    }

    fn is_transient(&self) -> bool {
        ![&self.webtransport, &self.websocket]
            .into_iter()
            .flatten()
            .all(|error| matches!(error, DialError::Tls(_) | DialError::NotAllowed { .. }))
    }
}
