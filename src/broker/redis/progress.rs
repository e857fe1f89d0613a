//! How far this node has read the log of each partition.
//!
//! What a channel's history lacks may stand in the part of the log that is still to be read: it comes live, and is not
//! lost. So whoever is to be told of a loss waits until the log was read as far as it went when the history was asked.

use crate::redis::StreamId;
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

    /// Waits until all up to `id` was delivered.
    pub async fn passes(&self, partition: u16, id: StreamId) {
        let Some(place) = self.0.get(usize::from(partition)) else { return };
        // Its sender lives as long as this.
        let _ = place.subscribe().wait_for(|last| *last >= id).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, sequence: 0 }
    }

    #[test]
    fn a_reader_waits_until_its_partition_was_read_so_far() {
        let progress = Progress::new(2);
        progress.reached(0, id(9));
        let mut passes = Box::pin(progress.passes(1, id(5)));
        assert!(passes.as_mut().now_or_never().is_none());
        progress.reached(1, id(4));
        assert!(passes.as_mut().now_or_never().is_none());
        progress.reached(1, id(7));
        assert!(passes.now_or_never().is_some());
        assert!(progress.passes(0, id(9)).now_or_never().is_some());
    }
}
