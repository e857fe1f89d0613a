//! What serves a line: sends its calls in batches, and connects anew when the connection breaks.

use crate::{
    backoff::{Backoff, RECONNECT_PAUSE},
    batch::{self, Broken, Call, Outcome, UnderWay},
    connection::Connection,
    line::Line,
    metrics::RedisMetrics,
    pulse::Pulse,
    server::Server,
    switchboard::{Sign, Switchboard},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use prometheus::{HistogramVec, IntCounter};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// The most calls that wait to be sent.
const MAX_WAITING: usize = 16_384;
/// The most calls in one batch.
const MAX_BATCH: usize = 256;
/// The most batches under way.
const MAX_UNDER_WAY: usize = 8;
/// A connection is tried this often, whether it is idle or not.
const TRIAL_INTERVAL: Duration = Duration::from_secs(1);
/// Errors of single commands are logged this often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The master is looked for this often while a replica answers in its stead, which can be read from.
const REPLICA_PATIENCE: Duration = Duration::from_secs(5);

/// What the lines of one Redis have in common.
#[derive(Clone)]
pub(crate) struct Wiring {
    pub name: Arc<str>,
    pub(crate) switchboard: Switchboard,
    pub reconnects: IntCounter,
    pub durations: HistogramVec,
}

impl Wiring {
    pub(crate) fn new(name: Arc<str>, switchboard: Switchboard, metrics: &RedisMetrics) -> Self {
        let reconnects = metrics.reconnects.with_label_values(&[&name]);
        Self { name, switchboard, reconnects, durations: metrics.command_duration.clone() }
    }

    /// A line to a server, and the task that serves it.
    pub(crate) fn line(
        &self,
        server: Server,
        connection: Option<Connection>,
    ) -> (Line, impl Future<Output = ()> + Send + 'static) {
        let (sender, calls) = mpsc::channel(MAX_WAITING);
        let pulse = Arc::new(Pulse::new(connection.is_some()));
        let leaving = Arc::new(Notify::new());
        let line = Line { calls: sender, pulse: pulse.clone(), leaving: leaving.clone() };
        (line, Pipe { server, wiring: self.clone(), calls, pulse, leaving }.run(connection))
    }

    /// Has another server make a call, behind those that it was given before.
    fn take_to(&self, address: Arc<str>, mut call: Call) {
        call.asking = true;
        match self.switchboard.line_to(&address) {
            Some(line) => {
                if line.push(call).is_err() {
                    tracing::debug!(%address, "a call does not follow its key there");
                }
            }
            None => self.switchboard.tell(Sign::Asked(address)),
        }
    }
}

/// Why a connection is used no more.
enum End {
    Broken(Broken),
    /// Nobody is left who could call.
    Unused,
}

struct Pipe {
    server: Server,
    wiring: Wiring,
    calls: mpsc::Receiver<Call>,
    pulse: Arc<Pulse>,
    leaving: Arc<Notify>,
}

impl Pipe {
    async fn run(mut self, mut connection: Option<Connection>) {
        loop {
            let ready = match connection.take() {
                Some(ready) => ready,
                None => match self.reconnect().await {
                    Some(ready) => ready,
                    None => return,
                },
            };
            self.pulse.connected();
            let End::Broken(Broken(reason)) = self.serve(&ready).await else { return };
            self.pulse.lost();
            self.wiring.switchboard.tell(Sign::Lost);
            tracing::warn!(
                connection = &*self.wiring.name,
                reason,
                "Redis cannot be reached; calls fail until it can"
            );
            connection = self.reconnect().await;
            if connection.is_none() {
                return;
            }
            self.wiring.reconnects.inc();
            tracing::info!(connection = &*self.wiring.name, "Redis can be reached again");
        }
    }

    /// Connects anew, and meanwhile fails whatever is called.
    async fn reconnect(&mut self) -> Option<Connection> {
        let mut backoff = Backoff::new(RECONNECT_PAUSE, &self.server.host.chance);
        loop {
            let (server, name) = (self.server.clone(), self.wiring.name.clone());
            let pause = backoff.pause();
            let attempt = async move {
                tokio::time::sleep(pause).await;
                server.connect(&name).await
            };
            tokio::pin!(attempt);
            let outcome = loop {
                tokio::select! {
                    biased;
                    outcome = &mut attempt => break outcome,
                    call = self.calls.recv() => call?.fail(),
                }
            };
            match outcome {
                Ok(connection) => {
                    while let Ok(call) = self.calls.try_recv() {
                        call.fail();
                    }
                    return Some(connection);
                }
                Err(error) => self.server.ownership.tell_unreachable(&error),
            }
        }
    }

    fn observe(&self, answered: &[(&'static str, Instant)]) {
        for (command, made_at) in answered {
            let duration = self.wiring.durations.with_label_values(&[&*self.wiring.name, command]);
            duration.observe(made_at.elapsed().as_secs_f64());
        }
    }

    async fn serve(&mut self, connection: &Connection) -> End {
        let mut under_way: FuturesUnordered<UnderWay> = FuturesUnordered::new();
        let mut batch = Vec::new();
        let begun = Instant::now();
        let (mut log_after, mut try_at) = (begun, begun + TRIAL_INTERVAL);
        let mut unused = false;
        let leaving = self.leaving.clone();
        let mut leaves = std::pin::pin!(leaving.notified());
        let end = loop {
            let free = under_way.len() < MAX_UNDER_WAY;
            let idle = under_way.is_empty();
            if unused && idle {
                break End::Unused;
            }
            tokio::select! {
                biased;
                () = &mut leaves => break End::Broken(Broken("another server took over".to_owned())),
                Some(outcome) = under_way.next() => {
                    let Outcome { refused, answered, asked, moved, replica } = match outcome {
                        Ok(outcome) => outcome,
                        Err(broken) => break End::Broken(broken),
                    };
                    self.pulse.heard(!under_way.is_empty());
                    self.observe(&answered);
                    asked.into_iter().for_each(|(address, call)| self.wiring.take_to(address, call));
                    if moved {
                        self.wiring.switchboard.tell(Sign::Moved);
                    }
                    if let Some(error) = refused && Instant::now() >= log_after {
                        tracing::warn!(error, "Redis refused a command");
                        log_after = Instant::now() + LOG_INTERVAL;
                    }
                    if replica && begun.elapsed() >= REPLICA_PATIENCE {
                        break End::Broken(Broken("the server is a replica".to_owned()));
                    }
                }
                count = self.calls.recv_many(&mut batch, MAX_BATCH), if free && !unused => {
                    if count == 0 {
                        unused = true;
                        continue;
                    }
                    let is_trial = Instant::now() >= try_at;
                    if is_trial {
                        try_at = Instant::now() + TRIAL_INTERVAL;
                    }
                    self.pulse.asked();
                    under_way.push(batch::start(connection, std::mem::take(&mut batch), is_trial));
                }
                () = tokio::time::sleep_until(try_at), if idle => {
                    try_at = Instant::now() + TRIAL_INTERVAL;
                    self.pulse.asked();
                    under_way.push(batch::start(connection, Vec::new(), true));
                }
            }
        };
        // What is under way fails together with what waits.
        self.pulse.lost();
        drop(under_way);
        while let Ok(call) = self.calls.try_recv() {
            call.fail();
        }
        end
    }
}
