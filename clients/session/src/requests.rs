//! Requests and their replies, by id: ids are unique over all connections of a client.

use crate::{ConnectionId, RequestError, Ticket, Time, round_trips::RoundTrips};
use skywave_protocol::{Channel, ClientFrame, ErrorCode, RequestId, ServerFrame};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// How many requests of the application may wait.
const MAX_TICKETS: usize = 1024;

/// Who waits for a reply.
#[derive(Debug, Clone)]
pub(crate) enum Waiter {
    /// The publish of that number.
    Publish(u64),
    Subscribe(Channel),
    Unsubscribe(Channel),
    /// Any answer will do: it shows that the node is there.
    Probe,
    /// With the application that has brought the token, unless the client brings it by itself.
    Refresh(Arc<str>, Option<Ticket>),
    Question(Ticket, Question),
}

/// What the application has asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    History,
    Presence,
    Call,
}

impl Question {
    /// What a frame asks, if it is one that waits for a connection.
    fn of(frame: &ClientFrame) -> Option<Self> {
        match frame {
            ClientFrame::History(_) => Some(Self::History),
            ClientFrame::Presence(_) => Some(Self::Presence),
            ClientFrame::Call(_) => Some(Self::Call),
            _ => None,
        }
    }

    /// Whether the frame is of the kind that answers it.
    pub(crate) fn is_answered_by(self, frame: &ServerFrame) -> bool {
        match self {
            Self::History => matches!(frame, ServerFrame::History(_)),
            Self::Presence => matches!(frame, ServerFrame::Presence(_)),
            Self::Call => matches!(frame, ServerFrame::Result(_)),
        }
    }

    /// Whether asking it twice does no harm; of a call, the application alone knows.
    fn is_harmless_twice(self) -> bool {
        self != Self::Call
    }
}

impl Waiter {
    /// The application, where it is who waits; publishes wait by themselves.
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Question(ticket, _) | Self::Refresh(_, Some(ticket)) => Some(*ticket),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) waiter: Waiter,
    /// The connection on which it was sent; none while it waits for one.
    pub(crate) connection: Option<ConnectionId>,
    sent_at: Time,
    /// Of questions alone: what the session makes by itself has the connection's own time.
    expires_at: Option<Time>,
    /// Of a question that was never sent, or that does no harm when it is asked twice: what to send.
    question: Option<ClientFrame>,
    /// The place among all in the order in which they were asked.
    number: u64,
}

/// All requests without a reply.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) trips: RoundTrips,
    pending: HashMap<RequestId, Pending>,
    /// Those of them that wait for a connection, by their numbers.
    unsent: BTreeMap<u64, RequestId>,
    expiries: BTreeSet<(Time, RequestId)>,
    /// When each was sent last, or taken in.
    begins: BTreeSet<(Time, RequestId)>,
    /// Those that the application waits for.
    tickets: BTreeMap<Ticket, RequestId>,
    last_id: u32,
    asked: u64,
}

