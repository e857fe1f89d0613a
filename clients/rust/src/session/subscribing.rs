//! The channels: what the application wants of each, and what the live connection has of it.

use super::{
    End, Session, Wakeup,
    channels::{Delivery, Entry},
    phases::{Arrival, Phase, Sorted},
};
use crate::error::RequestError;
use skywave_client_session::Waiter;
use skywave_protocol::{
    Channel, ClientFrame, ErrorCode, RequestId, ServerFrame,
    frame::{self, Subscribe, SubscribeOptions, Unsubscribe},
};
use std::{mem, ops::ControlFlow, time::Duration};
use tokio::time::sleep;

/// The least wait before a channel is asked for again that the node refused for the moment.
const RESUBSCRIBE_WAIT: Duration = Duration::from_millis(500);

impl Session {
    // ---- from the node

    /// A publication, an event, a gap or a change of presence.
    pub(super) fn channel_frame(
        &mut self,
        channel: &Channel,
        frame: ServerFrame,
        arrival: Arrival,
    ) -> ControlFlow<End> {
        let Some(live) = self.live.as_mut() else { return ControlFlow::Continue(()) };
        match live.phases.sort(channel, frame, arrival) {
            Sorted::Settled => {}
            Sorted::TooMany => return self.fault("too much before `subscribed`"),
            Sorted::Deliver(entry, frame) => self.deliver(channel, entry, frame),
        }
        ControlFlow::Continue(())
    }

    fn deliver(&mut self, channel: &Channel, id: u64, frame: ServerFrame) {
        let Some(entry) = self.channels.get_mut(channel).filter(|entry| entry.id == id) else { return };
        match entry.deliver(frame) {
            Delivery::Done => {}
            Delivery::Full => self.pause(channel),
            Delivery::OutOfOrder => self.recover(channel),
        }
    }

    pub(super) fn subscribed(&mut self, subscribed: frame::Subscribed) -> ControlFlow<End> {
        let channel = subscribed.channel.clone();
        let joined =
            self.live.as_mut().and_then(|live| live.phases.joined(&channel, subscribed.subscription));
        let Some((id, held)) = joined else { return ControlFlow::Continue(()) };
        let entry = self.channels.get_mut(&channel).filter(|entry| entry.id == id);
        match entry.map(|entry| entry.subscribed(subscribed)) {
            Some(Delivery::Full) => self.pause(&channel),
            Some(Delivery::OutOfOrder) => self.recover(&channel),
            None | Some(Delivery::Done) => {}
        }
        // Dropped since it was asked for, even if somebody else has subscribed; or left for now.
        self.settle(&channel);
        for (via, frame) in held {
            self.channel_frame(&channel, frame, Arrival { via, bytes: 0 })?;
        }
        ControlFlow::Continue(())
    }

    pub(super) fn unsubscribed(&mut self, unsubscribed: frame::Unsubscribed) {
        let frame::Unsubscribed { id, channel, code, reason } = unsubscribed;
        if id.is_some() {
            self.left(&channel);
            return;
        }
        let Some(id) = self.live.as_mut().and_then(|live| live.phases.ended(&channel)) else { return };
        let code = code.unwrap_or(ErrorCode::Internal.code());
        let transient = ErrorCode::from_code(code).is_some_and(ErrorCode::is_transient);
        let reason = reason.unwrap_or("unsubscribed".into());
        let message = "the node ended the subscription".into();
        self.refused(&channel, id, RequestError { code, reason, message, transient, retry_after: None });
    }

    /// `unsubscribe` was answered.
    fn left(&mut self, channel: &Channel) {
        if let Some(live) = &mut self.live {
            live.phases.left(channel);
        }
        self.settle(channel);
    }

    /// The node refuses to `subscribe`.
    pub(super) fn subscribe_failed(&mut self, channel: &Channel, request: RequestId, error: RequestError) {
        let Some(id) = self.live.as_mut().and_then(|live| live.phases.refused(channel, request)) else {
            return;
        };
        if error.code == ErrorCode::AlreadySubscribed.code() {
            // One of which this client knows nothing, so its position neither: begin again.
            return self.leave(channel);
        }
        let is_leaving = self.live.as_ref().is_some_and(|live| live.phases.are_leaving());
        if error.code == ErrorCode::LimitReached.code() && is_leaving {
            self.ask_later(channel, id, &error);
        } else {
            self.refused(channel, id, error);
        }
    }

    /// The node refuses to `unsubscribe`. A channel that stays subscribed keeps its place and its presence, so it is
    /// left a little later.
    pub(super) fn unsubscribe_failed(&mut self, channel: &Channel, error: RequestError) {
        tracing::debug!(%error, %channel, "unsubscribe");
        let Some(live) = self.live.as_ref().filter(|_| error.transient) else {
            return self.left(channel);
        };
        let wait = error.retry_after.unwrap_or(RESUBSCRIBE_WAIT) + self.wait(0);
        self.wake_after(wait, Wakeup::Leave(channel.clone(), live.link.connection));
    }

