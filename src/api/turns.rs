//! How many commands are under way: so many that connections are left for health checks and metrics.

use super::failure::Failure;
use skywave_protocol::ErrorCode;
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns of commands.
#[derive(Clone)]
pub(crate) struct Turns {
    /// Those that are done, and those that wait.
    places: Arc<Semaphore>,
    /// Those that are done.
    turns: Arc<Semaphore>,
}

/// One command's turn, until dropped.
pub(crate) struct Turn {
    _place: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

impl Turns {
    /// So many commands at a time, and so many that wait for their turn.
    pub(crate) fn new(at_a_time: usize, waiting: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(at_a_time + waiting)),
            turns: Arc::new(Semaphore::new(at_a_time)),
        }
    }

    /// Waits for a turn, in the order of the calls.
    ///
    /// # Errors
    /// `rate_limited` at once when too many wait, or when no turn has come within `patience`.
    pub(crate) async fn take(&self, patience: Duration) -> Result<Turn, Failure> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| too_many())?;
        let turn = tokio::time::timeout(patience, self.turns.clone().acquire_owned()).await;
        match turn {
            Ok(Ok(turn)) => Ok(Turn { _place: place, _turn: turn }),
            // Nobody closes the semaphore.
            Ok(Err(_)) | Err(_) => Err(too_many()),
        }
    }
}

fn too_many() -> Failure {
    Failure::new(ErrorCode::RateLimited, "too many commands are under way; this one had no effect")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_turn_waits_and_who_finds_no_place_is_refused() {
        let turns = Turns::new(1, 1);
        let first = turns.take(LONG).await.unwrap();
        let mut second = pin!(turns.take(LONG));
        assert!(second.as_mut().now_or_never().is_none(), "it has no turn yet");
        assert!(turns.take(LONG).await.is_err(), "it has no place");
        drop(first);
        let second = second.await.unwrap();
        assert!(turns.take(Duration::from_secs(1)).await.is_err(), "no turn came");
        drop(second);
        turns.take(LONG).await.unwrap();
    }
}
