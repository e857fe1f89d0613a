//! What heartbeats learned of clients' paths, kept from a transport that ended to the session's next one.

use parking_lot::Mutex;
use skywave_protocol::{frame::SessionId, heartbeat::IdleMemory};
use std::collections::HashMap;

/// The most sessions that are remembered; beyond it an arbitrary one is forgotten.
const MAX_MEMORIES: usize = 16 * 1024;

/// Per session and transport: another transport's idle timers are others.
#[derive(Default)]
pub(crate) struct PathMemories(Mutex<HashMap<(SessionId, &'static str), IdleMemory>>);

impl PathMemories {
    pub(crate) fn keep(&self, session: SessionId, transport: &'static str, memory: IdleMemory) {
        let mut memories = self.0.lock();
        if memories.len() >= MAX_MEMORIES
            && let Some(some) = memories.keys().next().cloned()
        {
            memories.remove(&some);
        }
        memories.insert((session, transport), memory);
    }

    /// What was learned of the session's path, once.
    pub(crate) fn take(&self, session: &SessionId, transport: &'static str) -> Option<IdleMemory> {
        self.0.lock().remove(&(session.clone(), transport))
    }
}
