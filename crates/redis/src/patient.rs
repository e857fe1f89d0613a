//! Connections on which much is read, over paths that may carry little.
//!
//! One is given up when nothing comes on it, not when one answer takes long: it may come behind others.

use crate::{connection::Connection, errors::ConnectError, request::Request, server::Server};
use parking_lot::Mutex;
use prometheus::HistogramVec;
use redis::{RedisError, Value};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// For how long nothing may come of what was asked on a connection. On a slow path, answers come one behind the other.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take, however many come before it.
const LONGEST: Duration = Duration::from_secs(600);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// Others may be answered on the connection.
    #[error("{0}")]
    Refused(RedisError),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("nothing was answered for {} s", TIMEOUT.as_secs())]
    Silent,
}

/// A connection of its own to one server, so that what is much holds up nothing else.
#[derive(Clone)]
pub struct Patient {
    connection: Connection,
    answers: Arc<Answers>,
    /// What it is called in metrics, logs and `CLIENT LIST`.
    name: Arc<str>,
    durations: HistogramVec,
}

/// When the last answer came on a connection.
struct Answers(Mutex<Instant>);

impl Answers {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Waits for an answer, for as long as those come that were asked for before.
    async fn wait<T>(&self, answer: impl Future<Output = T>) -> Result<T, AskError> {
        let (asked, mut answer) = (Instant::now(), std::pin::pin!(answer));
        loop {
            let silent_since = asked.max(*self.0.lock());
            if let Ok(answer) = timeout_at(silent_since + TIMEOUT, &mut answer).await {
                *self.0.lock() = Instant::now();
                return Ok(answer);
            }
            if *self.0.lock() <= silent_since {
                return Err(AskError::Silent);
            }
        }
    }
}

impl Patient {
    /// Connects to a server.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        server: &Server,
        name: &Arc<str>,
        durations: &HistogramVec,
    ) -> Result<Self, ConnectError> {
        let mut connection = server.connect(name).await?;
        connection.commands.set_response_timeout(LONGEST);
        let (answers, name, durations) = (Arc::new(Answers::new()), name.clone(), durations.clone());
        Ok(Self { connection, answers, name, durations })
    }

    /// # Errors
    /// See [`AskError`].
    pub async fn ask(&self, request: &Request) -> Result<Value, AskError> {
        let (begun, command) = (Instant::now(), self.connection.command(request));
        let mut commands = self.connection.commands.clone();
        let answer = self.answers.wait(commands.send_packed_command(&command)).await?;
        let value = answer?.extract_error().map_err(AskError::Refused)?;
        let duration = self.durations.with_label_values(&[&*self.name, request.name()]);
        duration.observe(begun.elapsed().as_secs_f64());
        Ok(value)
    }

    /// Whether anything comes, and from a master: who only reads is not refused by a replica.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn try_master(&self) -> Result<(), AskError> {
        let mut connection = self.connection.clone();
        Ok(self.answers.wait(connection.require_master()).await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::{join_all, pending};
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_while_others_come_before_it_and_not_where_none_does() {
        let (answers, begun) = (Answers::new(), Instant::now());
        let comes = |number: u32| {
            answers.wait(async move {
                sleep(number * TIMEOUT / 4).await;
                number
            })
        };
        let came = join_all((1..=9).map(comes)).await;
        assert!(came.into_iter().map(Result::unwrap).eq(1..=9));
        assert_eq!(begun.elapsed(), 9 * TIMEOUT / 4);
        let (before, never) = tokio::join!(comes(2), answers.wait(pending::<()>()));
        assert!(before.is_ok() && matches!(never, Err(AskError::Silent)));
        assert_eq!(begun.elapsed(), 9 * TIMEOUT / 4 + 2 * TIMEOUT / 4 + TIMEOUT);
    }
}
