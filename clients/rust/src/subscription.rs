//! One channel as its subscriber sees it.

use crate::client::Handle;
use futures_util::Stream;
use skywave_protocol::{
    Channel, Position,
    frame::{Event, Gap, GapReason, Members, PresenceChanged, Publication},
};
use std::{
    borrow::Cow,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};
use tokio::sync::mpsc;

/// What happens on a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum ChannelEvent {
    /// The subscription is in place: at first, and again whenever it was taken up after a break.
    Subscribed(Subscribed),
    /// Per origin in order, each once, none missing that no `Gap` tells of.
    Publication(Publication),
    /// Ephemeral; dropped when the reader is too slow.
    Event(Event),
    /// Publications of this origin are lost for good.
    Gap(Gap),
    PresenceChanged(PresenceChanged),
    /// The last one: the node, or the client's end, has ended the subscription.
    Unsubscribed {
        code: Option<u16>,
        reason: Cow<'static, str>,
    },
}

/// The subscription is in place.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribed {
    /// Before the first publication that follows.
    pub position: Position,
    /// Absent on a fresh subscription; `false` when some origin could not be recovered.
    pub recovered: Option<bool>,
    pub reason: Option<GapReason>,
    /// How many publications after the position follow from what is retained, where the node says so.
    pub recovers: Option<u64>,
    /// Who is there, for those who asked for it.
    pub presence: Option<Members>,
}

/// One channel's events. Dropping it unsubscribes.
///
/// It holds a bounded queue. When the reader falls behind and the queue is full, events (ephemeral
/// ones) are dropped, and publications are not: the client leaves the channel on the wire, and takes
/// it up again from the position reached once half of the queue is free. The reader sees a further
/// [`ChannelEvent::Subscribed`], and a [`ChannelEvent::Gap`] if the node's history did not suffice.
/// So a slow reader costs no memory and holds up no other channel and no heartbeat.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) channel: Channel,
    pub(crate) id: u64,
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
