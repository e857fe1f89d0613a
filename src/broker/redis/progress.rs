//! How far this node has read the log of each partition.
//!
//! What a channel's history lacks may stand in the part of the log that is still to be read: it comes live, and is not
//! lost. So whoever is to be told of a loss waits until the log was read as far as it went when the history was asked.

use crate::redis::StreamId;
use std::time::Duration;
use tokio::sync::watch;

pub struct Progress(Vec<watch::Sender<StreamId>>);

impl Progress {
    /// Of partitions 0 to `partitions` − 1.
    pub fn new(partitions: u16) -> Self {
        Self((0..partitions).map(|_| watch::Sender::new(StreamId::MIN)).collect())
    }

    /// All up to `last` was delivered, or was before this node began. In another life it may be earlier than before.
    pub fn reached(&self, partition: u16, last: StreamId) {
        if let Some(place) = self.0.get(usize::from(partition)) {
            place.send_replace(last);
        }
    }

    /// Whether all up to `id` was delivered.
    pub fn has_passed(&self, partition: u16, id: StreamId) -> bool {
        self.0.get(usize::from(partition)).is_none_or(|place| *place.borrow() >= id)
    }

    /// Waits until all up to `id` was delivered, for as long as the log is read on; `false` when nothing was read of it for
    /// the time of `patience`.
    pub async fn passes(&self, partition: u16, id: StreamId, patience: Duration) -> bool {
        let Some(place) = self.0.get(usize::from(partition)) else { return true };
        let mut place = place.subscribe();
        while *place.borrow_and_update() < id {
            if !matches!(tokio::time::timeout(patience, place.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::Arc;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn id(ms: u64) -> StreamId {
        StreamId { ms, sequence: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_until_its_partition_was_read_so_far() {
        let progress = Progress::new(2);
        progress.reached(0, id(9));
        let mut passes = Box::pin(progress.passes(1, id(5), PATIENCE));
        assert!(passes.as_mut().now_or_never().is_none());
        progress.reached(1, id(4));
        assert!(passes.as_mut().now_or_never().is_none() && !progress.has_passed(1, id(5)));
        progress.reached(1, id(7));
        assert_eq!(passes.now_or_never(), Some(true));
        assert!(progress.has_passed(0, id(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_for_as_long_as_the_log_is_read_on_and_no_longer() {
        let progress = Arc::new(Progress::new(1));
        let waits = |last| {
            let progress = progress.clone();
            tokio::spawn(async move { progress.passes(0, id(last), PATIENCE).await })
        };
        let (soon, never) = (waits(60), waits(90));
        for ms in 1..=60 {
            tokio::time::sleep(PATIENCE / 2).await;
            progress.reached(0, id(ms));
        }
        assert!(soon.await.unwrap());
        assert!(!never.await.unwrap());
    }
}
