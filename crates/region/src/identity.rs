//! A node's id is its own: two nodes with one id are noticed.

use crate::lease::{Candidate, Denied, Lease};
use skywave_redis::Redis;
use std::time::Duration;

/// How often it is tried to take an id in a Redis that takes no writes.
const UNWRITABLE_PAUSE: Duration = Duration::from_secs(1);

/// The id of a node, by a lease that it holds for its life.
pub struct Identity {
    id: String,
    candidate: Candidate,
    /// None where Redis took no writes.
    lease: Option<Lease>,
}

/// Another node has the id, and is alive.
#[derive(Debug)]
pub struct Taken;

impl Identity {
    /// Takes the id. Where another node had it, which may have ended without a farewell, waits until its lease is over.
    /// While Redis takes no writes, nobody can take it. A node that starts then serves those who read.
    ///
    /// # Errors
    /// When the other node is alive.
    pub async fn take(redis: &Redis, id: &str) -> Result<Self, Taken> {
        // Two processes with one id are told apart.
        let holder = format!("{id} {:016x}", redis.chance().any::<u64>());
        let candidate = Candidate::new(redis.clone(), &format!("node:{id}"), holder.into());
        let waits = |left| {
            tracing::warn!(id, ?left, "a node with this `node.id` was here; waiting for its lease to end")
        };
        let lease = match candidate.acquire_unless_renewed(waits).await {
            Ok(lease) => Some(lease),
            Err(Denied::Unwritable) => {
                tracing::warn!(
                    id,
                    "Redis takes no writes: whether another node has this `node.id` shows later"
                );
                None
            }
            Err(Denied::Renewed) => return Err(Taken),
        };
        Ok(Self { id: id.to_owned(), candidate, lease })
    }

    /// Keeps the id, for the node's life.
    pub async fn keep(self) {
        let Self { id, candidate, mut lease } = self;
        loop {
            if let Some(held) = lease.take() {
                held.lost().await;
                tracing::debug!(id, "the lease of this node's id is lost, and taken anew");
            }
            match candidate.acquire_unless_renewed(|_| {}).await {
                Ok(held) => lease = Some(held),
                Err(Denied::Unwritable) => tokio::time::sleep(UNWRITABLE_PAUSE).await,
                // It took the id while this node could not renew its lease; sessions are fenced all the same.
                Err(Denied::Renewed) => {
                    tracing::error!(id, "another node has the same `node.id`: give each its own")
                }
            }
        }
    }
}
