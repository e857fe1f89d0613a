//! What goes over a connection: frames to their channels and waiters, requests to the wire.

use super::{
    End, Session, Which,
    connection::{Doubted, Live},
    moment::Moment,
    opening::{Opening, Purpose},
    phases::Arrival,
    requests::{Pending, Waiter},
};
use crate::{
    error::RequestError,
    options::{TokenError, TokenSource},
    transport::{Closed, Lane, Received, Via},
    url::NodeUrl,
};
use skywave_protocol::{
    Channel, ClientFrame, DecodeError, ErrorCode, RequestId, ServerFrame,
    frame::{self, Emit, Network, Pong, Publish, Refresh, Unsubscribe},
};
use std::{ops::ControlFlow, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// The channel of a request that only asks whether the node is there: nobody has subscribed to it.
const NOBODYS_CHANNEL: &str = "skywave:nobody";
/// The least time from one doubt that led to another connection to the next doubt: a node that has to serve too many may
/// fall silent again and again, and each connection costs it more than it has.
const DOUBTS_APART: Duration = Duration::from_secs(30);

impl Session {
    fn connection(&mut self, which: Which) -> Option<&mut Live> {
        match which {
            Which::Live => self.live.as_mut(),
            Which::Retiring => self.retiring.as_mut().map(|(live, _)| live),
        }
    }

    // ---- from the node

    pub(super) fn received(&mut self, which: Which, received: &Received) -> ControlFlow<End> {
        let outcome = self.take(which, received);
        if let Some(number) = self.connection(which).map(|live| live.number)
            && self.requests.are_owed_by(number)
            && let Some(live) = self.connection(which)
        {
            live.owes();
        }
        if which == Which::Live {
            self.trust();
        }
        outcome
    }

    fn take(&mut self, which: Which, received: &Received) -> ControlFlow<End> {
        let Some(live) = self.connection(which) else { return ControlFlow::Continue(()) };
        live.heard();
        match live.encoding.decode_server(&received.frame) {
            Ok(frame) => self.frame(which, frame, Arrival { via: received.via, bytes: received.frame.len() }),
            Err(DecodeError::Unknown { name, .. }) => {
                tracing::debug!(name, "unknown frame");
                ControlFlow::Continue(())
            }
            Err(error @ DecodeError::Invalid { .. }) => {
                self.misunderstood(which, error);
                ControlFlow::Continue(())
            }
            Err(error @ DecodeError::Malformed(_)) if which == Which::Live => self.fault(&error.to_string()),
            Err(DecodeError::Malformed(_)) => {
                self.retire();
                ControlFlow::Continue(())
            }
        }
    }

    /// The node broke the protocol: what the live connection says further cannot be trusted.
    pub(super) fn fault(&mut self, problem: &str) -> ControlFlow<End> {
        tracing::warn!(problem, "protocol fault; resuming on another connection");
        self.lost(Closed::lost(format!("protocol fault: {problem}")))
    }

    /// A frame of a known name says something unknown, as that of a newer node may. It harms nothing else: to whoever
    /// waits for it the node has failed for the moment, since it may have done what was asked; and where a publication
    /// is missing for it, its channel recovers.
    fn misunderstood(&mut self, which: Which, problem: DecodeError) {
        tracing::warn!(%problem, "a frame cannot be understood");
        let message = format!("the answer cannot be understood: {problem}");
        let error = frame::Error::new(problem.id(), ErrorCode::Internal, message);
        if error.id.is_some() {
            self.error(which, error);
        } else if let DecodeError::Invalid { name, channel: Some(channel), .. } = problem
            && matches!(name.as_str(), "subscribed" | "unsubscribed")
            && which == Which::Live
        {
            // How the channel stands nobody knows: it is asked for again.
            self.unsubscribed(frame::Unsubscribed { id: None, channel, code: None, reason: None });
        }
    }

    pub(super) fn frame(&mut self, which: Which, frame: ServerFrame, arrival: Arrival) -> ControlFlow<End> {
        match frame {
            ServerFrame::Publication(frame::Publication { ref channel, .. })
            | ServerFrame::Event(frame::Event { ref channel, .. })
            | ServerFrame::Gap(frame::Gap { ref channel, .. })
            | ServerFrame::PresenceChanged(frame::PresenceChanged { ref channel, .. }) => {
                // On a connection that retires, the live one brings the same.
                if which == Which::Live {
                    let channel = channel.clone();
                    return self.channel_frame(&channel, frame, arrival);
                }
            }
            ServerFrame::Subscribed(subscribed) => {
                subscribed.id.and_then(|id| self.reply(which, id));
                if which == Which::Live {
                    return self.subscribed(subscribed);
                }
            }
            ServerFrame::Unsubscribed(unsubscribed) => {
                unsubscribed.id.and_then(|id| self.reply(which, id));
                if which == Which::Live {
                    self.unsubscribed(unsubscribed);
                }
            }
            ServerFrame::Published(published) => {
                if let Some(Pending { waiter: Waiter::Publish(number), .. }) = self.reply(which, published.id)
                {
                    self.publishes.answer(number, published);
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
            ServerFrame::Stream(stream) => {
                if let (Via::Stream(id), Some(live)) = (arrival.via, self.connection(which)) {
                    live.phases.began(&stream, id);
                }
            }
            ServerFrame::Connected(_) | ServerFrame::Drain(_) => {}
        }
        ControlFlow::Continue(())
    }

    /// Takes the request that a reply belongs to.
    fn reply(&mut self, which: Which, id: RequestId) -> Option<Pending> {
        let pending = self.requests.take(id)?;
        if self.ran_since(pending.sent_at)
            && let Some(live) = self.connection(which)
        {
            live.replied(pending.sent_at.elapsed());
        }
        Some(pending)
    }

    fn answer(&mut self, which: Which, id: RequestId, frame: ServerFrame) {
        let Some(Pending { waiter, .. }) = self.reply(which, id) else { return };
        if let (Waiter::Refresh(token, _), ServerFrame::Refreshed(refreshed)) = (&waiter, &frame)
            && which == Which::Live
        {
            self.token_taken(Some(token.clone()), Some(refreshed.expires_at_ms));
        }
        waiter.answer(Ok(frame));
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
            Waiter::Subscribe(channel) if which == Which::Live => self.subscribe_failed(&channel, id, error),
            Waiter::Unsubscribe(channel) if which == Which::Live => self.unsubscribe_failed(&channel, error),
            Waiter::Subscribe(_) | Waiter::Unsubscribe(_) | Waiter::Probe => {}
            Waiter::Refresh(token, reply) => {
                if !error.transient {
                    self.token_refused(Some(&token));
                }
                match reply {
                    Some(reply) => Waiter::Reply(reply).answer(Err(error)),
                    None => {
                        tracing::warn!(%error, "the token was not refreshed");
                        self.tokens.failed(Instant::now());
                    }
                }
            }
            Waiter::Reply(_) => waiter.answer(Err(error)),
        }
    }

    fn pong(&mut self, which: Which, ping: frame::Ping) {
        if let Some(live) = self.connection(which) {
            live.pinged(ping);
            live.send_or_log(&ClientFrame::Pong(Pong { seq: ping.seq }), Lane::Datagram);
        }
    }

    /// Sends a sign of life on a path that has been silent for too long.
    pub(super) fn nudge(&mut self, now: Instant) {
        if let Some(live) = &mut self.live
            && let Some(seq) = live.nudge(now)
        {
            live.send_or_log(&ClientFrame::Pong(Pong { seq }), Lane::Datagram);
        }
    }

    /// The machine slept: the connection may be gone without a word. The node is asked for one, and has the heartbeat's
    /// time-out for it.
    pub(super) fn woke(&mut self, now: Instant) {
        if let Some(live) = &mut self.live {
            live.woke(now);
            self.probe();
        }
    }

    /// Asks the node for any answer.
    fn probe(&mut self) {
        let (Some(live), Ok(channel)) = (&mut self.live, Channel::new(NOBODYS_CHANNEL)) else { return };
        let id = self.requests.next_id();
        live.send_or_log(&ClientFrame::Unsubscribe(Unsubscribe { id, channel }), Lane::Reliable);
        self.requests.insert(id, Waiter::Probe, live.number);
    }

    /// The node owes a reply and says nothing: it is asked for a sign of life, and then another connection is opened beside
    /// its own. A path that drops all packets, and a port that is closed without a word, look the same.
    pub(super) fn doubt(&mut self, now: Instant) {
        let earliest = self.doubts_from;
        match self.live.as_mut().and_then(|live| live.doubted(earliest, now)) {
            Some(Doubted::AskNode) => self.probe(),
            Some(Doubted::SeekAnother) => {
                self.doubts_from = now + DOUBTS_APART;
                self.candidates.begin_round();
                // A node that drains has said where to go, if later.
                let named = self.next_move.as_ref().and_then(|next| next.url.clone());
                self.seek_another(named);
            }
            None => {}
        }
    }

    /// Opens another connection beside the one that is doubted, where there is a node that may be asked in this round; with
    /// `named` first. A move that is due later stays so, unless another node is reached.
    pub(super) fn seek_another(&mut self, named: Option<NodeUrl>) {
        let is_doubted = self.live.as_ref().is_some_and(Live::is_doubted);
        if is_doubted && self.opening.is_none() && !self.candidates.is_exhausted(Instant::now()) {
            self.open(Purpose::Connect, named, None);
        }
    }

    /// The node lives: what a doubt has begun beside its connection, and has not been told of to another one, is given up.
    fn trust(&mut self) {
        if self.live.is_none() {
            return;
        }
        let is_doubt =
            |opening: &mut Opening| matches!(opening.purpose, Purpose::Connect) && !opening.is_greeting;
        if self.opening.take_if(is_doubt).is_some() {
            self.attempts = 0;
        }
    }

    // ---- to the node

    pub(super) fn send_publishes(&mut self) {
        if self.publishes.is_empty() {
            return;
        }
        self.publishes.expire(Moment::now());
        if self.live.is_some() {
            for publish in self.publishes.sendable(Instant::now()) {
                self.send_publish(publish);
            }
        }
    }

    fn send_publish(&mut self, number: u64) {
        let Some(live) = self.live.as_mut() else { return };
        let Some(waiting) = self.publishes.send(number, live.number, Moment::now()) else { return };
        let id = self.requests.next_id();
        let frame = ClientFrame::Publish(Publish {
            id,
            channel: waiting.channel.clone(),
            data: waiting.data.clone(),
            key: Some(waiting.key.clone()),
        });
        match live.send(&frame, Lane::Reliable) {
            Ok(()) => self.requests.insert(id, Waiter::Publish(number), live.number),
            Err(error) => self.publishes.refuse(number, error),
        }
    }

    pub(super) fn emit(&mut self, emit: Emit) {
        if let Some(live) = self.live.as_mut().filter(|live| !live.is_congested()) {
            live.send_or_log(&ClientFrame::Emit(emit), Lane::Datagram);
        }
    }

    pub(super) fn request(&mut self, frame: impl FnOnce(RequestId) -> ClientFrame, waiter: Waiter) {
        let id = self.requests.next_id();
        let sent = match (self.live.as_mut(), self.requests.admit()) {
            (None, _) => Err(RequestError::not_connected()),
            (_, Err(error)) => Err(error),
            (Some(live), Ok(())) => live.send(&frame(id), Lane::Reliable).map(|()| live.number),
        };
        match sent {
            Ok(connection) => self.requests.insert(id, waiter, connection),
            Err(error) => waiter.answer(Err(error)),
        }
    }

    /// Takes a newer token from the application, and brings it to the node.
    pub(super) fn bring(
        &mut self,
        token: Arc<str>,
        reply: oneshot::Sender<Result<ServerFrame, RequestError>>,
    ) {
        if let TokenSource::Fixed(fixed) = &mut self.options.token {
            *fixed = token.clone();
        }
        let waiter = Waiter::Refresh(token.clone(), Some(reply));
        self.request(|id| ClientFrame::Refresh(Refresh { id, token }), waiter);
    }

    /// A node does not take a token: goes back to the one that was taken last, unless another one has been brought since.
    pub(super) fn token_refused(&mut self, token: Option<&Arc<str>>) {
        if let (TokenSource::Fixed(fixed), Some(taken)) = (&mut self.options.token, &self.taken)
            && token == Some(fixed)
        {
            *fixed = taken.clone();
        }
    }

    pub(super) fn network(&mut self, hint: Network) {
        self.options.network = hint.clone();
        if let Some(live) = &mut self.live {
            live.send_or_log(&ClientFrame::Network(hint), Lane::Reliable);
        }
    }

    /// Sends a token that was fetched ahead of the old one's expiry.
    pub(super) fn refresh(&mut self, token: Result<Option<Arc<str>>, TokenError>) {
        self.fetching = None;
        let Some(live) = self.live.as_mut() else { return };
        match token {
            Ok(Some(token)) => {
                let id = self.requests.next_id();
                let waiter = Waiter::Refresh(token.clone(), None);
                live.send_or_log(&ClientFrame::Refresh(Refresh { id, token }), Lane::Reliable);
                self.requests.insert(id, waiter, live.number);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "no new token ahead of expiry");
                self.tokens.failed(Instant::now());
            }
        }
    }
}
