//! The connection to one server on which a node publishes, emits and reads: in the order of the calls, pipelined.
//!
//! Calls queue up and go out in batches while earlier ones are under way. When the connection breaks, all
//! that is under way or waits fails at once, as does what comes until there is another connection: a
//! publication that failed is never sent behind one that was made after it.

use super::{
    connection::{ConnectError, Connection, RECONNECT_PAUSE, Request, is_fatal},
    endpoint::Endpoint,
    keys::Keys,
    lines::{Sign, Switchboard},
    pulse::Pulse,
    redirect::{self, Redirect},
};
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
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

/// The most calls that wait to be sent.
const MAX_WAITING: usize = 16_384;
/// The most calls in one batch.
const MAX_BATCH: usize = 256;
/// The most batches under way.
const MAX_UNDER_WAY: usize = 8;
/// An idle connection is tried this often.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Errors of single commands are logged this often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

pub type Answer = oneshot::Sender<Result<Value, BrokerError>>;

/// What is asked of a server, and who waits for the answer.
pub struct Call {
    request: Request,
    answer: Option<Answer>,
    made_at: Instant,
    /// Another server sent it here, for this once.
    asking: bool,
    _room: OwnedSemaphorePermit,
}

impl Call {
    pub fn new(request: Request, answer: Option<Answer>, room: OwnedSemaphorePermit) -> Self {
        Self { request, answer, made_at: Instant::now(), asking: false, _room: room }
    }

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

/// Where calls to one server queue up. The pipe behind it ends when nobody has the line any more.
#[derive(Clone)]
pub struct Line {
    calls: mpsc::Sender<Call>,
    pub pulse: Arc<Pulse>,
}

/// What the lines of one Redis have in common.
#[derive(Clone)]
pub struct Wiring {
    pub keys: Keys,
    pub name: Arc<str>,
    pub switchboard: Switchboard,
    pub reconnects: IntCounter,
    pub durations: HistogramVec,
}

impl Wiring {
    pub fn new(keys: Keys, name: Arc<str>, switchboard: Switchboard, metrics: &RedisMetrics) -> Self {
        let reconnects = metrics.reconnects.with_label_values(&[&name]);
        Self { keys, name, switchboard, reconnects, durations: metrics.command_duration.clone() }
    }

    /// A line to a server, and the task that serves it.
    pub fn line(
        &self,
        endpoint: Endpoint,
        connection: Option<Connection>,
    ) -> (Line, impl Future<Output = ()> + Send + 'static) {
        let (sender, calls) = mpsc::channel(MAX_WAITING);
        let pulse = Arc::new(Pulse::new(connection.is_some()));
        let pipe = Pipe { endpoint, wiring: self.clone(), calls, pulse: pulse.clone() };
        (Line { calls: sender, pulse }, pipe.run(connection))
    }
}

impl Wiring {
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

impl Line {
    /// Has a call made after those that came before.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be reached, or too many wait.
    pub fn push(&self, call: Call) -> Result<(), BrokerError> {
        if !self.pulse.is_available() {
            return Err(BrokerError::Unavailable);
        }
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
#[derive(Default)]
struct Outcome {
    /// What went wrong with a single command.
    refused: Option<String>,
    /// Of each command that was answered: what it was, and when it was made.
    answered: Vec<(&'static str, Instant)>,
    /// To whom calls are to be taken, in the order in which they were made.
    asked: Vec<(Arc<str>, Call)>,
    /// Some keys are elsewhere for good.
    moved: bool,
}

struct Pipe {
    endpoint: Endpoint,
    wiring: Wiring,
    calls: mpsc::Receiver<Call>,
    pulse: Arc<Pulse>,
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
        let mut backoff = Backoff::new(RECONNECT_PAUSE);
        loop {
            let (endpoint, Wiring { keys, name, .. }) = (self.endpoint.clone(), self.wiring.clone());
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
            let duration = self.wiring.durations.with_label_values(&[&*self.wiring.name, command]);
            duration.observe(made_at.elapsed().as_secs_f64());
        }
    }

    async fn serve(&mut self, connection: &Connection) -> End {
        let mut under_way: FuturesUnordered<UnderWay> = FuturesUnordered::new();
        let mut batch = Vec::new();
        let mut log_after = Instant::now();
        let mut unused = false;
        let end = loop {
            let free = under_way.len() < MAX_UNDER_WAY;
            let idle = under_way.is_empty();
            if unused && idle {
                break End::Unused;
            }
            tokio::select! {
                biased;
                Some(outcome) = under_way.next() => {
                    let Outcome { refused, answered, asked, moved } = match outcome {
                        Ok(outcome) => outcome,
                        Err(end) => break end,
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
                }
                count = self.calls.recv_many(&mut batch, MAX_BATCH), if free && !unused => {
                    if count == 0 {
                        unused = true;
                        continue;
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
        if call.asking {
            pipeline.cmd("ASKING");
        }
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
    let mut outcome = Outcome { answered: Vec::with_capacity(batch.len()), ..Outcome::default() };
    let mut fatal = None;
    let mut values = values.into_iter();
    // A ping has no call.
    for call in batch.into_iter().map(Some).chain(std::iter::repeat_with(|| None)) {
        if call.as_ref().is_some_and(|call| call.asking) {
            // ASKING was answered.
            values.next();
        }
        let Some(value) = values.next() else { break };
        let error = match value {
            Value::ServerError(error) => error,
            value => {
                if let Some(call) = call {
                    outcome.answered.push((call.request.name(), call.made_at));
                    call.finish(Ok(value));
                }
                continue;
            }
        };
        match (redirect::of(&error), call) {
            (Some(Redirect::Ask(address)), Some(call)) if !call.asking => outcome.asked.push((address, call)),
            (Some(redirect), call) => {
                outcome.moved |= redirect != Redirect::TryAgain;
                drop(call);
            }
            (None, call) => {
                let said = if is_fatal(&error) { &mut fatal } else { &mut outcome.refused };
                said.get_or_insert_with(|| error.to_string());
                drop(call);
            }
        }
    }
    match fatal {
        Some(error) => Err(End::Broken(error)),
        None => Ok(outcome),
    }
}
