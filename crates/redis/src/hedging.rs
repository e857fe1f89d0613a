//! Asks one of several servers that all should know, and another one beside it that is slow to answer.
//!
//! Hedged requests: Dean and Barroso, "The Tail at Scale", 2013.

use crate::errors::ConnectError;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::time::Duration;

/// After so long without an answer another server is asked as well. Whoever has a second for it hears the third, too.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long one server may take. To connect and ask takes three round trips, to be sent on to another server three
/// more, and a lost packet takes a second.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The first answer. All questions that are open are dropped with it.
///
/// # Errors
/// The last, when nobody knows.
pub(crate) async fn ask<T>(
    questions: Vec<BoxFuture<'_, Result<T, ConnectError>>>,
) -> Result<T, ConnectError> {
    let mut questions = questions.into_iter().enumerate();
    let mut open = FuturesUnordered::new();
    let mut last = ConnectError::Timeout;
    loop {
        match questions.next() {
            Some((number, question)) => {
                open.push(async move { (number, tokio::time::timeout(TIMEOUT, question).await) });
            }
            None if open.is_empty() => return Err(last),
            None => {}
        }
        match tokio::time::timeout(PATIENCE, open.next()).await {
            Ok(Some((_, Ok(Ok(answer))))) => return Ok(answer),
            Ok(Some((number, Ok(Err(error))))) => {
                tracing::debug!(%error, number, "a server that was asked is of no help");
                last = error;
            }
            Ok(Some((number, Err(_)))) => tracing::debug!(number, "a server that was asked is silent"),
            Ok(None) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn after(seconds: f64, answer: Result<u8, ConnectError>) -> BoxFuture<'static, Result<u8, ConnectError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            answer
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_costs_little_and_a_slow_one_is_waited_for() {
        let begun = Instant::now();
        assert_eq!(ask(vec![after(60.0, Ok(1)), after(0.1, Ok(2))]).await.unwrap(), 2);
        assert_eq!(begun.elapsed(), PATIENCE + Duration::from_millis(100));
        assert_eq!(ask(vec![after(3.0, Ok(1)), after(60.0, Ok(2))]).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_know_costs_nothing() {
        let begun = Instant::now();
        let lost = || Err(ConnectError::Unidentified("slots"));
        assert_eq!(ask(vec![after(0.0, lost()), after(0.0, Ok(2))]).await.unwrap(), 2);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let error = ask(vec![after(0.0, lost()), after(60.0, Ok(2))]).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unidentified(_)), "{error}");
    }
}
