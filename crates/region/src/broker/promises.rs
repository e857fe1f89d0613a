//! What readers were told is still to come: of which partitions, and of which other regions.
//!
//! What came live behind such a hole is held for what may come before it. So once nothing is to come of that region any
//! more, subscribers have to read again, however short the time was: the tail asks seldom, and may never have seen it.
//! They do not wait for other regions: of one that was never reached, more is to come for as long as it is configured.

use parking_lot::Mutex;
use skywave_protocol::position::Origin;
use std::collections::BTreeSet;

pub(crate) struct Promises {
    own: Origin,
    /// By partition.
    given: Vec<Mutex<BTreeSet<Origin>>>,
}

impl Promises {
    /// For partitions 0 to `partitions` − 1 of the region `own`.
    pub(crate) fn new(own: Origin, partitions: u16) -> Self {
        Self { own, given: (0..partitions).map(|_| Mutex::default()).collect() }
    }

    /// A reader of this partition is told that more is to come of these regions. To be called before it has the answer.
    pub(crate) fn give(&self, partition: u16, coming: &[Origin]) {
        if let Some(given) = self.given.get(usize::from(partition)) {
            given.lock().extend(coming.iter().cloned());
        }
    }

    /// Nothing is to come of this partition any more, except of the regions in `coming`, as Redis tells it: the own
    /// region has no name there. Answers whether a reader waits for another one.
    pub(crate) fn redeem(&self, partition: u16, coming: &[String]) -> bool {
        let Some(given) = self.given.get(usize::from(partition)) else { return false };
        let is_coming = |region: &Origin| {
            coming.iter().any(|name| **region == **name || name.is_empty() && *region == self.own)
        };
        let mut given = given.lock();
        let before = given.len();
        given.retain(is_coming);
        given.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Origin {
        Origin::new(name).unwrap()
    }

    fn coming(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_promise_is_redeemed_once_and_for_its_partition_alone() {
        let promises = Promises::new(named("eu"), 2);
        assert!(!promises.redeem(1, &[]));
        promises.give(1, &[named("us")]);
        promises.give(1, &[named("us")]);
        assert!(!promises.redeem(0, &[]));
        assert!(promises.redeem(1, &[]));
        assert!(!promises.redeem(1, &[]));
        promises.give(7, &[named("us")]);
        assert!(!promises.redeem(7, &[]));
    }

    #[test]
    fn a_promise_is_redeemed_when_its_region_has_come_though_others_have_not() {
        let promises = Promises::new(named("eu"), 1);
        promises.give(0, &[named("ap"), named("eu"), named("us")]);
        assert!(!promises.redeem(0, &coming(&["", "ap", "us"])));
        assert!(promises.redeem(0, &coming(&["", "ap"])));
        assert!(promises.redeem(0, &coming(&["ap"])));
        assert!(!promises.redeem(0, &coming(&["ap"])));
    }
}
