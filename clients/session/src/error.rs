//! Why a request failed.

use skywave_protocol::{ErrorCode, frame};
use std::{borrow::Cow, time::Duration};

/// A request failed; the session goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code}): {message}")]
pub struct RequestError {
    /// The node's error code, or the one that fits for what failed on this side.
    pub code: u16,
    pub reason: Cow<'static, str>,
    pub message: Cow<'static, str>,
    /// Whether the same request may succeed later.
    pub transient: bool,
    /// How long to wait before that, where the node said so.
    pub retry_after: Option<Duration>,
}

impl RequestError {
    /// What failed on this side, with the code that fits.
    pub fn local(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: code.code(),
            reason: code.reason().into(),
            message: message.into(),
            transient: code.is_transient(),
            retry_after: None,
        }
    }

    /// There is no connection, and this cannot wait for one.
    pub fn not_connected() -> Self {
        Self::local(ErrorCode::Unavailable, "not connected")
    }

    /// The connection was lost before the reply.
    pub fn lost() -> Self {
        Self::local(ErrorCode::Unavailable, "the connection was lost before the reply")
    }

    /// The client has ended.
    pub fn closed() -> Self {
        Self { transient: false, ..Self::local(ErrorCode::Unavailable, "the client is closed") }
    }

    /// The session came to have another user before the answer.
    pub fn another_user() -> Self {
        let message = "the client has another user now than when this was asked for";
        Self { reason: "another_user".into(), ..Self::local(ErrorCode::Forbidden, message) }
    }

    /// A publish was not answered for so long that the node may have forgotten its key.
    pub fn outcome_unknown() -> Self {
        let message = "no answer as long as the node remembers the key: it may be published, or not";
        let error = Self::local(ErrorCode::Timeout, message);
        Self { reason: "outcome_unknown".into(), transient: false, ..error }
    }

    /// There was no reply in time.
    pub fn timed_out() -> Self {
        Self::local(ErrorCode::Timeout, "no reply in time")
    }

    /// As many wait as may.
    pub fn too_many(message: impl Into<Cow<'static, str>>) -> Self {
        Self { transient: true, ..Self::local(ErrorCode::LimitReached, message) }
    }
}

impl From<frame::Error> for RequestError {
    fn from(error: frame::Error) -> Self {
        Self {
            code: error.code,
            reason: error.reason,
            message: error.message,
            transient: error.transient,
            retry_after: error.retry_after_ms.map(Duration::from_millis),
        }
    }
}
