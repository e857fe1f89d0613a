//! How long what a publication leaves in Redis is kept.

use skywave_channels::{broker::key_age, namespace::NamespaceConfig};
use std::time::Duration;

/// The most entries of a partition's log, whatever their age.
pub(crate) const LOG_LENGTH: usize = 1_000_000;
/// An unused channel keeps its position for at least so long; afterwards it goes on in another epoch.
const POSITION_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What is kept of the publications of a namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Publications per channel.
    pub history: usize,
    pub history_age: Duration,
    pub(crate) position_age: Duration,
    pub key_age: Duration,
}

impl Retention {
    /// Of a namespace; of one that is not configured, no history is kept.
    pub(crate) fn of(namespace: Option<&NamespaceConfig>) -> Self {
        let (history, history_age) =
            namespace.map_or((0, Duration::ZERO), |namespace| (namespace.history, namespace.history_age));
        Self {
            history,
            history_age,
            position_age: POSITION_AGE.max(2 * history_age),
            key_age: key_age(namespace),
        }
    }
}