    /// The node will not have the subscription `id`, for now or for good.
    fn refused(&mut self, channel: &Channel, id: u64, error: RequestError) {
        let Some(entry) = self.channels.get(channel).filter(|entry| entry.id == id) else {
            return self.settle(channel);
        };
        if error.transient && !entry.is_new() {
            self.ask_later(channel, id, &error);
        } else if let Some(entry) = self.channels.remove(channel) {
            let code = error.code;
            entry.end(error, Some(code));
        }
    }

    /// Asks for the subscription `id` again after a while: a node that refuses many for the moment less and less often.
    fn ask_later(&mut self, channel: &Channel, id: u64, error: &RequestError) {
        let Some(entry) = self.channels.get_mut(channel).filter(|entry| entry.id == id) else {
            return self.settle(channel);
        };
        entry.paused = true;
        let faults = entry.faulted();
        let jitter = self.wait(faults);
        let wait = error.retry_after.unwrap_or_default() + RESUBSCRIBE_WAIT + jitter;
        self.wake_after(wait, Wakeup::Room(channel.clone(), id));
    }

    // ---- to the node

    pub(super) fn subscribe(&mut self, channel: Channel, entry: Entry) {
        if self.channels.contains_key(&channel) {
            let message = "this client has a subscription to the channel";
            let error = RequestError::local(ErrorCode::AlreadySubscribed, message);
            entry.end(error, Some(ErrorCode::AlreadySubscribed.code()));
            return;
        }
        self.channels.insert(channel.clone(), entry);
        self.settle(&channel);
    }

    /// The application has dropped its subscription.
    pub(super) fn forget(&mut self, channel: &Channel, id: u64) {
        if self.channels.get(channel).is_some_and(|entry| entry.id == id) {
            self.channels.remove(channel);
            self.settle(channel);
        }
    }

    /// Asks for what is wanted of a channel, if nothing that was asked before waits for its answer.
    pub(super) fn settle(&mut self, channel: &Channel) {
        let wanted = self.channels.get(channel).filter(|entry| !entry.paused).map(|entry| entry.id);
        let Some(live) = &self.live else { return };
        match (live.phases.get(channel), wanted) {
            (None, Some(id)) => self.join(channel, id),
            (Some(Phase::Joined(joined)), wanted) if wanted != Some(joined.entry) => self.leave(channel),
            _ => {}
        }
    }

    fn join(&mut self, channel: &Channel, entry_id: u64) {
        let (Some(live), Some(entry)) = (self.live.as_mut(), self.channels.get(channel)) else { return };
        let SubscribeOptions { position, history, presence } = entry.request();
        let name = channel.clone();
        let make = |id| ClientFrame::Subscribe(Subscribe { id, channel: name, position, history, presence });
        match self.traffic.request(Waiter::Subscribe(channel.clone()), make, self.clock.now()) {
            Ok(id) => live.phases.set(channel.clone(), Phase::joining(entry_id, Some(id))),
            Err(error) => self.refused(channel, entry_id, error),
        }
    }

    fn leave(&mut self, channel: &Channel) {
        let Some(live) = self.live.as_mut() else { return };
        live.phases.set(channel.clone(), Phase::Leaving);
        let name = channel.clone();
        let make = |id| ClientFrame::Unsubscribe(Unsubscribe { id, channel: name });
        self.ask_node(Waiter::Unsubscribe(channel.clone()), make);
    }

    /// The reader is too slow: leaves the channel until there is room.
    fn pause(&mut self, channel: &Channel) {
        let Some(entry) = self.channels.get_mut(channel).filter(|entry| !entry.paused) else { return };
        entry.paused = true;
        let (room, name, id) = (entry.room(), channel.clone(), entry.id);
        self.wakeups.push(Box::pin(async move {
            room.await;
            Wakeup::Room(name, id)
        }));
        self.settle(channel);
    }

    /// A publication is missing, and no gap said so: leaves the channel and comes back with the position held. A node
    /// that does so again and again is asked less and less often.
    fn recover(&mut self, channel: &Channel) {
        let Some(entry) = self.channels.get_mut(channel).filter(|entry| !entry.paused) else { return };
        tracing::warn!(%channel, "a publication is missing; recovering");
        entry.paused = true;
        let (id, faults) = (entry.id, entry.faulted());
        let wait = self.wait(faults);
        self.wake_after(wait, Wakeup::Room(channel.clone(), id));
        self.settle(channel);
    }

    fn wake_after(&self, wait: Duration, wakeup: Wakeup) {
        self.wakeups.push(Box::pin(async move {
            sleep(wait).await;
            wakeup
        }));
    }

    pub(super) fn wake(&mut self, wakeup: Wakeup) {
        match wakeup {
            Wakeup::Room(channel, id) => {
                let entry = self.channels.get_mut(&channel).filter(|entry| entry.id == id);
                if entry.is_some_and(|entry| mem::take(&mut entry.paused)) {
                    self.settle(&channel);
                }
            }
            Wakeup::Leave(channel, connection) => {
                let same = self.live.as_ref().filter(|live| live.link.connection == connection);
                if same.is_some_and(|live| matches!(live.phases.get(&channel), Some(Phase::Leaving))) {
                    self.leave(&channel);
                }
            }
        }
    }
}
