//! Whoever reads a channel: a queue, and the last word beside it.

use skywave_client_session::{ChannelEvent, Full, Reader, RequestError};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(crate) struct EventQueue {
    pub events: mpsc::Sender<ChannelEvent>,
    /// The queue may be full when the end comes.
    pub ended: Arc<OnceLock<ChannelEvent>>,
}

impl EventQueue {
    /// Waits until half of the queue is free; at once when nobody reads it any more.
    pub(crate) fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        let events = self.events.clone();
        async move {
            // The permits go back unused; an error says that the reader is gone.
            let _ = events.reserve_many(events.max_capacity() / 2).await;
        }
    }
}

impl Reader for EventQueue {
    fn offer(&mut self, event: ChannelEvent) -> Result<(), Full> {
        match self.events.try_send(event) {
            // A reader that has gone is told of by its drop.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Full),
        }
    }

    fn end(self, code: Option<u16>, error: &RequestError) {
        // Set once: a subscription ends once.
        let _ = self.ended.set(ChannelEvent::Unsubscribed { code, reason: error.reason.clone() });
    }
}
