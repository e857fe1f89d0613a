//! How far this node has read the log of each partition, and in which life.
//!
//! What a channel's history lacks may be in the part of the log that is still to be read: it comes live, and is not
//! lost. So whoever is to be told of a loss waits until the log was read as far as it went when the history was asked.
//!
//! Connections are made one by one. For a while some may lead to a server that others took over from and that does not
//! know it. What it tells is of an earlier life than what the others tell.

use super::{
    doubts::Doubts,
    epoch::{life_of, serial_of},
};
use parking_lot::Mutex;
use skywave_redis::StreamId;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::watch;

pub(crate) struct Progress {
    places: Vec<Place>,
}

struct Place {
    last: watch::Sender<StreamId>,
    /// The serial of the life in which the log is that is followed.
    followed: AtomicU64,
    /// The latest serial of a life that a server told of.
    told: AtomicU64,
    /// Of readers who say that they saw a later life.
    doubts: Mutex<Doubts>,
}

impl Place {
    fn is_later(&self, life: &str) -> bool {
        serial_of(life).is_some_and(|serial| serial > self.followed.load(Ordering::Acquire))
    }
}

impl Progress {
    /// Of partitions 0 to `partitions` − 1.
    pub(crate) fn new(partitions: u16) -> Self {
        let place = |_| Place {
            last: watch::Sender::new(StreamId::MIN),
            followed: AtomicU64::new(0),
            told: AtomicU64::new(0),
            doubts: Mutex::default(),
        };
        Self { places: (0..partitions).map(place).collect() }
    }

    fn place(&self, partition: u16) -> Option<&Place> {
        self.places.get(usize::from(partition))
    }

    /// The log that is followed is in the life of this serial.
    pub(crate) fn follows(&self, partition: u16, serial: u64) {
        if let Some(place) = self.place(partition) {
            place.followed.store(serial, Ordering::Release);
            place.told.fetch_max(serial, Ordering::AcqRel);
            place.doubts.lock().came(|life| !place.is_later(life));
        }
    }

    /// A server tells something of a life. Whether it is a past one: then others took over from that server.
    pub(crate) fn is_past(&self, partition: u16, life: &str) -> bool {
        let told = self.place(partition).zip(serial_of(life));
        told.is_some_and(|(place, serial)| {
            place.told.fetch_max(serial, Ordering::AcqRel);
            serial < place.followed.load(Ordering::Acquire)
        })
    }

    /// A reader says that it saw this epoch. Whether it has to wait: if what it says is true, and of a later life than
    /// that of the log which is followed, others took over from that log's server.
    pub(crate) fn is_to_wait(&self, partition: u16, epoch: &str) -> bool {
        let life = life_of(epoch);
        let place = self.place(partition).filter(|place| place.is_later(life));
        place.is_some_and(|place| place.doubts.lock().wait_for(life))
    }

    /// Whether readers wait for a later life: where it is, is to be asked.
    pub(crate) fn is_doubted(&self, partition: u16) -> bool {
        let place = self.place(partition);
        place.is_some_and(|place| place.doubts.lock().awaited().any(|life| place.is_later(life)))
    }

    /// The latest serial of a life that a server told of.
    pub(crate) fn told(&self, partition: u16) -> u64 {
        self.place(partition).map_or(0, |place| place.told.load(Ordering::Acquire))
    }

    /// Whether a later life was told of than the one of the log that is followed.
    pub(crate) fn is_outrun(&self, partition: u16) -> bool {
        let followed = |place: &Place| place.followed.load(Ordering::Acquire);
        self.place(partition).is_some_and(|place| followed(place) < self.told(partition))
    }

    /// All up to `last` was delivered, or was before this node began. In another life it may be earlier than before.
    pub(crate) fn reached(&self, partition: u16, last: StreamId) {
        if let Some(place) = self.place(partition) {
            place.last.send_replace(last);
        }
    }

    /// Whether all up to `id` was delivered.
    pub(crate) fn has_passed(&self, partition: u16, id: StreamId) -> bool {
        self.place(partition).is_none_or(|place| *place.last.borrow() >= id)
    }

    /// Waits until all up to `id` was delivered, for as long as the log is read on. `false` when nothing was read of it
    /// during `patience`.
    pub(crate) async fn passes(&self, partition: u16, id: StreamId, patience: Duration) -> bool {
        let Some(place) = self.place(partition) else { return true };
        let mut place = place.last.subscribe();
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

    fn life(serial: u64) -> String {
        format!("{serial:011x}aaaaa")
    }

    #[test]
    fn what_is_told_of_an_earlier_life_than_is_followed_is_past_and_a_later_one_outruns_it() {
        let progress = Progress::new(1);
        assert!(!progress.is_past(0, &life(5)) && progress.is_outrun(0));
        progress.follows(0, 5);
        assert!(!progress.is_past(0, &life(5)) && !progress.is_outrun(0));
        assert!(progress.is_past(0, &life(4)) && !progress.is_outrun(0));
        assert!(!progress.is_past(0, &life(6)) && progress.is_outrun(0));
        // It leads to a server that others took over from.
        progress.follows(0, 5);
        assert!(progress.is_outrun(0) && progress.told(0) == 6);
        progress.follows(0, 7);
        assert!(!progress.is_outrun(0) && progress.is_past(0, &life(6)));
        assert!(!progress.is_past(0, "a name of the version before"));
    }

    #[test]
    fn readers_who_saw_a_later_life_wait_until_it_is_followed() {
        let (progress, epoch) = (Progress::new(1), |serial| format!("{}.e1", life(serial)));
        progress.follows(0, 5);
        assert!(!progress.is_to_wait(0, &epoch(5)) && !progress.is_doubted(0));
        assert!(progress.is_to_wait(0, &epoch(9)) && progress.is_doubted(0));
        // Nobody who can be believed said so.
        assert!(!progress.is_outrun(0));
        assert!(!progress.is_to_wait(0, "a name of the version before.1"));
        progress.follows(0, 9);
        assert!(!progress.is_to_wait(0, &epoch(9)) && !progress.is_doubted(0));
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
