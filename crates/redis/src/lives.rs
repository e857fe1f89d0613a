//! How late the lives are in which a Redis was seen: whichever begins there comes after them.

use std::sync::atomic::{AtomicU64, Ordering};

/// The highest serial of a life of any of its partitions. They grow by its clock, so that of one does for all.
#[derive(Debug, Default)]
pub struct Lives(AtomicU64);

impl Lives {
    pub fn saw(&self, serial: u64) {
        self.0.fetch_max(serial, Ordering::Relaxed);
    }

    pub fn latest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
