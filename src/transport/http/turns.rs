//! The turns of those who ask for a session on a listener without TLS.
//!
//! There is no handshake that could be put off. So the request is known before the turn, and a balancer that checks the
//! node's health needs no turn.

use super::line::Line;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

/// Too many came meanwhile.
#[derive(Debug)]
pub(crate) struct Refused;

/// A connection that takes a place among those that are no session yet, until it is one.
pub(crate) struct Newcomer {
    turns: Arc<Turns>,
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Newcomer {
    pub(crate) fn new(turns: Arc<Turns>, place: OwnedSemaphorePermit) -> Self {
        Self { turns, place: Mutex::new(Some(place)) }
    }

    /// As [`Turns::take`]. Over HTTP/2 the connection goes on beneath its sessions, and more may come on it.
    ///
    /// # Errors
    /// See there.
    pub(crate) async fn take_turn(&self) -> Result<(), Refused> {
        self.turns.take().await?;
        self.place.lock().take();
        Ok(())
    }
}

/// Those who wait for their turn, and whose turn it is.
pub(crate) struct Turns {
    line: Mutex<Line<oneshot::Sender<()>>>,
    joined: Notify,
}

impl Turns {
    /// Where so many have a turn in a second.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { line: Mutex::new(Line::new(per_second)), joined: Notify::new() }
    }

    /// Waits for a turn. Who gives up takes none from the others.
    ///
    /// # Errors
    /// When so many came later that there is no place in the line any more.
    pub(crate) async fn take(&self) -> Result<(), Refused> {
        let (turn, taken) = oneshot::channel();
        // Whoever has waited longest learns that its sender is gone.
        drop(self.line.lock().join(turn));
        self.joined.notify_one();
        taken.await.map_err(|_| Refused)
    }

    /// Gives turns to whoever waits, each after `next` has come, for as long as it is polled.
    pub(crate) async fn give<F: Future<Output = ()>>(&self, mut next: impl FnMut() -> F) {
        loop {
            if self.line.lock().is_empty() {
                self.joined.notified().await;
                continue;
            }
            next().await;
            while let Some(turn) = self.next() {
                if turn.send(()).is_ok() {
                    break;
                }
            }
        }
    }

    fn next(&self) -> Option<oneshot::Sender<()>> {
        self.line.lock().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::{cell::Cell, pin::pin};

    #[tokio::test]
    async fn who_gives_up_takes_no_turn_and_who_has_waited_longest_makes_room() {
        let turns = Turns::new(1);
        let left = Cell::new(0);
        let next = || async {
            while left.get() == 0 {
                tokio::task::yield_now().await;
            }
            left.set(left.get() - 1);
        };
        let mut giving = pin!(turns.give(next));
        let mut first = Box::pin(turns.take());
        let mut second = Box::pin(turns.take());
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(turns.take());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(first.await.is_err(), "there are places for two");
        drop(third);
        left.set(1);
        tokio::select! {
            turn = &mut second => assert!(turn.is_ok()),
            () = &mut giving => {}
        }
        assert_eq!(left.get(), 0);
    }
}
