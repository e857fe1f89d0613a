//! A node's id is its own: two nodes with one id are noticed.

use super::lease::{Candidate, Lease, Renewed};
use crate::redis::Redis;

/// The id of a node, by a lease that it holds for its life.
pub struct Identity {
    id: String,
    candidate: Candidate,
    lease: Lease,
}

impl Identity {
    /// Takes the id. Where another node had it, which may have ended without a farewell, waits until its lease is over.
    ///
    /// # Errors
    /// `Renewed` when the other node is alive.
    pub async fn take(redis: &Redis, id: &str) -> Result<Self, Renewed> {
        // Two processes with one id are told apart.
        let holder = format!("{id} {:016x}", rand::random::<u64>());
        let candidate = Candidate::new(redis.clone(), &format!("node:{id}"), holder.into());
        let waits = |left| {
            tracing::warn!(id, ?left, "a node with this `node.id` was here; waiting for its lease to end")
        };
        let lease = candidate.acquire_unless_renewed(waits).await?;
        Ok(Self { id: id.to_owned(), candidate, lease })
    }

    /// Keeps the id, for the node's life.
    pub async fn keep(self) {
        let Self { id, candidate, mut lease } = self;
        loop {
            lease.lost().await;
            tracing::debug!(id, "the lease of this node's id is lost, and taken anew");
            lease = loop {
                let waits = |_| {};
                match candidate.acquire_unless_renewed(waits).await {
                    Ok(lease) => break lease,
                    // It took the id while this node could not renew its lease; sessions are fenced all the same.
                    Err(Renewed) => {
                        tracing::error!(id, "another node has the same `node.id`: give each its own")
                    }
                }
            };
        }
    }
}
