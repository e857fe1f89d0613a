//! Where a node publishes, emits and reads: in the order of the calls for each key, pipelined.

use crate::{
    batch::{Answer, Call},
    endpoint::Endpoint,
    errors::CallError,
    layout::Connections,
    lines::Keeper,
    metrics::RedisMetrics,
    ownership::Ownership,
    request::Request,
    switchboard::Switchboard,
};
use redis::Value;
use skywave_host::Chance;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

/// The most bytes of calls that wait or are under way.
const MAX_BYTES: usize = 64 << 20;

/// Where calls are made.
#[derive(Clone)]
pub struct Commands {
    ownership: Arc<Ownership>,
    switchboard: Switchboard,
    room: Arc<Semaphore>,
    begun: Instant,
    chance: Chance,
}

impl Commands {
    /// The place for calls, and the task that serves it.
    pub fn new(
        endpoint: Endpoint,
        name: Arc<str>,
        connections: Option<Connections>,
        metrics: &RedisMetrics,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (ownership, chance) = (endpoint.ownership.clone(), endpoint.host.chance.clone());
        let (switchboard, keeper) = Keeper::new(endpoint, name, connections, metrics);
        let room = Arc::new(Semaphore::new(MAX_BYTES));
        (Self { ownership, switchboard, room, begun: Instant::now(), chance }, keeper.run())
    }

    /// Whether Redis can be reached, and is the one that it is taken for, as far as is known. Of a cluster: all servers
    /// that have keys.
    pub fn is_available(&self) -> bool {
        self.ownership.is_recognized() && self.switchboard.is_available()
    }

    /// As [`Self::is_available`], of the server that has a key.
    pub fn is_available_for(&self, key: &str) -> bool {
        let table = self.switchboard.table();
        let line = table.line_of(key.as_bytes());
        self.ownership.is_recognized() && line.is_some_and(|line| line.pulse.is_available())
    }

    /// Whether Redis is the one that it is taken for, as far as is known, and any server that has keys can be reached.
    pub fn is_reachable(&self) -> bool {
        self.ownership.is_recognized() && self.switchboard.table().is_reachable()
    }

    /// The name of the server that has a key, as far as is known.
    pub fn server_of(&self, key: &str) -> Option<Arc<str>> {
        self.switchboard.table().server_of(key.as_bytes())
    }

    /// How long Redis has been silent: zero while it answers. An idle connection is tried each second. A Redis that
    /// does not answer for two is unavailable; the silence counts from its last answer. A cluster is as silent as the
    /// most silent of its servers: a session's channels are on all of them. A Redis that turns out to be another one is
    /// as good as silent.
    pub fn away_for(&self) -> Duration {
        let silent_for = self.switchboard.away_for().unwrap_or_else(|| self.begun.elapsed());
        silent_for.max(self.ownership.refused_for())
    }

    /// Makes a call now; it takes effect after those for the same key that were made before.
    pub fn call(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Value, CallError>> + Send + use<> + 'static {
        let (answer, answered) = oneshot::channel();
        let queued = self.queue(request, Some(answer), None);
        async move {
            queued?;
            answered.await.unwrap_or(Err(CallError::Away))
        }
    }

    /// Makes a call, also while it is not known whether the Redis is the one that it is taken for.
    ///
    /// # Errors
    /// `Away` when it cannot be reached, `Refused` when it refuses.
    pub(crate) async fn call_unrecognized(&self, request: Request) -> Result<Value, CallError> {
        let (answer, answered) = oneshot::channel();
        self.queue_unrecognized(request, Some(answer), None)?;
        answered.await.unwrap_or(Err(CallError::Away))
    }

    /// Makes a call without keys on a server with slots: on another one than `server`, if there is any.
    ///
    /// # Errors
    /// `Away` when that server cannot be reached, `Refused` when it refuses.
    pub(crate) async fn call_elsewhere(&self, request: Request, server: &str) -> Result<Value, CallError> {
        let (answer, answered) = oneshot::channel();
        self.queue(request, Some(answer), Some(server))?;
        answered.await.unwrap_or(Err(CallError::Away))
    }

    /// Whether a server has any keys, as far as is known.
    pub fn has(&self, server: &str) -> bool {
        self.switchboard.table().has(server)
    }

    /// Others took over from the server that has a key, as far as is known: that server is sought anew.
    pub fn leave_server_of(&self, key: &str) {
        if let Some(line) = self.switchboard.table().line_of(key.as_bytes()) {
            line.leave();
        }
    }

    /// Makes a call whose outcome nobody waits for.
    ///
    /// # Errors
    /// `Away` when it cannot be sent.
    pub fn send(&self, request: Request) -> Result<(), CallError> {
        self.queue(request, None, None)
    }

    fn queue(
        &self,
        request: Request,
        answer: Option<Answer>,
        elsewhere: Option<&str>,
    ) -> Result<(), CallError> {
        if !self.ownership.is_recognized() {
            return Err(CallError::Away);
        }
        self.queue_unrecognized(request, answer, elsewhere)
    }

    fn queue_unrecognized(
        &self,
        request: Request,
        answer: Option<Answer>,
        elsewhere: Option<&str>,
    ) -> Result<(), CallError> {
        debug_assert!(request.is_of_one_slot(), "a cluster refuses keys of several slots");
        let table = self.switchboard.table();
        let line = match elsewhere {
            Some(server) => table.line_elsewhere(server, &self.chance),
            None => table.line_of(request.key()),
        };
        let line = line.filter(|line| line.pulse.is_available()).ok_or(CallError::Away)?;
        let size = u32::try_from(request.size()).map_err(|_| CallError::Away)?;
        let room = self.room.clone().try_acquire_many_owned(size).map_err(|_| CallError::Away)?;
        line.push(Call::new(request, answer, room))
    }
}
