//! Tasks that are to go on: none of them ends, or panics, without anybody noticing.
//!
//! Their owner looks after them. A panic goes on in the task that waits for them, and so up to the one that can end the
//! process; a service manager starts it again. What the rest of the node can do without, such as a link to another
//! region, begins anew instead: what made it panic may come on every node.

use crate::backoff::Backoff;
use futures_util::{FutureExt, future::BoxFuture};
use skywave_host::Chance;
use std::{
    any::Any,
    convert::Infallible,
    fmt,
    future::pending,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};
use tokio::{
    sync::Mutex,
    task::{JoinError, JoinSet},
};

/// Before what panicked begins anew.
const PAUSE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// Tasks that end with whoever holds them.
#[derive(Debug)]
pub struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub fn new(tasks: impl IntoIterator<Item = BoxFuture<'static, ()>>) -> Self {
        Self(Mutex::new(tasks.into_iter().collect()))
    }

    /// Waits until one of them ends, though it was to go on. A panic goes on in who waits.
    pub async fn ended(&self) {
        match self.0.lock().await.join_next().await {
            Some(ended) => pass_on(ended),
            None => pending().await,
        }
    }
}

/// Has a task's panic go on.
pub fn pass_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        resume_unwind(error.into_panic());
    }
}

/// Begins something anew, less and less often, when it panics.
pub async fn again<F: Future<Output = Infallible>>(
    what: impl fmt::Display,
    chance: &Chance,
    mut begin: impl FnMut() -> F,
) -> Infallible {
    let mut backoff = Backoff::new(PAUSE, chance);
    loop {
        // It begins with what outlives it: nothing there is left half done by a lock that was held.
        let panic = match AssertUnwindSafe(begin()).catch_unwind().await {
            Ok(never) => match never {},
            Err(panic) => panic,
        };
        let pause = backoff.pause();
        tracing::error!(%what, panic = message(&*panic), ?pause, "it failed, and begins anew");
        tokio::time::sleep(pause).await;
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it says nothing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::ready;

    #[tokio::test]
    async fn a_panic_goes_on_in_who_waits() {
        let tasks = Tasks::new([pending().boxed(), async { panic!("a fault") }.boxed()]);
        let mut waiting = JoinSet::new();
        waiting.spawn(async move { tasks.ended().await });
        let panic = waiting.join_next().await.unwrap().unwrap_err().into_panic();
        assert_eq!(message(&*panic), "a fault");
    }

    #[tokio::test]
    async fn a_task_that_ends_is_told_and_tasks_that_go_on_are_waited_for() {
        Tasks::new([ready(()).boxed()]).ended().await;
        assert_eq!(Tasks::new([pending().boxed()]).ended().now_or_never(), None);
        assert_eq!(Tasks::new([]).ended().now_or_never(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_node_can_do_without_begins_anew() {
        let (chance, mut times) = (Chance::machine(), 0);
        let running = again("a link", &chance, || {
            times += 1;
            let is_well = times == 3;
            async move { if is_well { pending().await } else { panic!("a fault") } }
        });
        assert!(tokio::time::timeout(10 * *PAUSE.start(), running).await.is_err());
        assert_eq!(times, 3);
    }
}
