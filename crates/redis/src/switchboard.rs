//! Finds the line for a key.

use crate::{line::Line, slot::Slots};
use arc_swap::{ArcSwap, Guard};
use rand::seq::IndexedRandom as _;
use skywave_host::Chance;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// The most signs that wait; one more says nothing new.
const MAX_SIGNS: usize = 16;

/// What makes it worth while to look who has which keys.
#[derive(Debug)]
pub(crate) enum Sign {
    /// A server cannot be reached, or cannot serve.
    Lost,
    /// A key was not where it had been.
    Moved,
    /// A key is with the server at this address, to which there is no line.
    Asked(Arc<str>),
}

/// Finds the line for a key.
#[derive(Clone)]
pub(crate) struct Switchboard(Arc<Shared>);

struct Shared {
    table: ArcSwap<Table>,
    signs: mpsc::Sender<Sign>,
}

/// The lines, and which keys they are for.
pub(crate) struct Table {
    pub slots: Slots,
    /// With their servers' names, in the order of the servers that have slots; none before it is known who has.
    pub lines: Vec<(Arc<str>, Line)>,
    /// All that there are.
    pub by_name: HashMap<Arc<str>, Line>,
}

impl Table {
    /// The line to the server that has a key, as far as is known.
    pub(crate) fn line_of(&self, key: &[u8]) -> Option<&Line> {
        self.lines.get(self.slots.server_of(key)).map(|(_, line)| line)
    }

    /// The name of the server that has a key, as far as is known.
    pub(crate) fn server_of(&self, key: &[u8]) -> Option<Arc<str>> {
        self.lines.get(self.slots.server_of(key)).map(|(name, _)| name.clone())
    }

    /// Whether any server that has slots can be reached, as far as is known.
    pub(crate) fn is_reachable(&self) -> bool {
        self.lines.iter().any(|(_, line)| line.pulse.is_available())
    }

    /// A line to a server with slots, to another one than that of this name if there is any.
    pub(crate) fn line_elsewhere(&self, server: &str, chance: &Chance) -> Option<&Line> {
        let others: Vec<_> = self.lines.iter().filter(|(name, _)| **name != *server).collect();
        let chosen = others.choose(&mut chance.generator()).copied().or(self.lines.first());
        chosen.map(|(_, line)| line)
    }

    /// Whether a server has slots, as far as is known.
    pub(crate) fn has(&self, server: &str) -> bool {
        self.lines.is_empty() || self.lines.iter().any(|(name, _)| **name == *server)
    }
}

impl Switchboard {
    /// One that knows of no line yet, and where its signs come.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Sign>) {
        let (sender, signs) = mpsc::channel(MAX_SIGNS);
        let table = Table { slots: Slots::of_one(), lines: Vec::new(), by_name: HashMap::new() };
        (Self(Arc::new(Shared { table: ArcSwap::from_pointee(table), signs: sender })), signs)
    }

    pub(crate) fn set(&self, table: Table) {
        self.0.table.store(Arc::new(table));
    }

    /// The present one, to be held for a moment.
    pub(crate) fn table(&self) -> Guard<Arc<Table>> {
        self.0.table.load()
    }

    /// The line to a server by its address.
    pub(crate) fn line_to(&self, address: &str) -> Option<Line> {
        self.0.table.load().by_name.get(address).cloned()
    }

    /// Whether all servers that have slots can be reached, as far as is known.
    pub(crate) fn is_available(&self) -> bool {
        let lines = &self.0.table.load().lines;
        !lines.is_empty() && lines.iter().all(|(_, line)| line.pulse.is_available())
    }

    /// How long that server has been silent which has been so longest; `None` while none is known.
    pub(crate) fn away_for(&self) -> Option<Duration> {
        self.0.table.load().lines.iter().map(|(_, line)| line.pulse.away_for()).max()
    }

    pub(crate) fn tell(&self, sign: Sign) {
        // As many as wait are enough to have it looked at.
        drop(self.0.signs.try_send(sign));
    }
}
