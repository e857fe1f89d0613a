//! Attempts at several places, each begun when those before it have not succeeded quickly; the first one wins.
//!
//! Source: RFC 8305 ("Happy Eyeballs Version 2"), section 5, with nodes or transports in place of addresses.

use std::{
    future::{Future, pending, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// Attempts under way at once.
const MAX_CONCURRENT: usize = 4;
/// What an attempt may take when others wait for its place.
const CROWDED_TIMEOUT: Duration = Duration::from_secs(2);

/// How fast attempts follow each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// By how much the first one is ahead.
    pub(crate) head_start: Duration,
    /// The time between the begins of two later ones.
    pub(crate) stagger: Duration,
    /// What one attempt may take; any time where that is missing.
    pub(crate) timeout: Option<Duration>,
    /// What those under way may still take once another one has failed.
    pub(crate) last_chance: Option<Duration>,
}

/// The attempt that succeeded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Winner<T> {
    pub(crate) index: usize,
    pub(crate) value: T,
    pub(crate) begun: Instant,
    /// How long it took.
    pub(crate) took: Duration,
    /// Those that failed before.
    pub(crate) failed: Vec<usize>,
}

struct Running<F> {
    index: usize,
    begun: Instant,
    /// When it is given up.
    until: Option<Instant>,
    attempt: Pin<Box<F>>,
}

/// Runs `count` attempts, at least one, in their order. A failure begins the next one at once. Attempts still
/// under way when one succeeds are dropped.
///
/// # Errors
/// Those of all attempts, in the order in which they failed; `timed_out()` for one that took too long.
pub(crate) async fn first<T, E, F>(
    count: usize,
    pace: Pace,
    attempt: impl Fn(usize) -> F,
    timed_out: impl Fn() -> E,
) -> Result<Winner<T>, Vec<(usize, E)>>
where
    F: Future<Output = Result<T, E>>,
{
    let crowded = Some(CROWDED_TIMEOUT).filter(|_| count > MAX_CONCURRENT);
    let patience = [pace.timeout, crowded].into_iter().flatten().min();
    let mut running: Vec<Running<F>> = Vec::new();
    let mut errors: Vec<(usize, E)> = Vec::new();
    // When the next one begins, unless one fails; never where that is further off than time goes.
    let (mut next, mut due) = (0, Some(Instant::now()));
    while errors.len() < count {
        let begin_at = due.filter(|_| next < count && running.len() < MAX_CONCURRENT);
        let wake_at = running.iter().map(|one| one.until).chain([begin_at]).flatten().min();
        let mut failed = Vec::new();
        tokio::select! {
            biased;
            (place, outcome) = any(&mut running) => {
                let Running { index, begun, .. } = running.remove(place);
                match outcome {
                    Ok(value) => {
                        let failed = errors.into_iter().map(|(index, _)| index).collect();
                        return Ok(Winner { index, value, begun, took: begun.elapsed(), failed });
                    }
                    Err(error) => failed.push((index, error)),
                }
            }
            () = until(wake_at) => {
                let now = Instant::now();
                let late = running.extract_if(.., |one| one.until.is_some_and(|until| until <= now));
                failed.extend(late.map(|one| (one.index, timed_out())));
                if failed.is_empty() && begin_at.is_some_and(|at| at <= now) {
                    let until = patience.and_then(|patience| now.checked_add(patience));
                    running.push(Running { index: next, begun: now, until, attempt: Box::pin(attempt(next)) });
                    due = now.checked_add(if next == 0 { pace.head_start } else { pace.stagger });
                    next += 1;
                }
            }
        }
        if !failed.is_empty() {
            let now = Instant::now();
            due = Some(now);
            // One that begins now has its whole time.
            if let Some(last) = pace.last_chance.map(|chance| now + chance) {
                running
                    .iter_mut()
                    .for_each(|one| one.until = Some(one.until.map_or(last, |until| until.min(last))));
            }
            errors.extend(failed);
        }
    }
    Err(errors)
}

/// Which attempt has come to an end, and to which.
async fn any<T, F: Future<Output = T>>(running: &mut [Running<F>]) -> (usize, T) {
    poll_fn(|context| {
        for (place, one) in running.iter_mut().enumerate() {
            if let Poll::Ready(outcome) = one.attempt.as_mut().poll(context) {
                return Poll::Ready((place, outcome));
            }
        }
        Poll::Pending
    })
    .await
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::time::sleep;

    const PACE: Pace = Pace {
        head_start: Duration::from_millis(250),
        stagger: Duration::from_millis(200),
        timeout: Some(Duration::from_secs(5)),
        last_chance: None,
    };

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
        let last = |errors: Vec<(usize, &'static str)>| errors.last().map_or("none", |(_, error)| error);
        (outcome.map(|winner| (winner.index, elapsed())).map_err(last), begins.into_inner())
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
