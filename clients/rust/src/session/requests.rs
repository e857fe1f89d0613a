//! Requests that wait for their reply.

use crate::error::RequestError;
use skywave_protocol::{Channel, ErrorCode, RequestId, ServerFrame};
use std::{collections::HashMap, sync::Arc};
use tokio::{sync::oneshot, time::Instant};

/// How many requests other than publishes may wait.
const MAX_REQUESTS: usize = 1024;

type Reply = oneshot::Sender<Result<ServerFrame, RequestError>>;

/// Who waits for a reply.
#[derive(Debug)]
pub(super) enum Waiter {
    /// The publish of that number.
    Publish(u64),
    Subscribe(Channel),
    Unsubscribe(Channel),
    /// Any answer will do: it shows that the node is there.
    Probe,
    /// With the application that has brought the token, unless the client brings it by itself.
    Refresh(Arc<str>, Option<Reply>),
    Reply(Reply),
}

impl Waiter {
    /// The application, where it is who waits.
    fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Reply(reply) | Self::Refresh(_, Some(reply)) => Some(reply),
            _ => None,
        }
    }

    /// Tells the application, where it is who waits.
    pub fn answer(self, answer: Result<ServerFrame, RequestError>) {
        if let Self::Reply(reply) | Self::Refresh(_, Some(reply)) = self {
            // Nobody may wait any more: then it came too late.
            let _ = reply.send(answer);
        }
    }
}

#[derive(Debug)]
pub(super) struct Pending {
    pub waiter: Waiter,
    /// The connection on which the request was sent.
    pub connection: u64,
    pub sent_at: Instant,
}

/// All requests without a reply, by id. Ids are unique over all connections of the client.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: HashMap<RequestId, Pending>,
    last_id: u32,
}

impl Requests {
    /// An id that no pending request has.
    pub fn next_id(&mut self) -> RequestId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = RequestId::new(self.last_id)
                && !self.pending.contains_key(&id)
            {
                return id;
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn insert(&mut self, id: RequestId, waiter: Waiter, connection: u64) {
        self.pending.insert(id, Pending { waiter, connection, sent_at: Instant::now() });
    }

    pub fn take(&mut self, id: RequestId) -> Option<Pending> {
        self.pending.remove(&id)
    }

    /// Refuses a further request when too many wait; those that nobody waits for any more are dropped.
    pub fn admit(&mut self) -> Result<(), RequestError> {
        let full = |pending: &HashMap<_, _>| pending.len() >= MAX_REQUESTS;
        if full(&self.pending) {
            self.pending.retain(|_, pending| pending.waiter.reply().is_none_or(|reply| !reply.is_closed()));
        }
        let replies = self.pending.values().filter(|pending| pending.waiter.reply().is_some());
        if full(&self.pending) && replies.count() >= MAX_REQUESTS {
            return Err(RequestError::local(
                ErrorCode::LimitReached,
                "too many requests wait for their reply",
            ));
        }
        Ok(())
    }

    /// Whether any reply on this connection is outstanding.
    pub fn are_owed_by(&self, connection: u64) -> bool {
        self.pending.values().any(|pending| pending.connection == connection)
    }

    /// Whether somebody waits for a reply on this connection that no other can give.
    pub fn needs(&self, connection: u64) -> bool {
        self.pending
            .values()
            .any(|pending| pending.connection == connection && pending.waiter.reply().is_some())
    }

    /// The connection is gone: nobody will answer on it.
    pub fn lost(&mut self, connection: u64) {
        let lost: Vec<RequestId> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.connection == connection)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            if let Some(pending) = self.pending.remove(&id) {
                pending.waiter.answer(Err(RequestError::lost()));
            }
        }
    }

    pub fn fail_all(&mut self, error: &RequestError) {
        for (_, pending) in self.pending.drain() {
            pending.waiter.answer(Err(error.clone()));
        }
    }
}
