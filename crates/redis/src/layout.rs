//! The servers that make up a Redis: one, or the masters of a cluster.

use crate::{connection::Connection, server::Server, slot::Slots};

/// All servers that take writes, and which has which keys.
#[derive(Debug, Clone)]
pub struct Layout {
    pub servers: Vec<Server>,
    pub slots: Slots,
}

impl Layout {
    /// One server has all keys.
    pub(crate) fn of_one(server: Server) -> Self {
        Self { servers: vec![server], slots: Slots::of_one() }
    }

    /// Whether every key is where it is in `other`.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let names =
            |layout: &Self| layout.servers.iter().map(|server| server.name.clone()).collect::<Vec<_>>();
        self.slots == other.slots && names(self) == names(other)
    }
}

/// A connection to each server. They stay with the layout in which they were made: where a key has moved since, they
/// answer with an error.
#[derive(Debug, Clone)]
pub struct Connections {
    pub layout: Layout,
    /// In the order of the layout's servers.
    pub all: Vec<Connection>,
}

impl Connections {
    /// To the server that has a key.
    pub fn to(&self, key: &[u8]) -> &Connection {
        &self.all[self.layout.slots.server_of(key)]
    }
}
