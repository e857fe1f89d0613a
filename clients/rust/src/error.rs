//! Why no transport connected.

use crate::transport::{DialError, TransportKind};
pub use skywave_client_session::{ConnectError, DialFailure, RequestError, TokenError};
use std::{fmt, sync::Arc};

/// Why no transport connected: one error for each that was tried, the best transport first. It is what
/// [`ConnectError::Dial`] holds.
#[derive(Debug, Default)]
pub struct DialErrors(pub Vec<(TransportKind, DialError)>);

impl DialErrors {
    /// Those of an attempt to connect, where it failed for them.
    pub fn of(error: &ConnectError) -> Option<&Self> {
        match error {
            ConnectError::Dial(failure) => failure.error.downcast_ref(),
            _ => None,
        }
    }

    /// Why that transport did not connect, if it was tried.
    pub fn by(&self, kind: TransportKind) -> Option<&DialError> {
        self.0.iter().find(|(one, _)| *one == kind).map(|(_, error)| error)
    }

    fn is_transient(&self) -> bool {
        !self.0.iter().all(|(_, error)| matches!(error, DialError::Tls(_) | DialError::NotAllowed { .. }))
    }
}

impl fmt::Display for DialErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("no transport to try");
        }
        for (place, (kind, error)) in self.0.iter().enumerate() {
            let separator = if place > 0 { "; " } else { "" };
            write!(formatter, "{separator}{kind}: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for DialErrors {}

impl From<DialErrors> for ConnectError {
    fn from(errors: DialErrors) -> Self {
        let is_transient = errors.is_transient();
        Self::Dial(DialFailure { error: Arc::new(errors), is_transient })
    }
}
