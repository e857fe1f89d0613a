//! One channel as its subscriber sees it.

use crate::orders::Handle;
use futures_util::Stream;
use skywave_client_session::SubscriptionId;
pub use skywave_client_session::{ChannelEvent, Subscribed};
use skywave_protocol::Channel;
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};
use tokio::sync::mpsc;

/// One channel's events. Dropping it unsubscribes.
///
/// It holds a bounded queue. When the reader falls behind and the queue is full, events are dropped. Publications are
/// not: the client leaves the channel on the wire, and takes it up again, from the position reached, once half of the
/// queue is free. The reader sees a further [`ChannelEvent::Subscribed`], and a [`ChannelEvent::Gap`] if the node's
/// history did not suffice. So a slow reader costs no memory and holds up no other channel and no heartbeat.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) channel: Channel,
    pub(crate) id: SubscriptionId,
    pub(crate) events: mpsc::Receiver<ChannelEvent>,
    pub(crate) ended: Arc<OnceLock<ChannelEvent>>,
    pub(crate) done: bool,
    pub(crate) handle: Arc<Handle>,
}

impl Subscription {
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The next event; `None` after [`ChannelEvent::Unsubscribed`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<ChannelEvent> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<ChannelEvent>> {
        if self.done {
            return Poll::Ready(None);
        }
        let event = ready!(self.events.poll_recv(context));
        Poll::Ready(event.or_else(|| {
            // The queue may have been full when the end came, so the end stands beside it.
            self.done = true;
            let ended = self.ended.get().cloned();
            Some(ended.unwrap_or(ChannelEvent::Unsubscribed { code: None, reason: "closed".into() }))
        }))
    }
}

impl Stream for Subscription {
    type Item = ChannelEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ChannelEvent>> {
        self.poll(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.handle.forget(self.channel.clone(), self.id);
    }
}
