//! The idempotency keys of a channel, each remembered for its time; of all channels within a bound in bytes.

use skywave_protocol::frame::Key;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// What a key takes beside its text, in bytes: its places in a map and in a queue.
const OVERHEAD: usize = 128;

/// The bytes that the keys of all channels may take together.
pub(crate) struct KeyRoom {
    taken: AtomicUsize,
    bytes: usize,
}

impl KeyRoom {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), bytes })
    }

    fn take(&self, bytes: usize) -> bool {
        let within = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= self.bytes);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// There is no room for another key; none is forgotten for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

pub(crate) struct Keys {
    room: Arc<KeyRoom>,
    offsets: HashMap<Key, u64>,
    /// In the order in which they are forgotten.
    times: VecDeque<(Instant, Key)>,
}

impl Keys {
    pub(crate) fn new(room: Arc<KeyRoom>) -> Self {
        Self { room, offsets: HashMap::new(), times: VecDeque::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The offset of the publication that had the key.
    pub(crate) fn find(&self, key: &Key) -> Option<u64> {
        self.offsets.get(key).copied()
    }

    /// Remembers the key of the publication at `offset`, one that is not known.
    ///
    /// # Errors
    /// `Full` when all keys together take their bytes.
    pub(crate) fn remember(&mut self, key: &Key, offset: u64, now: Instant) -> Result<(), Full> {
        if !self.room.take(size(key)) {
            return Err(Full);
        }
        self.offsets.insert(key.clone(), offset);
        self.times.push_back((now, key.clone()));
        Ok(())
    }

    /// Forgets those that are older than `age`.
    pub(crate) fn forget(&mut self, age: Duration, now: Instant) {
        while self.times.front().is_some_and(|(time, _)| now.saturating_duration_since(*time) > age) {
            if let Some((_, key)) = self.times.pop_front() {
                self.offsets.remove(&key);
                self.room.give_back(size(&key));
            }
        }
        if self.times.is_empty() && self.times.capacity() > 0 {
            (self.offsets, self.times) = (HashMap::new(), VecDeque::new());
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.room.give_back(self.times.iter().map(|(_, key)| size(key)).sum());
    }
}

fn size(key: &Key) -> usize {
    OVERHEAD + key.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(60);

    fn key(number: u64) -> Key {
        Key::new(number.to_string()).unwrap()
    }

    #[test]
    fn a_key_is_remembered_for_its_time_however_many_follow() {
        let (room, begun) = (KeyRoom::new(1 << 30), Instant::now());
        let mut keys = Keys::new(room.clone());
        for number in 0..100_000 {
            keys.remember(&key(number), number, begun).unwrap();
        }
        keys.forget(AGE, begun + AGE);
        assert_eq!(keys.find(&key(0)), Some(0));
        keys.forget(AGE, begun + AGE + Duration::from_millis(1));
        assert_eq!((keys.find(&key(0)), keys.is_empty()), (None, true));
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_key_for_which_there_is_no_room_is_refused_and_none_forgotten() {
        let (room, begun) = (KeyRoom::new(3 * (OVERHEAD + 1)), Instant::now());
        let (mut here, mut there) = (Keys::new(room.clone()), Keys::new(room));
        here.remember(&key(1), 1, begun).unwrap();
        here.remember(&key(2), 2, begun).unwrap();
        there.remember(&key(3), 1, begun).unwrap();
        assert_eq!(there.remember(&key(4), 2, begun), Err(Full));
        assert_eq!(here.find(&key(1)), Some(1));
        // A channel that is forgotten gives its room back.
        drop(here);
        there.remember(&key(4), 2, begun).unwrap();
    }
}
