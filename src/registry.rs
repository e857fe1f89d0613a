//! The sessions that are connected to this node, by id and by user.

pub(crate) mod path_memories;
pub(crate) mod quotas;

use crate::{broker::HybridClock, claim::Claim, host::Host, hub::outbox::Outbox, limits::Tally};
use parking_lot::Mutex;
use path_memories::PathMemories;
use quotas::{Bounds, Quotas};
use skywave_channels::by_session::BySession;
use skywave_protocol::{CloseCode, frame::SessionId};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// A connected session, as others on the node see it.
#[derive(Clone)]
pub struct Attached {
    pub outbox: Arc<Outbox>,
    pub user: Option<Arc<str>>,
    pub transport: &'static str,
    pub address: SocketAddr,
    pub connected_at_ms: u64,
    /// Tells which of the session's transports is the newest.
    pub claim: Claim,
    /// When it was last asked to move to another node.
    pub(crate) asked_at: Option<Instant>,
}

impl Attached {
    /// Whether it was asked so lately to move to another node.
    pub(crate) fn was_asked_within(&self, period: Duration) -> bool {
        self.asked_at.is_some_and(|at| at.elapsed() < period)
    }
}

/// The session has a transport that is newer than this one.
#[derive(Debug)]
pub(crate) struct Outdated;

pub struct Registry {
    sessions: Mutex<BySession<Attached>>,
    /// The number of the next transport; begins anywhere, so that an earlier process had others.
    next_number: AtomicU64,
    /// Of transports: never backward, as a newer one replaces an older.
    clock: HybridClock,
    /// Transports in any state: those on which nobody has said yet who comes, and those that are still closing.
    pub transports: Arc<Tally>,
    /// Those of them on which a session is, or was until it ended.
    pub served: Arc<Tally>,
    pub quotas: Quotas,
    pub(crate) path_memories: PathMemories,
}

impl Registry {
    pub fn new(host: &Host, bounds: Bounds) -> Self {
        Self {
            sessions: Mutex::default(),
            // Within what Lua counts without loss.
            next_number: AtomicU64::new(host.chance.any::<u64>() >> 13),
            clock: HybridClock::new(host.clock.clone()),
            transports: Arc::default(),
            served: Arc::default(),
            quotas: Quotas::new(bounds),
            path_memories: PathMemories::default(),
        }
    }

    /// The claim of a transport that opens now, of the `attempt`-th `connect` of its client and the `turn`-th
    /// resumption.
    pub fn claim(&self, attempt: u64, turn: u64) -> Claim {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        Claim { attempt, turn, since_ms: self.clock.now_ms(), number }
    }

    /// Makes this the session's transport. An older one is told that it was replaced.
    ///
    /// # Errors
    /// A newer transport has the session: this one was long under way, or comes from an outdated secret.
    pub(crate) fn attach(&self, session: SessionId, attached: Attached) -> Result<(), Outdated> {
        let mut sessions = self.sessions.lock();
        if sessions.get(&session).is_some_and(|present| present.claim > attached.claim) {
            return Err(Outdated);
        }
        if let Some(older) = sessions.insert(session, attached) {
            older.outbox.close(CloseCode::Replaced);
        }
        Ok(())
    }

    /// Takes the session out and gives it, unless a newer transport has it.
    pub(crate) fn detach(&self, session: &SessionId, outbox: &Arc<Outbox>) -> Option<Attached> {
        let mut sessions = self.sessions.lock();
        if sessions.get(session).is_some_and(|attached| Arc::ptr_eq(&attached.outbox, outbox)) {
            return sessions.remove(session);
        }
        None
    }

    /// A transport elsewhere has taken the session over from the transport of this number.
    pub fn replaced(&self, session: &str, number: u64) {
        let sessions = self.sessions.lock();
        if let Some(attached) = sessions.get(session).filter(|attached| attached.claim.number == number) {
            attached.outbox.close(CloseCode::Replaced);
        }
    }

    /// The transport of this number is asked to move to another node now.
    pub fn asked(&self, session: &str, number: u64) {
        let mut sessions = self.sessions.lock();
        if let Some(attached) = sessions.get_mut(session).filter(|attached| attached.claim.number == number) {
            attached.asked_at = Some(Instant::now());
        }
    }

    /// The session's transport of this number goes on from another address.
    pub fn moved(&self, session: &str, number: u64, address: SocketAddr) {
        let mut sessions = self.sessions.lock();
        if let Some(attached) = sessions.get_mut(session).filter(|attached| attached.claim.number == number) {
            attached.address = address;
        }
    }

    pub fn contains(&self, session: &str) -> bool {
        self.sessions.lock().contains_key(session)
    }

    /// Whether the session is here, on the transport of this number.
    pub fn has(&self, session: &str, number: u64) -> bool {
        self.sessions.lock().get(session).is_some_and(|attached| attached.claim.number == number)
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
}
