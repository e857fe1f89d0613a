//! Calls that go to a server together, and what becomes of each.

use crate::{
    connection::Connection,
    errors::CallError,
    redirect::{self, Redirect},
    reply,
    request::Request,
};
use futures_util::FutureExt;
use redis::{Pipeline, Value};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

pub(crate) type Answer = oneshot::Sender<Result<Value, CallError>>;

/// What is asked of a server, and who waits for the answer.
pub(crate) struct Call {
    request: Request,
    answer: Option<Answer>,
    made_at: Instant,
    /// Another server sent it here, for this once.
    pub asking: bool,
    _room: OwnedSemaphorePermit,
}

impl Call {
    pub(crate) fn new(request: Request, answer: Option<Answer>, room: OwnedSemaphorePermit) -> Self {
        Self { request, answer, made_at: Instant::now(), asking: false, _room: room }
    }

    /// Answers that it cannot be made.
    pub(crate) fn fail(self) {
        self.finish(Err(CallError::Away));
    }

    fn finish(self, outcome: Result<Value, CallError>) {
        if let Some(answer) = self.answer {
            // Nobody waits for it any more.
            drop(answer.send(outcome));
        }
    }
}

/// Why a connection is given up.
#[derive(Debug)]
pub(crate) struct Broken(pub String);

/// A batch under way.
pub(crate) type UnderWay = Pin<Box<dyn Future<Output = Result<Outcome, Broken>> + Send>>;

/// A batch that was answered.
#[derive(Default)]
pub(crate) struct Outcome {
    /// What went wrong with a single command.
    pub refused: Option<String>,
    /// Of each command that was answered: what it was, and when it was made.
    pub answered: Vec<(&'static str, Instant)>,
    /// To whom calls are to be taken, in the order in which they were made.
    pub asked: Vec<(Arc<str>, Call)>,
    /// Some keys are elsewhere for good.
    pub moved: bool,
    /// The server is a replica.
    pub replica: bool,
}

/// Hands a batch to the connection before it returns; the answers come later. On trial, the server is asked as well
/// what it is: whoever only reads is not refused by a replica.
pub(crate) fn start(connection: &Connection, batch: Vec<Call>, is_trial: bool) -> UnderWay {
    let mut pipeline = Pipeline::with_capacity(batch.len() + usize::from(is_trial));
    for call in &batch {
        if call.asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(connection.command(&call.request));
    }
    if is_trial {
        pipeline.cmd("ROLE");
    }
    let mut commands = connection.commands.clone();
    let exchange = async move {
        let count = pipeline.len();
        let outcome = commands.send_packed_commands(&pipeline, 0, count).await;
        match outcome {
            Ok(values) => finish(batch, values),
            // Dropped, the calls are answered as unavailable.
            Err(error) => Err(Broken(error.to_string())),
        }
    };
    // The first poll sends: the connection's queue has room for all batches, and the poll is outside of the task's
    // budget, which could delay it. So batches go out in the order in which they are started. Who holds the future
    // polls it again, with a waker.
    let mut exchange: UnderWay = Box::pin(tokio::task::unconstrained(exchange));
    match exchange.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => futures_util::future::ready(outcome).boxed(),
        Poll::Pending => exchange,
    }
}

fn finish(batch: Vec<Call>, values: Vec<Value>) -> Result<Outcome, Broken> {
    let mut outcome = Outcome { answered: Vec::with_capacity(batch.len()), ..Outcome::default() };
    let mut fatal = None;
    let mut values = values.into_iter();
    // A trial has no call.
    for call in batch.into_iter().map(Some).chain(std::iter::repeat_with(|| None)) {
        if call.as_ref().is_some_and(|call| call.asking) {
            // ASKING was answered.
            values.next();
        }
        let Some(value) = values.next() else { break };
        let error = match value {
            Value::ServerError(error) => error,
            value => {
                match call {
                    Some(call) => {
                        outcome.answered.push((call.request.name(), call.made_at));
                        call.finish(Ok(value));
                    }
                    None => outcome.replica |= !reply::is_of_master(&value),
                }
                continue;
            }
        };
        match (redirect::of(&error), call) {
            (Some(Redirect::Ask(address)), Some(call)) if !call.asking => outcome.asked.push((address, call)),
            (Some(Redirect::TryAgain), call) => {
                // Who began to move the slot may have left it so.
                outcome.refused.get_or_insert_with(|| error.to_string());
                drop(call);
            }
            (Some(Redirect::Moved | Redirect::Ask(_)), call) => {
                outcome.moved = true;
                drop(call);
            }
            (None, call) => {
                outcome.replica |= is_of_replica(&error);
                let said = if is_fatal(&error) { &mut fatal } else { &mut outcome.refused };
                // A user that may not ask what the server is learns it by what is refused.
                if call.is_some() || is_fatal(&error) {
                    said.get_or_insert_with(|| error.to_string());
                }
                if let Some(call) = call.filter(|_| !is_fatal(&error) && !is_of_replica(&error)) {
                    call.finish(Err(CallError::Refused));
                }
            }
        }
    }
    match fatal {
        Some(error) => Err(Broken(error)),
        None => Ok(outcome),
    }
}

