//! What the other nodes and Redis tell this node: each word is heard by whoever registered it.

use super::{Cluster, keys::ClusterKeys as _};
use crate::redis::{
    ConnectError, Redis,
    subscription::{Listener, Subscription},
};
use std::{collections::HashMap, sync::Arc};

/// The largest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Takes what was said to the node; none where that is malformed.
pub(super) type Hear = fn(&Arc<Cluster>, &str) -> Option<()>;

/// Who hears what.
#[derive(Default)]
pub struct Inbox {
    words: HashMap<&'static str, Hear>,
    channels: HashMap<String, Hear>,
    reviews: Vec<fn(&Cluster)>,
}

impl Inbox {
    /// Hears what follows this word, to this node or to all.
    pub fn word(&mut self, word: &'static str, hear: Hear) {
        let before = self.words.insert(word, hear);
        debug_assert!(before.is_none(), "`{word}` is heard twice");
    }

    /// Hears all that is said on a channel.
    pub fn channel(&mut self, channel: String, hear: Hear) {
        self.channels.insert(channel, hear);
    }

    /// Looks what was missed, whenever something may have been.
    pub(crate) fn review(&mut self, review: fn(&Cluster)) {
        self.reviews.push(review);
    }

    /// Subscribes to what is for the node; the task that it gives hears it.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(
        self,
        cluster: Arc<Cluster>,
        redis: &Redis,
    ) -> Result<impl Future<Output = ()> + Send + 'static, ConnectError> {
        let keys = &redis.keys;
        let mut channels = vec![keys.inbox(&cluster.id), keys.inbox_of_all()];
        channels.extend(self.channels.keys().cloned());
        let reconnects = redis.metrics.reconnects.with_label_values(&["inbox"]);
        Subscription::start(redis, channels, Hearing { cluster, inbox: self }, reconnects).await
    }
}

/// Hears what is for this node.
struct Hearing {
    cluster: Arc<Cluster>,
    inbox: Inbox,
}

impl Hearing {
    fn hear(&self, channel: &str, payload: &[u8]) -> Option<()> {
        if payload.len() > MAX_MESSAGE_BYTES {
            return None;
        }
        let text = std::str::from_utf8(payload).ok()?;
        if let Some(hear) = self.inbox.channels.get(channel) {
            return hear(&self.cluster, text);
        }
        let (word, rest) = text.split_once(' ')?;
        self.inbox.words.get(word)?(&self.cluster, rest)
    }
}

impl Listener for Hearing {
    fn message(&mut self, channel: &str, payload: &[u8]) {
        if self.hear(channel, payload).is_none() {
            tracing::warn!(bytes = payload.len(), "a message to this node is malformed");
        }
    }

    fn resumed(&mut self) {
        for review in &self.inbox.reviews {
            review(&self.cluster);
        }
    }
}
