//! What goes over a connection: requests to the wire, replies to whoever waits for them; for channels see `subscribing`.

use crate::{
    Backoff, Chance, Connection, ConnectionId, Lane, Output, Publish, Reader, RequestError, Ticket, Time,
    Waiter,
    heartbeat::Heartbeat,
    publishes::Publishes,
    requests::{Pending, Requests},
    subscribing::{Live, Wanted},
    subscription::Subscription,
};
use skywave_protocol::{
    Channel, ClientFrame, ErrorCode, RequestId, ServerFrame,
    frame::{self, Connected},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

/// What a session's traffic can be told.
#[derive(Debug, Clone, Copy)]
pub struct TrafficOptions {
    /// The wait before a publish that failed for the moment is sent again.
    pub backoff: Backoff,
    /// How many publishes may wait for their answer.
    pub publish_queue: usize,
}

/// What came of a request that is neither a publish nor a question.
#[derive(Debug)]
pub(crate) enum Settled {
    /// The node takes this token, which expires then, in milliseconds since 1970.
    TokenTaken { token: Arc<str>, expires_at_ms: u64 },
    /// It does not, or not now. `is_own`: the client had brought it by itself.
    TokenRefused { token: Arc<str>, error: RequestError, is_own: bool },
}

/// The traffic of a session: what it has asked for on the connection that carries it, and what waits for one.
pub struct Traffic<R> {
    pub(crate) subscriptions: BTreeMap<Channel, Subscription<R>>,
    /// When those are asked for again that the node refused for the moment; perhaps of one that has gone.
    pub(crate) resumes: BTreeSet<(Time, Channel)>,
    pub(crate) backoff: Backoff,
    pub(crate) chance: Chance,
    /// The connection that carries the session.
    pub(crate) live: Option<Live>,
    /// Whoever is silent is not doubted before.
    pub(crate) doubts_from: Time,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) requests: Requests,
    publishes: Publishes,
    /// The last session's user; nobody's when anonymous, and none before the first one.
    user: Option<Option<Arc<str>>>,
    /// The node that served last.
    node: Option<Arc<str>>,
}

impl<R: Reader> Traffic<R> {
    pub(crate) fn new(options: TrafficOptions, chance: Chance) -> Self {
        Self {
            subscriptions: BTreeMap::new(),
            resumes: BTreeSet::new(),
            backoff: options.backoff,
            chance,
            live: None,
            doubts_from: Time::BEGIN,
            outputs: VecDeque::new(),
            user: None,
            node: None,
            publishes: Publishes::new(options.publish_queue, options.backoff),
            requests: Requests::default(),
        }
    }

    // ---- connections

    /// The session is on this connection from now on, with what its node tells of its limits, and what `connect` has asked
    /// for. What else was waited for is asked there by [`Self::catch_up`]. Answers whether it is on another node than
    /// before.
    pub(crate) fn connected(
        &mut self,
        connection: Connection,
        connected: &Connected,
        wanted: Wanted,
        now: Time,
    ) -> bool {
        let limits = &connected.limits;
        self.live = Some(Live::new(connection, wanted, Heartbeat::new(connected.heartbeat, now)));
        self.requests.trips.forget();
        self.publishes.recall();
        self.publishes.pacer.limit(limits.publishes_per_second);
        self.publishes.remembered_for(Duration::from_millis(limits.idempotency_ms));
        if self.user.replace(connected.user.clone()).is_some_and(|before| before != connected.user) {
            // What one user has asked for is not done in the name of another.
            self.fail_all(&RequestError::another_user());
        }
        let is_elsewhere =
            self.node.replace(connected.node.clone()).is_some_and(|before| before != connected.node);
        if is_elsewhere {
            // What another node could not do for the moment, this one may.
            self.publishes.release_all();
        }
        is_elsewhere
    }

    /// Brings the new connection to what the application has asked for meanwhile.
    pub(crate) fn catch_up(&mut self, now: Time) {
        self.catch_up_channels(now);
        self.send_waiting(now);
        self.send_publishes(now);
    }

    fn send_waiting(&mut self, now: Time) {
        let Some(connection) = self.connection() else { return };
        for (id, frame) in self.requests.take_unsent(connection.id, now) {
            if let Err(error) = self.send(&connection, &frame)
                && let Some(ticket) = self.requests.take(id).and_then(|pending| pending.waiter.ticket())
            {
                self.answer(ticket, Err(error));
            }
        }
    }

