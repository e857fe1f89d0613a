//! The one connection on which a node publishes, emits and reads: in the order of the calls, pipelined.
//!
//! Calls queue up and go out in batches while earlier ones are under way. When the connection breaks, all
//! that is under way or waits fails at once, as does what comes until there is another connection: a
//! publication that failed is never sent behind one that was made after it.

use super::connection::{ConnectError, Connection, RECONNECT_PAUSE, Request, is_fatal};
use super::{endpoint::Endpoint, keys::Keys, pulse::Pulse};
use crate::{backoff::Backoff, broker::BrokerError, metrics::RedisMetrics};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use prometheus::{HistogramVec, IntCounter};
use redis::{Pipeline, Value};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};

/// The most calls that wait to be sent.
const MAX_WAITING: usize = 16_384;
/// The most bytes of calls that wait or are under way.
const MAX_BYTES: usize = 64 << 20;
/// The most calls in one batch.
const MAX_BATCH: usize = 256;
/// The most batches under way.
const MAX_UNDER_WAY: usize = 8;
/// An idle connection is tried this often.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Errors of single commands are logged this often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

type Answer = oneshot::Sender<Result<Value, BrokerError>>;

/// Where calls are made.
#[derive(Clone)]
pub struct Commands {
    calls: mpsc::Sender<Call>,
    room: Arc<Semaphore>,
    pulse: Arc<Pulse>,
}

struct Call {
    request: Request,
    answer: Option<Answer>,
    made_at: Instant,
    _room: OwnedSemaphorePermit,
}

impl Call {
    fn fail(self) {
        self.finish(Err(BrokerError::Unavailable));
    }

    fn finish(self, outcome: Result<Value, BrokerError>) {
        if let Some(answer) = self.answer {
            // Nobody waits for it any more.
            drop(answer.send(outcome));
        }
    }
}

impl Commands {
    /// The place for calls, and the task that serves it.
    pub fn new(
        endpoint: Endpoint,
        keys: Keys,
        name: Arc<str>,
        connection: Option<Connection>,
        metrics: &RedisMetrics,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, calls) = mpsc::channel(MAX_WAITING);
        let pulse = Arc::new(Pulse::new(connection.is_some()));
        let room = Arc::new(Semaphore::new(MAX_BYTES));
        let reconnects = metrics.reconnects.with_label_values(&[&name]);
        let durations = metrics.command_duration.clone();
        let pipe = Pipe { endpoint, keys, name, calls, pulse: pulse.clone(), reconnects, durations };
        (Self { calls: sender, room, pulse }, pipe.run(connection))
    }

    /// Whether Redis can be reached, as far as is known.
    pub fn is_available(&self) -> bool {
        self.pulse.is_available()
    }

    /// How long Redis has been silent: zero while it answers. An idle connection is tried each second; a Redis that
    /// does not answer for two is unavailable, and from then on its last answer counts.
    pub fn away_for(&self) -> Duration {
        self.pulse.away_for()
    }

    /// Makes a call now; it takes effect after those that were made before.
    pub fn call(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Value, BrokerError>> + Send + use<> + 'static {
        let (answer, answered) = oneshot::channel();
        let queued = self.queue(request, Some(answer));
        async move {
            queued?;
            answered.await.unwrap_or(Err(BrokerError::Unavailable))
        }
    }

    /// Makes a call whose outcome nobody waits for.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be sent.
    pub fn send(&self, request: Request) -> Result<(), BrokerError> {
        self.queue(request, None)
    }

    fn queue(&self, request: Request, answer: Option<Answer>) -> Result<(), BrokerError> {
        if !self.is_available() {
            return Err(BrokerError::Unavailable);
        }
        let size = u32::try_from(request.size()).map_err(|_| BrokerError::Unavailable)?;
        let room = self.room.clone().try_acquire_many_owned(size).map_err(|_| BrokerError::Unavailable)?;
        let call = Call { request, answer, made_at: Instant::now(), _room: room };
        self.calls.try_send(call).map_err(|_| BrokerError::Unavailable)
    }
}

/// Why a connection is given up.
#[derive(Debug)]
enum End {
    Broken(String),
    /// Nobody is left who could call.
    Unused,
}

/// A batch under way.
type UnderWay = Pin<Box<dyn Future<Output = Result<Outcome, End>> + Send>>;

