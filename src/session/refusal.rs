//! Why something that a session asked for is not done.

use crate::broker::BrokerError;
use skywave_protocol::{
    ErrorCode, ServerFrame,
    frame::{Error, RequestId},
};
use std::time::Duration;

/// Keys are forgotten one by one.
const KEYS_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why something is not done, for an `error` or an `unsubscribed`.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub code: ErrorCode,
    pub message: String,
    /// The same may be asked again after this.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// There is too much to do for now.
    pub(crate) fn later(retry_after: Duration) -> Self {
        let refusal = Self::new(ErrorCode::RateLimited, "too many requests");
        Self { retry_after: Some(retry_after), ..refusal }
    }

    /// The answer to a request that waited.
    pub(crate) fn into_reply(self, id: RequestId) -> ServerFrame {
        ServerFrame::Error(self.to_error(Some(id)))
    }

    /// The answer to a request.
    pub(crate) fn to_error(&self, id: Option<RequestId>) -> Error {
        let mut error = Error::new(id, self.code, self.message.clone());
        // Not earlier, by whole milliseconds.
        error.retry_after_ms = self.retry_after.map(|wait| wait.as_millis() as u64 + 1);
        error
    }
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        let retry_after = (error == BrokerError::TooManyKeys).then_some(KEYS_RETRY_AFTER);
        Self { retry_after, ..Self::new(error.code(), error.to_string()) }
    }
}