    /// A connection is gone, the one that carries the session or one that it has left: what may be asked twice is asked on
    /// the one that there is, or waits for the next.
    pub(crate) fn lost(&mut self, connection: ConnectionId, now: Time) {
        if self.connection().is_some_and(|carrying| carrying.id == connection) {
            self.live = None;
            self.publishes.recall();
        }
        for ticket in self.requests.lost(connection) {
            self.answer(ticket, Err(RequestError::lost()));
        }
        self.send_waiting(now);
    }

    /// Whether somebody waits for a reply on this connection that no other can give.
    pub(crate) fn needs(&self, connection: ConnectionId) -> bool {
        self.requests.need(connection)
    }

    /// The smoothed time from request to reply on the connection that carries the session.
    pub fn round_trip(&self) -> Option<Duration> {
        self.requests.trips.smoothed()
    }

    // ---- from the application

    /// Publishes, now or once there is a connection and its turn has come.
    pub fn publish(&mut self, publish: Publish, now: Time) {
        let ticket = publish.ticket;
        match self.publishes.push(publish) {
            Ok(()) => self.send_publishes(now),
            Err(error) => self.answer(ticket, Err(error)),
        }
    }

    /// Asks the node for something, now or once there is a connection, and again after a break where that does no harm.
    pub fn ask(
        &mut self,
        ticket: Ticket,
        make: impl FnOnce(RequestId) -> ClientFrame,
        patience: Duration,
        now: Time,
    ) {
        match self.requests.ask(ticket, make, patience, now) {
            Ok(()) => self.send_waiting(now),
            Err(error) => self.answer(ticket, Err(error)),
        }
    }

    /// Gives the node a newer token of the application's, which the next connection begins with where there is none.
    pub(crate) fn bring(&mut self, ticket: Ticket, token: Arc<str>, now: Time) {
        let sent = if self.may_ask() {
            let waiter = Waiter::Refresh(token.clone(), Some(ticket));
            self.request(waiter, |id| ClientFrame::Refresh(frame::Refresh { id, token }), now).map(|_| ())
        } else {
            Err(RequestError::too_many("too many requests wait for their reply"))
        };
        if let Err(error) = sent {
            self.answer(ticket, Err(error));
        }
    }

    /// Whether one more question may wait for its reply.
    pub fn may_ask(&self) -> bool {
        self.requests.has_room()
    }

    /// The application waits no more for what it has asked for.
    pub fn forget(&mut self, ticket: Ticket) {
        self.requests.forget(ticket);
    }

    /// Whoever waits is told.
    pub(crate) fn fail_all(&mut self, error: &RequestError) {
        for ticket in self.publishes.drain().into_iter().chain(self.requests.drain()) {
            self.answer(ticket, Err(error.clone()));
        }
    }

    // ---- to the node

    pub(crate) fn connection(&self) -> Option<Connection> {
        self.live.as_ref().map(|live| live.connection)
    }

    /// An id for a request that is sent elsewhere than here.
    pub(crate) fn next_id(&mut self) -> RequestId {
        self.requests.next_id()
    }

    /// Sends a request of the session itself.
    ///
    /// # Errors
    /// `unavailable` without a connection, `bad_request` when the node takes no frames of that size.
    pub(crate) fn request(
        &mut self,
        waiter: Waiter,
        make: impl FnOnce(RequestId) -> ClientFrame,
        now: Time,
    ) -> Result<RequestId, RequestError> {
        let connection = self.connection().ok_or_else(RequestError::not_connected)?;
        let id = self.requests.next_id();
        self.send(&connection, &make(id))?;
        self.requests.sent(id, waiter, connection.id, now);
        Ok(id)
    }

    fn send_publishes(&mut self, now: Time) {
        for ticket in self.publishes.expire(now) {
            self.answer(ticket, Err(RequestError::outcome_unknown()));
        }
        let Some(connection) = self.connection() else { return };
        for (number, publish) in self.publishes.take(connection.id, now) {
            let Publish { channel, data, key, .. } = publish;
            let make = |id| ClientFrame::Publish(frame::Publish { id, channel, data, key: Some(key) });
            if let Err(error) = self.request(Waiter::Publish(number), make, now)
                && let Some(ticket) = self.publishes.remove(number)
            {
                self.answer(ticket, Err(error));
            }
        }
    }

    /// Sends what has no reply, where there is a connection.
    ///
    /// # Errors
    /// `bad_request` when the node takes no frames of that size.
    pub fn say(&mut self, frame: &ClientFrame, lane: Lane) -> Result<(), RequestError> {
        if let Some(connection) = self.connection() {
            let frame = connection.encode(frame)?;
            self.outputs.push_back(Output::Send { connection: connection.id, frame, lane });
        }
        Ok(())
    }