/// Whether an error of a command means that the connection leads to a server that cannot serve it.
fn is_fatal(error: &redis::ServerError) -> bool {
    use redis::ServerErrorKind as Kind;
    matches!(error.kind(), Some(Kind::NoScript | Kind::BusyLoading | Kind::MasterDown | Kind::ClusterDown))
}

/// Whether an error of a command means that the server is a replica. The master may be where it was before, or nowhere;
/// then there is still something to be read.
fn is_of_replica(error: &redis::ServerError) -> bool {
    error.kind() == Some(redis::ServerErrorKind::ReadOnly)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::{ServerError, Value};
    use tokio::sync::Semaphore;

    type Answered = oneshot::Receiver<Result<Value, CallError>>;

    fn call(asking: bool) -> (Call, Answered) {
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (answer, answered) = oneshot::channel();
        let mut call = Call::new(Request::command(["GET", "key"]), Some(answer), room);
        call.asking = asking;
        (call, answered)
    }

    fn error(line: &str) -> Value {
        let error = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        assert!(matches!(error, Value::ServerError(ServerError { .. })));
        error
    }

    #[test]
    fn each_call_gets_its_answer_though_some_were_sent_here_by_another_server() {
        let (calls, answered): (Vec<_>, Vec<_>) = [false, true, false].map(call).into_iter().unzip();
        let outcome = finish(calls, vec![Value::Int(1), Value::Okay, Value::Int(2), Value::Int(3)]).unwrap();
        assert_eq!(outcome.answered.len(), 3);
        for (mut answered, number) in answered.into_iter().zip(1..) {
            assert_eq!(answered.try_recv().unwrap(), Ok(Value::Int(number)));
        }
    }

    #[test]
    fn an_ask_is_followed_once_and_a_moved_key_looked_for() {
        let ((one, mut first), (other, mut second)) = (call(false), call(true));
        let ask = || error("ASK 5 10.0.0.1:7001");
        let mut outcome = finish(vec![one, other], vec![ask(), Value::Okay, ask()]).unwrap();
        let (address, asked) = outcome.asked.remove(0);
        assert_eq!(&*address, "10.0.0.1:7001");
        assert!(outcome.asked.is_empty() && outcome.moved);
        assert!(first.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        assert!(second.try_recv() == Err(oneshot::error::TryRecvError::Closed));
        asked.fail();
        assert_eq!(first.try_recv().unwrap(), Err(CallError::Away));
        assert!(finish(vec![call(false).0], vec![error("MOVED 5 10.0.0.1:7001")]).unwrap().moved);
        let later = finish(vec![call(false).0], vec![error("TRYAGAIN some keys are elsewhere")]).unwrap();
        assert!(!later.moved && later.asked.is_empty() && later.refused.is_some());
    }

    #[test]
    fn a_server_that_cannot_serve_ends_the_connection_and_a_refusal_does_not() {
        let fatal = finish(vec![call(false).0], vec![error("CLUSTERDOWN the cluster is down")]);
        assert!(fatal.is_err());
        let refused = finish(vec![call(false).0], vec![error("ERR no")]).unwrap();
        assert!(refused.refused.is_some() && refused.answered.is_empty() && !refused.replica);
        let replica = finish(vec![call(false).0], vec![error("READONLY it is a replica")]).unwrap();
        assert!(replica.refused.is_some() && replica.replica);
    }

    #[test]
    fn a_server_is_a_replica_that_says_so_though_it_refuses_nothing() {
        let role = |role: &str| Value::Array(vec![Value::BulkString(role.into()), Value::Int(0)]);
        let tried = |answer| finish(vec![call(false).0], vec![Value::Okay, answer]).unwrap();
        assert!(!tried(role("master")).replica);
        assert!(tried(role("slave")).replica);
        let forbidden = tried(error("NOPERM no permissions to run the 'role' command"));
        assert!(!forbidden.replica && forbidden.refused.is_none());
    }
}
