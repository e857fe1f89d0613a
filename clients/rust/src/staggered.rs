//! Attempts at several places, each begun when those before it have not succeeded quickly; the first one wins.
//!
//! Source: RFC 8305 ("Happy Eyeballs Version 2"), section 5, with nodes in place of addresses.

use futures_util::{StreamExt, stream::FuturesUnordered};
use skywave_client_session::STAGGER;
use std::{future::Future, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// Attempts under way at once.
pub(crate) const MAX_CONCURRENT: usize = 4;
/// What an attempt may take when others wait for its place.
pub(crate) const CROWDED_TIMEOUT: Duration = Duration::from_secs(2);

/// How fast attempts follow each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// By how much the first one is ahead.
    pub head_start: Duration,
    /// What one attempt may take.
    pub timeout: Duration,
}

/// The attempt that succeeded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Winner<T> {
    pub index: usize,
    pub value: T,
    pub begun: Instant,
    /// How long it took.
    pub took: Duration,
    /// Those that failed before.
    pub failed: Vec<usize>,
}

/// Runs `count` attempts, at least one, in their order. A failure begins the next one at once. Attempts still
/// under way when one succeeds are dropped.
///
/// # Errors
/// The last attempt's error, once all have failed; `timed_out()` for one that took too long.
pub(crate) async fn first<T, E, F>(
    count: usize,
    pace: Pace,
    attempt: impl Fn(usize) -> F,
    timed_out: impl Fn() -> E,
) -> Result<Winner<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    let patience = if count > MAX_CONCURRENT { pace.timeout.min(CROWDED_TIMEOUT) } else { pace.timeout };
    let mut running = FuturesUnordered::new();
    let mut failed = Vec::new();
    let (mut next, mut due) = (0, Instant::now());
    loop {
        let may_begin = next < count && running.len() < MAX_CONCURRENT;
        tokio::select! {
            biased;
            Some((index, begun, outcome)) = running.next() => match outcome {
                Ok(value) => {
                    return Ok(Winner { index, value, begun, took: begun.elapsed(), failed });
                }
                Err(error) => {
                    failed.push(index);
                    if failed.len() == count {
                        return Err(error);
                    }
                    due = Instant::now();
                }
            },
            () = sleep_until(due), if may_begin => {
                let (index, begun) = (next, Instant::now());
                let running_one = attempt(index);
                let timed_out = &timed_out;
                running.push(async move {
                    (index, begun, timeout(patience, running_one).await.unwrap_or_else(|_| Err(timed_out())))
                });
                due = begun + if index == 0 { pace.head_start } else { STAGGER };
                next += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, future::pending};
    use tokio::time::sleep;

    const PACE: Pace = Pace { head_start: Duration::from_millis(250), timeout: Duration::from_secs(5) };

    /// What an attempt does: nothing at all, or fail or succeed after so many milliseconds.
    #[derive(Clone, Copy)]
    enum Does {
        Nothing,
        Fail(u64),
        Succeed(u64),
    }
    use Does::{Fail, Nothing, Succeed};

    /// Who won when, and when each attempt began, in milliseconds.
    async fn run(attempts: &[Does]) -> (Result<(usize, u64), &'static str>, Vec<u64>) {
        let start = Instant::now();
        let elapsed = || u64::try_from(start.elapsed().as_millis()).unwrap();
        let begins = RefCell::new(Vec::new());
        let outcome = first(
            attempts.len(),
            PACE,
            |index| {
                begins.borrow_mut().push(elapsed());
                async move {
                    match attempts[index] {
                        Nothing => pending().await,
                        Fail(ms) => {
                            sleep(Duration::from_millis(ms)).await;
                            Err("failed")
                        }
                        Succeed(ms) => {
                            sleep(Duration::from_millis(ms)).await;
                            Ok(())
                        }
                    }
                }
            },
            || "timed out",
        )
        .await;
        (outcome.map(|winner| (winner.index, elapsed())), begins.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_within_its_head_start_is_alone() {
        assert_eq!(run(&[Succeed(249), Succeed(0)]).await, (Ok((0, 249)), vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_brings_in_the_others_one_after_the_other() {
        let (winner, begins) = run(&[Nothing, Nothing, Succeed(30)]).await;
        assert_eq!((winner, begins), (Ok((2, 480)), vec![0, 250, 450]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_quickest_wins_whoever_began_first() {
        assert_eq!(run(&[Succeed(900), Succeed(600), Succeed(100)]).await.0, Ok((2, 550)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_waited_for() {
        assert_eq!(run(&[Fail(5), Fail(5), Succeed(5)]).await, (Ok((2, 15)), vec![0, 5, 10]));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_last_error_is_told() {
        assert_eq!(run(&[Fail(5), Nothing]).await.0, Err("timed out"));
        assert_eq!(run(&[Fail(5), Fail(900)]).await.0, Err("failed"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_silent_ones_holds_nobody_up_for_long() {
        let mut attempts = [Nothing; 9];
        attempts[8] = Succeed(0);
        let (winner, begins) = run(&attempts).await;
        // Four at once, each for two seconds.
        assert_eq!(begins[..4], [0, 250, 450, 650]);
        assert_eq!(begins[4], 2_000);
        assert_eq!(winner, Ok((8, 4_000)));
    }
}