    fn send(&mut self, connection: &Connection, frame: &ClientFrame) -> Result<(), RequestError> {
        let frame = connection.encode(frame)?;
        self.outputs.push_back(Output::Send { connection: connection.id, frame, lane: Lane::Reliable });
        Ok(())
    }

    pub(crate) fn answer(&mut self, ticket: Ticket, answer: Result<ServerFrame, RequestError>) {
        self.outputs.push_back(Output::Answer { ticket, answer });
    }

    // ---- from the node

    /// A reply has come that is of a channel, where more is made of it: `subscribed`, `unsubscribed`.
    pub(crate) fn replied(&mut self, id: RequestId, now: Time) -> Option<Settled> {
        let pending = self.requests.replied(id, now)?;
        match pending.waiter {
            Waiter::Subscribe(_) | Waiter::Unsubscribe(_) | Waiter::Probe => None,
            _ => self.fail(id, pending, unexpected(), now),
        }
    }

    /// A reply has come: `published`, `history`, `presence`, `result`, `refreshed`.
    pub(crate) fn answered(&mut self, id: RequestId, frame: ServerFrame, now: Time) -> Option<Settled> {
        let pending = self.requests.replied(id, now)?;
        match (&pending.waiter, &frame) {
            (Waiter::Publish(number), ServerFrame::Published(_)) => {
                if let Some(ticket) = self.publishes.remove(*number) {
                    self.answer(ticket, Ok(frame));
                }
                None
            }
            (Waiter::Refresh(token, ticket), ServerFrame::Refreshed(refreshed)) => {
                let (token, expires_at_ms) = (token.clone(), refreshed.expires_at_ms);
                if let Some(ticket) = ticket {
                    self.answer(*ticket, Ok(frame));
                }
                Some(Settled::TokenTaken { token, expires_at_ms })
            }
            (Waiter::Question(ticket, question), _) if question.is_answered_by(&frame) => {
                self.answer(*ticket, Ok(frame));
                None
            }
            _ => self.fail(id, pending, unexpected(), now),
        }
    }

    /// A request failed: the node says so, or its answer cannot be understood.
    pub(crate) fn failed(&mut self, id: RequestId, error: RequestError, now: Time) -> Option<Settled> {
        let pending = self.requests.replied(id, now)?;
        self.fail(id, pending, error, now)
    }

    fn fail(&mut self, id: RequestId, pending: Pending, error: RequestError, now: Time) -> Option<Settled> {
        match pending.waiter {
            Waiter::Publish(number) => self.publish_failed(number, pending.connection, error, now),
            Waiter::Question(ticket, _) => self.answer(ticket, Err(error)),
            Waiter::Refresh(token, ticket) => {
                if let Some(ticket) = ticket {
                    self.answer(ticket, Err(error.clone()));
                }
                return Some(Settled::TokenRefused { token, error, is_own: ticket.is_none() });
            }
            Waiter::Subscribe(channel) => self.not_subscribed(&channel, id, error, now),
            Waiter::Unsubscribe(channel) => self.not_unsubscribed(&channel, id, &error, now),
            Waiter::Probe => {}
        }
        None
    }

    fn publish_failed(
        &mut self,
        number: u64,
        connection: Option<ConnectionId>,
        error: RequestError,
        now: Time,
    ) {
        let random = (self.chance)();
        let failed = |connection| self.publishes.failed(number, connection, &error, random, now);
        if let Some(ticket) = connection.and_then(failed) {
            self.answer(ticket, Err(error));
        }
    }

    // ---- time

    /// When [`Self::tick`] is to be called: perhaps a moment ago already. Sooner does no harm.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let live = self.live.as_ref();
        let publishes = self.publishes.next_at(live.is_some());
        let leave = live.and_then(Live::next_leave);
        let resume = self.resumes.first().filter(|_| live.is_some()).map(|(at, _)| *at);
        [publishes, self.requests.next_at(), self.next_doubt(), leave, resume].into_iter().flatten().min()
    }

    pub(crate) fn tick(&mut self, now: Time) {
        for ticket in self.requests.expire(now) {
            self.answer(ticket, Err(RequestError::timed_out()));
        }
        self.send_publishes(now);
        self.tick_channels(now);
    }
}

fn unexpected() -> RequestError {
    RequestError::local(ErrorCode::Internal, "the node answered with another kind of reply")
}
