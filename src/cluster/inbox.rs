//! What the other nodes and Redis tell this node.

use super::{Cluster, keys::ClusterKeys as _, questions};
use crate::redis::{
    ConnectError, Redis,
    subscription::{Listener, Subscription},
};
use std::sync::Arc;

/// The largest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Hears what is for this node.
struct Inbox {
    cluster: Arc<Cluster>,
    /// The channel that says that a node's record changed.
    nodes: String,
}

/// Subscribes to what is for the node; the task that it gives hears it.
///
/// # Errors
/// See [`ConnectError`].
pub async fn open(
    cluster: Arc<Cluster>,
    redis: &Redis,
) -> Result<impl Future<Output = ()> + Send + 'static, ConnectError> {
    let keys = &redis.keys;
    let nodes = keys.nodes_news();
    let channels = vec![nodes.clone(), keys.inbox(&cluster.id), keys.inbox_of_all()];
    let reconnects = redis.metrics.reconnects.with_label_values(&["inbox"]);
    Subscription::start(redis, channels, Inbox { cluster, nodes }, reconnects).await
}

impl Listener for Inbox {
    fn message(&mut self, channel: &str, payload: &[u8]) {
        if channel == self.nodes {
            // One's own changes are known.
            if *payload != *self.cluster.id.as_bytes() {
                self.cluster.directory.refresh();
            }
        } else if payload.len() > MAX_MESSAGE_BYTES || self.hear(payload).is_none() {
            tracing::warn!(bytes = payload.len(), "a message to this node is malformed");
        }
    }

    fn resumed(&mut self) {
        self.cluster.directory.refresh();
        self.cluster.fencing.review();
    }
}

impl Inbox {
    fn hear(&mut self, payload: &[u8]) -> Option<()> {
        let (word, rest) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
        match word {
            "replaced" => {
                let mut words = rest.splitn(4, ' ');
                let (partition, said) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let (number, session) = (words.next()?.parse().ok()?, words.next()?);
                self.cluster.fencing.told(partition, said);
                self.cluster.sessions.replaced(session, number);
            }
            "ask" => questions::asked(&self.cluster, rest)?,
            "answer" => self.cluster.questions.answered(rest)?,
            _ => return None,
        }
        Some(())
    }
}
