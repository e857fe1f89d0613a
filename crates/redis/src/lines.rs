//! A line to each server of a Redis, kept in step with which of them has which keys.
//!
//! Most often there is one server, which has all. The masters of a cluster change: one fails and its replica takes its
//! place, or slots move. Then servers say so, or cannot be reached. It is read anew who has which slots. Calls for keys
//! that are moving fail, as they do while a single Redis is away.

use crate::{
    backoff::Backoff,
    endpoint::Endpoint,
    layout::{Connections, Layout, Server},
    line::{Line, Wiring},
    metrics::RedisMetrics,
    slot::Slots,
    tasks::pass_on,
};
use arc_swap::{ArcSwap, Guard};
use rand::seq::IndexedRandom as _;
use skywave_host::Chance;
use std::{collections::HashMap, ops::RangeInclusive, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// Between two readings of who has which slots.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(500);
/// A line to a server that has no slots yet is kept for so long after it was needed.
const GUEST: Duration = Duration::from_secs(60);
/// The most signs that wait; one more says nothing new.
const MAX_SIGNS: usize = 16;
/// The most servers without slots that a line leads to.
const MAX_GUESTS: usize = 64;

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
    slots: Slots,
    /// With their servers' names, in the order of the servers that have slots; none before it is known who has.
    lines: Vec<(Arc<str>, Line)>,
    /// All that there are.
    by_name: HashMap<Arc<str>, Line>,
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

/// Makes and ends lines.
pub(crate) struct Keeper {
    endpoint: Endpoint,
    wiring: Wiring,
    signs: mpsc::Receiver<Sign>,
    layout: Option<Layout>,
    lines: HashMap<Arc<str>, Line>,
    /// Servers that have no slots, as far as is known, and until when lines to them are kept.
    guests: HashMap<Arc<str>, Instant>,
    pipes: JoinSet<()>,
}

impl Keeper {
    /// Lines to those with whom there are connections, if any.
    pub(crate) fn new(
        endpoint: Endpoint,
        name: Arc<str>,
        connections: Option<Connections>,
        metrics: &RedisMetrics,
    ) -> (Switchboard, Self) {
        let (sender, signs) = mpsc::channel(MAX_SIGNS);
        let table = Table { slots: Slots::of_one(), lines: Vec::new(), by_name: HashMap::new() };
        let switchboard =
            Switchboard(Arc::new(Shared { table: ArcSwap::from_pointee(table), signs: sender }));
        let wiring = Wiring::new(name, switchboard.clone(), metrics);
        let (layout, lines, guests) = (None, HashMap::new(), HashMap::new());
        let mut keeper = Self { endpoint, wiring, signs, layout, lines, guests, pipes: JoinSet::new() };
        if let Some(Connections { layout, all }) = connections {
            for (server, connection) in layout.servers.iter().zip(all) {
                let (line, pipe) = keeper.wiring.line(server.endpoint.clone(), Some(connection));
                keeper.pipes.spawn(pipe);
                keeper.lines.insert(server.name.clone(), line);
            }
            keeper.take(layout);
        }
        (switchboard, keeper)
    }

    /// Serves all lines, for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(PAUSE, &self.endpoint.host.chance);
        let mut is_known = self.layout.is_some();
        loop {
            if !is_known {
                match self.endpoint.layout().await {
                    Ok(layout) => {
                        self.take(layout);
                        is_known = true;
                    }
                    Err(error) => self.endpoint.ownership.tell_unreachable(&error),
                }
            }
            let is_well = is_known && self.wiring.switchboard.is_available();
            let quiet = tokio::time::timeout(backoff.pause(), self.trouble()).await.is_err();
            if is_well && quiet {
                backoff = Backoff::new(PAUSE, &self.endpoint.host.chance);
                self.trouble().await;
            } else if !quiet {
                // Whatever else is told meanwhile is answered by the next reading.
                tokio::time::sleep(backoff.pause()).await;
            }
            is_known = false;
        }
    }

    /// Waits until keys may be elsewhere than is known.
    async fn trouble(&mut self) {
        loop {
            tokio::select! {
                biased;
                // That of a line that nothing needs any more.
                Some(ended) = self.pipes.join_next() => pass_on(ended),
                sign = self.signs.recv() => match sign {
                    Some(Sign::Asked(address)) => self.invite(&address),
                    Some(Sign::Lost | Sign::Moved) | None => return,
                },
            }
        }
    }

    /// Makes a line to a server that is about to get slots.
    fn invite(&mut self, address: &str) {
        match self.endpoint.neighbour(address) {
            Ok(server) if self.guests.len() < MAX_GUESTS => {
                self.guests.insert(server.name.clone(), Instant::now() + GUEST);
                self.line(&server);
                self.publish();
            }
            Ok(_) => tracing::warn!("slots move to too many servers at once"),
            Err(error) => tracing::warn!(%error, "a key is said to be with a server that cannot be"),
        }
    }

    fn line(&mut self, server: &Server) {
        if !self.lines.contains_key(&server.name) {
            let (line, pipe) = self.wiring.line(server.endpoint.clone(), None);
            self.pipes.spawn(pipe);
            self.lines.insert(server.name.clone(), line);
        }
    }

    /// Makes what lines are missing, and ends those that nothing needs.
    fn take(&mut self, layout: Layout) {
        if let Some(before) = &self.layout
            && !before.is_like(&layout)
        {
            let servers: Vec<_> = layout.servers.iter().map(|server| &*server.name).collect();
            tracing::info!(connection = &*self.wiring.name, ?servers, "keys have moved between servers");
        }
        layout.servers.iter().for_each(|server| self.line(server));
        let now = Instant::now();
        self.guests.retain(|_, until| *until > now);
        let (guests, servers) = (&self.guests, &layout.servers);
        let is_needed =
            |name: &Arc<str>| guests.contains_key(name) || servers.iter().any(|one| one.name == *name);
        self.lines.retain(|name, _| is_needed(name));
        self.layout = Some(layout);
        self.publish();
    }

    fn publish(&self) {
        let (slots, servers) = match &self.layout {
            Some(layout) => (layout.slots.clone(), &*layout.servers),
            None => (Slots::of_one(), &[][..]),
        };
        let line = |server: &Server| Some((server.name.clone(), self.lines.get(&server.name)?.clone()));
        let lines = servers.iter().filter_map(line).collect();
        let table = Table { slots, lines, by_name: self.lines.clone() };
        self.wiring.switchboard.0.table.store(Arc::new(table));
    }
}
