//! What goes over a connection: frames to their channels and waiters, signs of life.

use super::{
    End, Session, Which,
    connection::Live,
    opening::{Opening, Purpose, arrival_of},
};
use crate::{
    error::RequestError,
    options::{TokenError, TokenSource},
    transport::{Closed, Lane, Received},
    url::NodeUrl,
};
use skywave_client_session::{Arrival, Settled, Waiter};
use skywave_protocol::{
    ClientFrame, DecodeError, ErrorCode, RequestId, ServerFrame,
    frame::{self, Emit, Network, Pong, Refresh},
};
use std::{ops::ControlFlow, sync::Arc};
use tokio::{sync::oneshot, time::Instant};

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
        if which == Which::Live {
            self.trust();
        }
        outcome
    }

    fn take(&mut self, which: Which, received: &Received) -> ControlFlow<End> {
        let Some(live) = self.connection(which) else { return ControlFlow::Continue(()) };
        live.heard();
        let encoding = live.link.encoding;
        if which == Which::Live {
            self.traffic.heard(self.clock.now());
        }
        match encoding.decode_server(&received.frame) {
            Ok(frame) => self.frame(which, frame, arrival_of(received)),
            Err(DecodeError::Unknown { name, .. }) => {
                tracing::debug!(name, "unknown frame");
                ControlFlow::Continue(())
            }
            Err(error @ DecodeError::Invalid { .. }) => self.misunderstood(which, error),
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
    fn misunderstood(&mut self, which: Which, problem: DecodeError) -> ControlFlow<End> {
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
            let ended = frame::Unsubscribed { id: None, channel, code: None, reason: None };
            return self.channel_frame(
                which,
                ServerFrame::Unsubscribed(ended),
                Arrival { stream: None, bytes: 0 },
            );
        }
        ControlFlow::Continue(())
    }

    pub(super) fn frame(&mut self, which: Which, frame: ServerFrame, arrival: Arrival) -> ControlFlow<End> {
        match frame {
            ServerFrame::Publication(_)
            | ServerFrame::Event(_)
            | ServerFrame::Gap(_)
            | ServerFrame::PresenceChanged(_)
            | ServerFrame::Stream(_) => return self.channel_frame(which, frame, arrival),
            ServerFrame::Subscribed(frame::Subscribed { id, .. })
            | ServerFrame::Unsubscribed(frame::Unsubscribed { id, .. }) => {
                self.replied(which, id);
                return self.channel_frame(which, frame, arrival);
            }
            ServerFrame::Published(frame::Published { id, .. })
            | ServerFrame::History(frame::History { id, .. })
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
            ServerFrame::Connected(_) | ServerFrame::Drain(_) => {}
        }
        ControlFlow::Continue(())
    }

    fn channel_frame(&mut self, which: Which, frame: ServerFrame, arrival: Arrival) -> ControlFlow<End> {
        // On a connection that retires, the live one brings the same.
        if which == Which::Live
            && let Err(problem) = self.traffic.channel_frame(frame, arrival, self.clock.now())
        {
            return self.fault(&problem.to_string());
        }
        ControlFlow::Continue(())
    }

    fn replied(&mut self, which: Which, id: Option<RequestId>) {
        if let Some(id) = id {
            let settled = self.traffic.replied(id, self.clock.now());
            self.measured();
            self.settled(which, settled);
        }
    }

    fn answer(&mut self, which: Which, id: RequestId, frame: ServerFrame) {
        let settled = self.traffic.answered(id, frame, self.clock.now());
        self.measured();
        self.settled(which, settled);
    }

    fn error(&mut self, which: Which, error: frame::Error) {
        let Some(id) = error.id else {
            tracing::warn!(code = error.code, message = %error.message, "the node complains");
            return;
        };
        let settled = self.traffic.failed(id, error.into(), self.clock.now());
        self.measured();
        self.settled(which, settled);
    }

    /// Tells the application how long replies take.
    fn measured(&mut self) {
        if let (Some(live), Some(took)) = (&self.live, self.traffic.round_trip()) {
            live.replied(took);
        }
    }

    /// What came of a request of the session itself.
    fn settled(&mut self, which: Which, settled: Option<Settled>) {
        match settled {
            Some(Settled::TokenTaken { token, expires_at_ms }) if which == Which::Live => {
                self.token_taken(Some(token), Some(expires_at_ms));
            }
            Some(Settled::TokenRefused { token, error, is_own }) => {
                if !error.transient {
                    self.token_refused(Some(&token));
                }
                if is_own {
                    tracing::warn!(%error, "the token was not refreshed");
                    self.tokens.failed(self.clock.now());
                }
            }
            _ => {}
        }
    }

    fn pong(&mut self, which: Which, ping: frame::Ping) {
        match (which, &mut self.retiring) {
            (Which::Live, _) => self.traffic.pinged(&ping),
            (Which::Retiring, Some((old, _))) => {
                old.send_or_log(&ClientFrame::Pong(Pong { seq: ping.seq }), Lane::Datagram);
            }
            (Which::Retiring, None) => {}
        }
    }

    /// The machine slept: the connection may be gone without a word.
    pub(super) fn woke(&mut self) {
        self.traffic.woke(self.clock.now());
        self.come_back_now();
    }

    /// Something may have happened to the connection: looks at once.
    pub(super) fn check(&mut self) {
        self.traffic.check(self.clock.now());
        self.come_back_now();
    }

    /// Whoever waits for the next attempt begins it now, unless a node has named the time.
    fn come_back_now(&mut self) {
        if let Some(at) = &mut self.reconnect_at
            && !self.is_told_when
        {
            *at = Instant::now();
            self.route.begin_round();
        }
    }

    /// The node owes a reply and says nothing, though it was asked for a sign of life. A path that drops all packets, and a
    /// port that is closed without a word, look the same.
    pub(super) fn doubt(&mut self) {
        self.route.begin_round();
        // A node that drains has said where to go, if later.
        let named = self.next_move.as_ref().and_then(|next| next.url.clone());
        self.seek_another(named);
    }

    /// Opens another connection beside the one that is doubted, where there is a node that may be asked in this round; with
    /// `named` first. A move that is due later stays so, unless another node is reached.
    pub(super) fn seek_another(&mut self, named: Option<NodeUrl>) {
        if self.traffic.is_doubted() && self.opening.is_none() && !self.route.is_exhausted(self.clock.now()) {
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

    pub(super) fn emit(&mut self, emit: Emit) {
        if self.live.as_ref().is_some_and(|live| !live.is_congested()) {
            self.say(&ClientFrame::Emit(emit), Lane::Datagram);
        }
    }

    /// Sends a request that the session makes by itself.
    pub(super) fn ask_node(&mut self, waiter: Waiter, make: impl FnOnce(RequestId) -> ClientFrame) {
        if let Err(error) = self.traffic.request(waiter, make, self.clock.now()) {
            tracing::warn!(%error, "a request was not sent");
        }
    }

    /// Where as many questions wait as may, those whom nobody waits for any more make room.
    pub(super) fn make_room(&mut self) {
        if !self.traffic.may_ask() {
            for ticket in self.answers.take_gone() {
                self.traffic.forget(ticket);
            }
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
        self.make_room();
        let ticket = self.answers.wait(reply);
        self.traffic.bring(ticket, token, self.clock.now());
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
        self.say(&ClientFrame::Network(hint), Lane::Reliable);
    }

    /// Sends what nobody waits for an answer to.
    pub(super) fn say(&mut self, frame: &ClientFrame, lane: Lane) {
        if let Err(error) = self.traffic.say(frame, lane) {
            tracing::warn!(%error, "a frame was not sent");
        }
    }

    /// Sends a token that was fetched ahead of the old one's expiry.
    pub(super) fn refresh(&mut self, token: Result<Option<Arc<str>>, TokenError>) {
        self.fetching = None;
        if self.live.is_none() {
            return;
        }
        match token {
            Ok(Some(token)) => {
                let waiter = Waiter::Refresh(token.clone(), None);
                self.ask_node(waiter, |id| ClientFrame::Refresh(Refresh { id, token }));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "no new token ahead of expiry");
                self.tokens.failed(self.clock.now());
            }
        }
    }
}
