//! The names of what a node tells of itself and its sessions.

use crate::redis::Keys;

/// Asked for like those that every Redis has.
pub(crate) trait ClusterKeys {
    fn keys(&self) -> &Keys;

    /// A node's record, for whoever looks: it expires when the node is gone.
    fn node(&self, id: &str) -> String {
        self.keys().of_all(&format!("node:{id}"))
    }

    /// Hash: the records of all nodes by id.
    fn nodes(&self) -> String {
        self.keys().of_all("nodes")
    }

    /// Pub/sub channel that says that one of them changed.
    fn nodes_news(&self) -> String {
        self.keys().said("nodes")
    }

    /// The partition of a session, like that of a channel.
    fn partition_of_session(&self, session: &str) -> u16 {
        self.keys().partition_of_name(session)
    }

    /// Which transport of which node has a session.
    fn session(&self, session: &str) -> String {
        self.keys().of_partition(self.partition_of_session(session), &format!("session:{session}"))
    }

    /// Hash: how often a node was told of the partition's sessions.
    fn told(&self, partition: u16, node: &str) -> String {
        self.keys().of_partition(partition, &format!("told:{node}"))
    }

    /// Pub/sub channel of what is for one node.
    fn inbox(&self, node: &str) -> String {
        self.keys().said(&format!("inbox:{node}"))
    }

    /// Pub/sub channel of what is for all nodes.
    fn inbox_of_all(&self) -> String {
        self.keys().said("inbox")
    }
}

impl ClusterKeys for Keys {
    fn keys(&self) -> &Keys {
        self
    }
}
