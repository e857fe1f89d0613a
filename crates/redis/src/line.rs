//! The connection to one server on which a node publishes, emits and reads: in the order of the calls, pipelined.
//!
//! Calls queue up and go out in batches while earlier ones are under way. When the connection breaks, all that is under
//! way or waits fails at once. So does what comes until there is another connection. A publication that failed is never
//! sent behind one that was made after it.

use crate::{batch::Call, errors::CallError, pulse::Pulse};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

/// Where calls to one server queue up. The pipe behind it ends when nobody has the line any more.
#[derive(Clone)]
pub(crate) struct Line {
    pub calls: mpsc::Sender<Call>,
    pub pulse: Arc<Pulse>,
    pub leaving: Arc<Notify>,
}

impl Line {
    /// Has a call made after those that came before.
    ///
    /// # Errors
    /// `Away` when the server cannot be reached, or too many wait.
    pub(crate) fn push(&self, call: Call) -> Result<(), CallError> {
        if !self.pulse.is_available() {
            return Err(CallError::Away);
        }
        self.calls.try_send(call).map_err(|_| CallError::Away)
    }

    /// Has the connection made anew: its server is of no use any more, and does not know.
    pub(crate) fn leave(&self) {
        self.leaving.notify_waiters();
    }
}
