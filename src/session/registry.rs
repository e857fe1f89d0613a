//! The sessions that are connected to this node, by id and by user.

use crate::hub::outbox::Outbox;
use parking_lot::Mutex;
use skywave_protocol::{CloseCode, frame::SessionId};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// A connected session, as others on the node see it.
#[derive(Clone)]
pub struct Attached {
    pub outbox: Arc<Outbox>,
    pub user: Option<Arc<str>>,
    pub transport: &'static str,
    pub address: SocketAddr,
    pub connected_at_ms: u64,
}

#[derive(Default)]
pub struct Registry {
    sessions: Mutex<HashMap<SessionId, Attached>>,
    /// Transports in any state, those that are still closing included.
    transports: AtomicUsize,
    emptied: Notify,
}

impl Registry {
    /// Makes this the session's transport. An older one is told that it was replaced.
    pub fn attach(&self, session: SessionId, attached: Attached) {
        let older = self.sessions.lock().insert(session, attached);
        if let Some(older) = older {
            older.outbox.close(CloseCode::Replaced);
        }
    }

    /// Takes the session out, unless a newer transport has it.
    pub fn detach(&self, session: &SessionId, outbox: &Arc<Outbox>) {
        let mut sessions = self.sessions.lock();
        if sessions.get(session).is_some_and(|attached| Arc::ptr_eq(&attached.outbox, outbox)) {
            sessions.remove(session);
        }
    }

    pub fn contains(&self, session: &str) -> bool {
        self.sessions.lock().contains_key(session)
    }

    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn all(&self) -> Vec<(SessionId, Attached)> {
        self.sessions.lock().iter().map(|(id, attached)| (id.clone(), attached.clone())).collect()
    }

    /// Visits all sessions in no order. The registry is locked meanwhile: `visit` should be quick.
    pub fn each(&self, mut visit: impl FnMut(&SessionId, &Attached)) {
        for (id, attached) in self.sessions.lock().iter() {
            visit(id, attached);
        }
    }

    /// Counts a transport until the guard is dropped.
    pub fn count_transport(self: &Registry) -> TransportCount<'_> {
        self.transports.fetch_add(1, Ordering::Relaxed);
        TransportCount { registry: self }
    }

    /// Waits until no transport is left.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.transports.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

pub struct TransportCount<'a> {
    registry: &'a Registry,
}

impl Drop for TransportCount<'_> {
    fn drop(&mut self) {
        if self.registry.transports.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.registry.emptied.notify_waiters();
        }
    }
}