impl Requests {
    /// An id that no pending request has.
    pub(crate) fn next_id(&mut self) -> RequestId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = RequestId::new(self.last_id)
                && !self.pending.contains_key(&id)
            {
                return id;
            }
        }
    }

    /// Whether the application may wait for one more.
    pub(crate) fn has_room(&self) -> bool {
        self.tickets.len() < MAX_TICKETS
    }

    /// A request was sent on `connection`, and waits for its reply from now on.
    pub(crate) fn sent(&mut self, id: RequestId, waiter: Waiter, connection: ConnectionId, now: Time) {
        self.begin(id, waiter, now).connection = Some(connection);
    }

    /// Takes a question in. It is sent when there is a connection, and waits for its reply for so long.
    ///
    /// # Errors
    /// `limit_reached` when too many wait, `bad_request` for what is no question.
    pub(crate) fn ask(
        &mut self,
        ticket: Ticket,
        make: impl FnOnce(RequestId) -> ClientFrame,
        patience: Duration,
        now: Time,
    ) -> Result<(), RequestError> {
        if !self.has_room() {
            return Err(RequestError::too_many("too many requests wait for their reply"));
        }
        let (id, expires_at) = (self.next_id(), now + patience);
        let frame = make(id);
        let question = Question::of(&frame);
        let question =
            question.ok_or_else(|| RequestError::local(ErrorCode::BadRequest, "this is no question"))?;
        let pending = self.begin(id, Waiter::Question(ticket, question), now);
        pending.question = Some(frame);
        pending.expires_at = Some(expires_at);
        let number = pending.number;
        self.expiries.insert((expires_at, id));
        self.unsent.insert(number, id);
        Ok(())
    }

    fn begin(&mut self, id: RequestId, waiter: Waiter, now: Time) -> &mut Pending {
        if self.pending.is_empty() {
            self.trips.begin(now);
        }
        if let Some(ticket) = waiter.ticket() {
            self.tickets.insert(ticket, id);
        }
        self.begins.insert((now, id));
        self.asked += 1;
        let number = self.asked;
        let pending =
            Pending { waiter, connection: None, sent_at: now, expires_at: None, question: None, number };
        self.pending.entry(id).insert_entry(pending).into_mut()
    }

    /// What waits for a connection, oldest first: it counts as sent on this one.
    pub(crate) fn take_unsent(
        &mut self,
        connection: ConnectionId,
        now: Time,
    ) -> Vec<(RequestId, ClientFrame)> {
        let unsent = std::mem::take(&mut self.unsent).into_values();
        let sent = unsent.filter_map(|id| {
            let pending = self.pending.get_mut(&id)?;
            pending.connection = Some(connection);
            self.begins.remove(&(pending.sent_at, id));
            self.begins.insert((now, id));
            pending.sent_at = now;
            let frame = match pending.waiter {
                Waiter::Question(_, question) if question.is_harmless_twice() => pending.question.clone(),
                _ => pending.question.take(),
            };
            Some((id, frame?))
        });
        sent.collect()
    }

    /// Takes the request that the reply belongs to which has come now.
    pub(crate) fn replied(&mut self, id: RequestId, now: Time) -> Option<Pending> {
        let pending = self.take(id)?;
        self.trips.replied(pending.sent_at, now);
        Some(pending)
    }

    /// Takes a request that does not wait any longer.
    pub(crate) fn take(&mut self, id: RequestId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.unsent.remove(&pending.number);
        self.begins.remove(&(pending.sent_at, id));
        if let Some(at) = pending.expires_at {
            self.expiries.remove(&(at, id));
        }
        if let Some(ticket) = pending.waiter.ticket() {
            self.tickets.remove(&ticket);
        }
        Some(pending)
    }

    /// The application waits no more for what it knows by `ticket`.
    pub(crate) fn forget(&mut self, ticket: Ticket) {
        if let Some(id) = self.tickets.get(&ticket).copied() {
            self.take(id);
        }
    }

    /// Since when whoever has waited the longest waits for a reply.
    pub(crate) fn waiting_since(&self) -> Option<Time> {
        self.begins.first().map(|(at, _)| *at)
    }

    /// Whether the application waits for a reply on this connection that no other can give.
    pub(crate) fn need(&self, connection: ConnectionId) -> bool {
        let mut waited_for = self.tickets.values().filter_map(|id| self.pending.get(id));
        waited_for.any(|pending| pending.connection == Some(connection) && pending.question.is_none())
    }

    /// The connection is gone: what may be asked twice waits for the next one; tells who waits for the rest.
    pub(crate) fn lost(&mut self, connection: ConnectionId) -> Vec<Ticket> {
        let was_sent = |(_, pending): &(&RequestId, &Pending)| pending.connection == Some(connection);
        let lost = self.pending.iter().filter(was_sent).map(|(id, pending)| (pending.number, *id));
        let mut tickets = Vec::new();
        for (_, id) in lost.collect::<BTreeSet<_>>() {
            match self.pending.get_mut(&id) {
                Some(pending) if pending.question.is_some() => {
                    pending.connection = None;
                    self.unsent.insert(pending.number, id);
                }
                _ => tickets.extend(self.take(id).and_then(|pending| pending.waiter.ticket())),
            }
        }
        tickets
    }

    /// When the next one has waited for too long, or it is time to look.
    pub(crate) fn next_at(&self) -> Option<Time> {
        let look = Some(self.trips.next_at()).filter(|_| !self.pending.is_empty());
        self.expiries.first().map(|(at, _)| *at).into_iter().chain(look).min()
    }

    /// Takes out those that have waited for too long: tells who waits for them.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<Ticket> {
        if !self.pending.is_empty() {
            self.trips.look(now);
        }
        let mut tickets = Vec::new();
        while let Some((_, id)) = self.expiries.first().filter(|(at, _)| *at <= now).copied() {
            tickets.extend(self.take(id).and_then(|pending| pending.waiter.ticket()));
        }
        tickets
    }

    /// Takes out those of the application: tells who waits for them.
    pub(crate) fn drain(&mut self) -> Vec<Ticket> {
        let tickets: Vec<Ticket> = self.tickets.keys().copied().collect();
        for ticket in &tickets {
            self.forget(*ticket);
        }
        tickets
    }
}
