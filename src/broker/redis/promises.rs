//! Partitions of which a reader was told that more of another region is to come.
//!
//! What came live behind such a hole is held for what may come before it. So once nothing is to come any more, subscribers
//! have to read again, however short the time was: the tail asks seldom and may never have seen it.

use std::sync::atomic::{AtomicBool, Ordering};

pub struct Promises(Vec<AtomicBool>);

impl Promises {
    /// For partitions 0 to `partitions` − 1.
    pub fn new(partitions: u16) -> Self {
        Self((0..partitions).map(|_| AtomicBool::new(false)).collect())
    }

    /// A reader of this partition is told that more is to come. To be called before it has the answer.
    pub fn give(&self, partition: u16) {
        if let Some(given) = self.0.get(usize::from(partition)) {
            given.store(true, Ordering::Release);
        }
    }

    /// Nothing is to come of this partition any more. Answers whether a reader waits for it.
    pub fn redeem(&self, partition: u16) -> bool {
        self.0.get(usize::from(partition)).is_some_and(|given| given.swap(false, Ordering::AcqRel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_redeemed_once_and_for_its_partition_alone() {
        let promises = Promises::new(2);
        assert!(!promises.redeem(1));
        promises.give(1);
        promises.give(1);
        assert!(!promises.redeem(0));
        assert!(promises.redeem(1));
        assert!(!promises.redeem(1));
        promises.give(7);
        assert!(!promises.redeem(7));
    }
}