/// A batch that was answered.
struct Outcome {
    /// What went wrong with a single command.
    refused: Option<String>,
    /// Of each command that was answered: what it was, and when it was made.
    answered: Vec<(&'static str, Instant)>,
}

struct Pipe {
    endpoint: Endpoint,
    keys: Keys,
    name: Arc<str>,
    calls: mpsc::Receiver<Call>,
    pulse: Arc<Pulse>,
    reconnects: IntCounter,
    durations: HistogramVec,
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
            let End::Broken(reason) = self.serve(&ready).await else { return };
            self.pulse.lost();
            tracing::warn!(
                connection = &*self.name,
                reason,
                "Redis cannot be reached; calls fail until it can"
            );
            connection = self.reconnect().await;
            if connection.is_none() {
                return;
            }
            self.reconnects.inc();
            tracing::info!(connection = &*self.name, "Redis can be reached again");
        }
    }

    /// Connects anew, and meanwhile fails whatever is called.
    async fn reconnect(&mut self) -> Option<Connection> {
        let mut backoff = Backoff::new(RECONNECT_PAUSE);
        loop {
            let (endpoint, keys, name) = (self.endpoint.clone(), self.keys.clone(), self.name.clone());
            let pause = backoff.pause();
            let attempt = async move {
                tokio::time::sleep(pause).await;
                endpoint.connect(&name, &keys).await
            };
            tokio::pin!(attempt);
            let outcome = loop {
                tokio::select! {
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
                Err(error @ ConnectError::Partitions { .. }) => tracing::error!(%error, "Redis is of no use"),
                Err(error) => tracing::debug!(%error, "Redis cannot be reached yet"),
            }
        }
    }

    fn observe(&self, answered: &[(&'static str, Instant)]) {
        for (command, made_at) in answered {
            let duration = self.durations.with_label_values(&[&*self.name, command]);
            duration.observe(made_at.elapsed().as_secs_f64());
        }
    }

    async fn serve(&mut self, connection: &Connection) -> End {
        let mut under_way: FuturesUnordered<UnderWay> = FuturesUnordered::new();
        let mut batch = Vec::new();
        let mut log_after = Instant::now();
        let end = loop {
            let free = under_way.len() < MAX_UNDER_WAY;
            let idle = under_way.is_empty();
            tokio::select! {
                biased;
                Some(outcome) = under_way.next() => {
                    let Outcome { refused, answered } = match outcome {
                        Ok(outcome) => outcome,
                        Err(end) => break end,
                    };
                    self.pulse.heard(!under_way.is_empty());
                    self.observe(&answered);
                    if let Some(error) = refused && Instant::now() >= log_after {
                        tracing::warn!(error, "Redis refused a command");
                        log_after = Instant::now() + LOG_INTERVAL;
                    }
                }
                count = self.calls.recv_many(&mut batch, MAX_BATCH), if free => {
                    if count == 0 {
                        break End::Unused;
                    }
                    self.pulse.asked();
                    under_way.push(start(connection, std::mem::take(&mut batch)));
                }
                () = tokio::time::sleep(PING_INTERVAL), if idle => {
                    self.pulse.asked();
                    under_way.push(start(connection, Vec::new()));
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

/// Hands a batch to the connection before it returns; the answers come later.
fn start(connection: &Connection, batch: Vec<Call>) -> UnderWay {
    let mut pipeline = Pipeline::with_capacity(batch.len().max(1));
    for call in &batch {
        pipeline.add_command(connection.command(&call.request));
    }
    if batch.is_empty() {
        pipeline.add_command(connection.command(&Request::command(["PING"])));
    }
    let mut commands = connection.commands.clone();
    let exchange = async move {
        let count = pipeline.len();
        let outcome = commands.send_packed_commands(&pipeline, 0, count).await;
        match outcome {
            Ok(values) => finish(batch, values),
            // Dropped, the calls are answered as unavailable.
            Err(error) => Err(End::Broken(error.to_string())),
        }
    };
    // The first poll sends: the connection's queue has room for all batches, and the task's budget, which
    // could delay it, is not asked. So batches go out in the order in which they are started. Who holds the
    // future polls it again, with a waker.
    let mut exchange: UnderWay = Box::pin(tokio::task::unconstrained(exchange));
    match exchange.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => futures_util::future::ready(outcome).boxed(),
        Poll::Pending => exchange,
    }
}

fn finish(batch: Vec<Call>, values: Vec<Value>) -> Result<Outcome, End> {
    let mut answered = Vec::with_capacity(batch.len());
    let mut refused = None;
    let mut fatal = None;
    let mut calls = batch.into_iter();
    for value in values {
        let outcome = match value {
            Value::ServerError(error) => {
                let said = if is_fatal(&error) { &mut fatal } else { &mut refused };
                said.get_or_insert_with(|| error.to_string());
                Err(BrokerError::Unavailable)
            }
            value => Ok(value),
        };
        // A ping has no call.
        if let Some(call) = calls.next() {
            if outcome.is_ok() {
                answered.push((call.request.name(), call.made_at));
            }
            call.finish(outcome);
        }
    }
    match fatal {
        Some(error) => Err(End::Broken(error)),
        None => Ok(Outcome { refused, answered }),
    }
}
