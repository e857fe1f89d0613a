//! What goes over a connection: frames to their channels and waiters, requests to the wire.

use super::{
    End, Session, Which,
    channels::{Delivery, Entry, Phase, Sorted, sort},
    connection::Live,
    requests::{Pending, Waiter},
};
use crate::{
    error::RequestError,
    options::TokenError,
    transport::{Closed, Lane, Received},
};
use skywave_protocol::{
    Channel, ClientFrame, DecodeError, ErrorCode, RequestId, ServerFrame,
    frame::{self, Emit, Network, Pong, Publish, Refresh, Subscribe, Unsubscribe},
};
use std::{collections::VecDeque, mem, ops::ControlFlow, sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

/// The least wait before a channel is asked for again that the node refused for the moment.
const RESUBSCRIBE_WAIT: Duration = Duration::from_millis(500);

impl Session {
    fn connection(&mut self, which: Which) -> Option<&mut Live> {
        match which {
            Which::Live => self.live.as_mut(),
            Which::Retiring => self.retiring.as_mut().map(|(live, _)| live),
        }
    }

    // ---- from the node

    pub(super) fn received(&mut self, which: Which, received: &Received) -> ControlFlow<End> {
        let Some(live) = self.connection(which) else { return ControlFlow::Continue(()) };
        live.heard();
        match live.encoding.decode_server(&received.frame) {
            Ok(frame) => self.frame(which, frame),
            Err(DecodeError::Unknown { name, .. }) => {
                tracing::debug!(name, "unknown frame");
                ControlFlow::Continue(())
            }
            Err(error) => self.fault(which, &error.to_string()),
        }
    }

    /// The node broke the protocol: what this connection says further cannot be trusted.
    fn fault(&mut self, which: Which, problem: &str) -> ControlFlow<End> {
        tracing::warn!(problem, "protocol fault; resuming on another connection");
        match which {
            Which::Live => self.lost(Closed::lost(format!("protocol fault: {problem}"))),
            Which::Retiring => {
                self.retire();
                ControlFlow::Continue(())
            }
        }
    }

    pub(super) fn frame(&mut self, which: Which, frame: ServerFrame) -> ControlFlow<End> {
        match frame {
            ServerFrame::Publication(frame::Publication { ref channel, .. })
            | ServerFrame::Event(frame::Event { ref channel, .. })
            | ServerFrame::Gap(frame::Gap { ref channel, .. })
            | ServerFrame::PresenceChanged(frame::PresenceChanged { ref channel, .. }) => {
                let channel = channel.clone();
                return self.channel_frame(which, &channel, frame);
            }
            ServerFrame::Subscribed(subscribed) => return self.subscribed(which, subscribed),
            ServerFrame::Unsubscribed(unsubscribed) => self.unsubscribed(which, unsubscribed),
            ServerFrame::Published(published) => {
                if let Some(Pending { waiter: Waiter::Publish(number), .. }) = self.reply(which, published.id)
                {
                    self.publishes.answer(number, published, Instant::now());
                }
            }
            ServerFrame::History(frame::History { id, .. })
            | ServerFrame::Presence(frame::Presence { id, .. })
            | ServerFrame::Result(frame::CallResult { id, .. })
            | ServerFrame::Refreshed(frame::Refreshed { id, .. }) => self.answer(which, id, frame),
            ServerFrame::Error(error) => self.error(which, error),
            ServerFrame::Ping(ping) => self.pong(which, ping),
            ServerFrame::Drain(drain) if which == Which::Live => self.drain(drain),
            ServerFrame::Disconnect(disconnect) => {
                if let Some(live) = self.connection(which) {
                    live.disconnect = Some(disconnect);
                }
                match which {
                    // It is the last frame; the transport's own close adds nothing.
                    Which::Live => return self.lost(Closed::lost("disconnected")),
                    Which::Retiring => self.retire(),
                }
            }
            ServerFrame::Connected(_) | ServerFrame::Drain(_) | ServerFrame::Stream(_) => {}
        }
        ControlFlow::Continue(())
    }

    fn channel_frame(&mut self, which: Which, channel: &Channel, frame: ServerFrame) -> ControlFlow<End> {
        let Some(live) = self.connection(which) else { return ControlFlow::Continue(()) };
        match sort(live.phases.get_mut(channel), frame) {
            Sorted::Settled => ControlFlow::Continue(()),
            Sorted::TooMany => self.fault(which, "too much before `subscribed`"),
            Sorted::Deliver(frame) => self.deliver(which, channel, frame),
        }
    }

    fn deliver(&mut self, which: Which, channel: &Channel, frame: ServerFrame) -> ControlFlow<End> {
        let Some(entry) = self.channels.get_mut(channel) else { return ControlFlow::Continue(()) };
        match entry.deliver(frame) {
            Delivery::Done => {}
            Delivery::Full => self.pause(channel),
            Delivery::OutOfOrder => return self.fault(which, "a publication is missing"),
        }
        ControlFlow::Continue(())
    }

    fn subscribed(&mut self, which: Which, subscribed: frame::Subscribed) -> ControlFlow<End> {
        let channel = subscribed.channel.clone();
        if let Some(id) = subscribed.id {
            self.reply(which, id);
        }
        let (Some(live), Some(entry)) = (
            match which {
                Which::Live => self.live.as_mut(),
                Which::Retiring => self.retiring.as_mut().map(|(live, _)| live),
            },
            self.channels.get_mut(&channel),
        ) else {
            return ControlFlow::Continue(());
        };
        let Some(Phase::Awaiting(held)) = live.phases.get_mut(&channel) else {
            return ControlFlow::Continue(());
        };
        let held = mem::take(held);
        live.phases.insert(channel.clone(), Phase::Subscribed);
        if entry.subscribed(subscribed) == Delivery::Full {
            self.pause(&channel);
        }
        for frame in held {
            self.channel_frame(which, &channel, frame)?;
        }
        ControlFlow::Continue(())
    }

    fn unsubscribed(&mut self, which: Which, unsubscribed: frame::Unsubscribed) {
        let frame::Unsubscribed { id, channel, code, reason } = unsubscribed;
        let Some(live) = self.connection(which) else { return };
        let Some(id) = id else {
            // The node's own doing. On a connection that retires it says nothing about the new one.
            live.phases.remove(&channel);
            if which == Which::Live {
                let code = code.unwrap_or(ErrorCode::Internal.code());
                let transient = ErrorCode::from_code(code).is_some_and(ErrorCode::is_transient);
                let reason = reason.unwrap_or("unsubscribed".into());
                let message = "the node ended the subscription".into();
                self.refused(&channel, RequestError { code, reason, message, transient, retry_after: None });
            }
            return;
        };
        match live.phases.remove(&channel) {
            Some(Phase::Leaving(Some(held))) => {
                live.phases.insert(channel, Phase::Awaiting(held));
            }
            Some(Phase::Leaving(None)) | None => {}
            Some(other) => {
                live.phases.insert(channel, other);
            }
        }
        self.reply(which, id);
    }

    /// The node will not have this subscription, for now or for good.
    fn refused(&mut self, channel: &Channel, error: RequestError) {
        let Some(entry) = self.channels.get_mut(channel) else { return };
        if error.transient && !entry.is_new() {
            entry.paused = true;
            let wait =
                error.retry_after.unwrap_or_default() + RESUBSCRIBE_WAIT + self.options.backoff.wait(0);
            let (channel, id) = (channel.clone(), entry.id);
            self.rooms.push(Box::pin(async move {
                sleep(wait).await;
                (channel, id)
            }));
        } else if let Some(entry) = self.channels.remove(channel) {
            let code = error.code;
            entry.end(error, Some(code));
        }
    }

    /// Takes the request that a reply belongs to.
    fn reply(&mut self, which: Which, id: RequestId) -> Option<Pending> {
        let pending = self.requests.take(id)?;
        if let Some(live) = self.connection(which) {
            live.replied(pending.sent_at.elapsed());
        }
        Some(pending)
    }

    fn answer(&mut self, which: Which, id: RequestId, frame: ServerFrame) {
        match self.reply(which, id).map(|pending| pending.waiter) {
            Some(Waiter::Reply(reply)) => {
                if let ServerFrame::Refreshed(refreshed) = &frame {
                    self.schedule_refresh(Some(refreshed.expires_at_ms));
                }
                // Nobody waits any more: it came too late.
                let _ = reply.send(Ok(frame));
            }
            Some(Waiter::Refresh) => {
                if let ServerFrame::Refreshed(refreshed) = &frame {
                    self.schedule_refresh(Some(refreshed.expires_at_ms));
                }
            }
            _ => {}
        }
    }

    fn error(&mut self, which: Which, error: frame::Error) {
        let Some(id) = error.id else {
            tracing::warn!(code = error.code, message = %error.message, "the node complains");
            return;
        };
        let Some(Pending { waiter, connection, .. }) = self.reply(which, id) else { return };
        let error = RequestError::from(error);
        match waiter {
            Waiter::Publish(number) => {
                self.publishes.failed(number, connection, error, self.options.backoff, Instant::now());
            }
            Waiter::Subscribe(channel) => {
                if let Some(live) = self.connection(which) {
                    live.phases.remove(&channel);
                }
                if which == Which::Live {
                    self.refused(&channel, error);
                }
            }
            Waiter::Unsubscribe => tracing::debug!(%error, "unsubscribe"),
            Waiter::Refresh => tracing::warn!(%error, "the token was not refreshed"),
            Waiter::Reply(reply) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    fn pong(&mut self, which: Which, ping: frame::Ping) {
        if let Some(live) = self.connection(which) {
            live.pinged(ping);
            send_or_log(live, &ClientFrame::Pong(Pong { seq: ping.seq }), Lane::Datagram);
        }
    }

    /// Sends a sign of life on a path that has been silent for too long.
    pub(super) fn nudge(&mut self, now: Instant) {
        if let Some(live) = &mut self.live
            && let Some(seq) = live.nudge(now)
        {
            send_or_log(live, &ClientFrame::Pong(Pong { seq }), Lane::Datagram);
        }
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
        self.join(&channel);
    }

    /// Asks for a channel on the live connection.
    pub(super) fn join(&mut self, channel: &Channel) {
        let (Some(live), Some(entry)) = (self.live.as_mut(), self.channels.get(channel)) else { return };
        let id = self.requests.next_id();
        let frame::SubscribeOptions { position, history, presence } = entry.request();
        let frame =
            ClientFrame::Subscribe(Subscribe { id, channel: channel.clone(), position, history, presence });
        if let Err(error) = live.send(&frame, Lane::Reliable) {
            self.refused(channel, error);
            return;
        }
        let phase = match live.phases.remove(channel) {
            // Its `unsubscribed` is still to come.
            Some(Phase::Leaving(_)) => Phase::Leaving(Some(VecDeque::new())),
            _ => Phase::Awaiting(VecDeque::new()),
        };
        live.phases.insert(channel.clone(), phase);
        self.requests.insert(id, Waiter::Subscribe(channel.clone()), live.number);
    }

    /// Leaves a channel on all connections.
    pub(super) fn leave(&mut self, channel: &Channel) {
        if let Some((old, _)) = &mut self.retiring {
            old.phases.remove(channel);
        }
        let Some(live) = self.live.as_mut() else { return };
        if !live.phases.contains_key(channel)
            || matches!(live.phases.get(channel), Some(Phase::Leaving(None)))
        {
            return;
        }
        live.phases.insert(channel.clone(), Phase::Leaving(None));
        let id = self.requests.next_id();
        let frame = ClientFrame::Unsubscribe(Unsubscribe { id, channel: channel.clone() });
        send_or_log(live, &frame, Lane::Reliable);
        self.requests.insert(id, Waiter::Unsubscribe, live.number);
    }

    /// The application has dropped its subscription.
    pub(super) fn forget(&mut self, channel: &Channel, id: u64) {
        if self.channels.get(channel).is_some_and(|entry| entry.id == id) {
            self.channels.remove(channel);
            self.leave(channel);
        }
    }

    /// The reader is too slow: leaves the channel until there is room.
    fn pause(&mut self, channel: &Channel) {
        let Some(entry) = self.channels.get_mut(channel).filter(|entry| !entry.paused) else { return };
        entry.paused = true;
        let (room, name, id) = (entry.room(), channel.clone(), entry.id);
        self.rooms.push(Box::pin(async move {
            room.await;
            (name, id)
        }));
        self.leave(channel);
    }

    pub(super) fn rejoin(&mut self, channel: &Channel, id: u64) {
        let Some(entry) = self.channels.get_mut(channel).filter(|entry| entry.id == id) else { return };
        if mem::take(&mut entry.paused) {
            self.join(channel);
        }
    }

    pub(super) fn send_publishes(&mut self) {
        if self.publishes.is_empty() {
            return;
        }
        let Some(number) = self.live.as_ref().map(|live| live.number) else { return };
        for publish in self.publishes.unsent(number) {
            self.send_publish(publish);
        }
    }

    pub(super) fn send_publish(&mut self, number: u64) {
        let Some(live) = self.live.as_mut() else { return };
        let Some(waiting) = self.publishes.send(number, live.number, Instant::now()) else { return };
        let id = self.requests.next_id();
        let frame = ClientFrame::Publish(Publish {
            id,
            channel: waiting.channel.clone(),
            data: waiting.data.clone(),
            key: Some(waiting.key.clone()),
        });
        match live.send(&frame, Lane::Reliable) {
            Ok(()) => self.requests.insert(id, Waiter::Publish(number), live.number),
            Err(error) => self.publishes.refuse(number, error, Instant::now()),
        }
    }

    pub(super) fn emit(&mut self, emit: Emit) {
        if let Some(live) = self.live.as_mut().filter(|live| !live.is_congested()) {
            send_or_log(live, &ClientFrame::Emit(emit), Lane::Datagram);
        }
    }

    pub(super) fn request(
        &mut self,
        frame: Box<dyn FnOnce(RequestId) -> ClientFrame + Send>,
        reply: oneshot::Sender<Result<ServerFrame, RequestError>>,
    ) {
        let id = self.requests.next_id();
        let sent = match (self.live.as_mut(), self.requests.admit()) {
            (None, _) => Err(RequestError::not_connected()),
            (_, Err(error)) => Err(error),
            (Some(live), Ok(())) => live.send(&frame(id), Lane::Reliable).map(|()| live.number),
        };
        match sent {
            Ok(connection) => self.requests.insert(id, Waiter::Reply(reply), connection),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    pub(super) fn network(&mut self, hint: Network) {
        self.options.network = hint.clone();
        if let Some(live) = &mut self.live {
            send_or_log(live, &ClientFrame::Network(hint), Lane::Reliable);
        }
    }

    /// Sends a token that was fetched ahead of the old one's expiry.
    pub(super) fn refresh(&mut self, token: Result<Option<Arc<str>>, TokenError>) {
        self.fetching = None;
        let Some(live) = self.live.as_mut() else { return };
        match token {
            Ok(Some(token)) => {
                let id = self.requests.next_id();
                send_or_log(live, &ClientFrame::Refresh(Refresh { id, token }), Lane::Reliable);
                self.requests.insert(id, Waiter::Refresh, live.number);
            }
            Ok(None) => {}
            // The node will say when the old one has expired; the source is asked again then.
            Err(error) => tracing::warn!(%error, "no new token ahead of expiry"),
        }
    }
}

/// Sends what has no reply that anybody waits for.
fn send_or_log(live: &mut Live, frame: &ClientFrame, lane: Lane) {
    if let Err(error) = live.send(frame, lane) {
        tracing::warn!(%error, "a frame was not sent");
    }
}
