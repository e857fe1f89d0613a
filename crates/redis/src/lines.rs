//! A line to each server of a Redis, kept in step with which of them has which keys.
//!
//! Most often there is one server, which has all. The masters of a cluster change: one fails and its replica takes its
//! place, or slots move. Then servers say so, or cannot be reached. It is read anew who has which slots. Calls for keys
//! that are moving fail, as they do while a single Redis is away.

use crate::{
    backoff::Backoff,
    endpoint::Endpoint,
    layout::{Connections, Layout},
    line::Line,
    metrics::RedisMetrics,
    pipe::Wiring,
    server::Server,
    slot::Slots,
    switchboard::{Sign, Switchboard, Table},
    tasks::pass_on,
};
use std::{collections::HashMap, ops::RangeInclusive, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// Between two readings of who has which slots.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(500);
/// A line to a server that has no slots yet is kept for so long after it was needed.
const GUEST: Duration = Duration::from_secs(60);
/// The most servers without slots that a line leads to.
const MAX_GUESTS: usize = 64;

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
        let (switchboard, signs) = Switchboard::new();
        let wiring = Wiring::new(name, switchboard.clone(), metrics);
        let (layout, lines, guests) = (None, HashMap::new(), HashMap::new());
        let mut keeper = Self { endpoint, wiring, signs, layout, lines, guests, pipes: JoinSet::new() };
        if let Some(Connections { layout, all }) = connections {
            for (server, connection) in layout.servers.iter().zip(all) {
                let (line, pipe) = keeper.wiring.line(server.clone(), Some(connection));
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
            let (line, pipe) = self.wiring.line(server.clone(), None);
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
        self.wiring.switchboard.set(Table { slots, lines, by_name: self.lines.clone() });
    }
}
