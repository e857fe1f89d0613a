//! Limits on what comes from outside: token buckets, counted permits and tallies.

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// How many seconds' worth of tokens a bucket holds.
const BURST_SECONDS: f32 = 2.0;
/// Which part of all open files is not for clients: one of so many, …
const RESERVED_PART: u64 = 8;
/// … and this many at most.
const MAX_RESERVED: u64 = 1_024;

/// A token bucket that holds two seconds' worth. A rate of 0 means without limit.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: f32,
    tokens: f32,
    refilled: Instant,
}

impl TokenBucket {
    pub fn new(per_second: u32, now: Instant) -> Self {
        let rate = per_second as f32;
        Self { rate, tokens: rate * BURST_SECONDS, refilled: now }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// The time until there will be one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if self.rate == 0.0 {
            return Ok(());
        }
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f32();
        self.tokens = (self.tokens + elapsed * self.rate).min(self.rate * BURST_SECONDS);
        self.refilled = now.max(self.refilled);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f32((1.0 - self.tokens) / self.rate))
        }
    }
}

/// What bounds sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Those of the node.
    Node,
    /// Those of an address.
    Address(IpAddr),
    /// Those of a user.
    User,
    /// Transports of an address on which nobody has said yet who comes.
    Newcomers(IpAddr),
}

impl Limit {
    /// A few words for logs and metrics.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Node => "limits.sessions is reached",
            Self::Address(_) => "limits.sessions_per_address is reached",
            Self::User => "limits.sessions_per_user is reached",
            Self::Newcomers(_) => "twice limits.sessions_per_address have not said yet who comes",
        }
    }
}

/// The open files that the connections of clients may have. The rest is for what the node lives by: its connections to
/// Redis, the admin listener, certificates.
#[derive(Debug, Clone, Copy)]
pub struct OpenFiles {
    reserved_from: u64,
}

impl OpenFiles {
    /// Of those that this process may have now.
    pub(crate) fn of_process() -> Self {
        Self::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    fn of(all: u64) -> Self {
        Self { reserved_from: all - (all / RESERVED_PART).min(MAX_RESERVED) }
    }

    /// Whether a connection that was opened just now is one too many: the system gives each the lowest number that is
    /// free.
    pub(crate) fn are_exceeded_by(self, opened: &impl AsRawFd) -> bool {
        u64::try_from(opened.as_raw_fd()).is_ok_and(|number| number >= self.reserved_from)
    }
}

/// What counts as one address: an IPv4 address, or the /64 of an IPv6 address, of which one subscriber has all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressBlock(IpAddr);

impl AddressBlock {
    /// The block of an address; an IPv4 peer of a dual-stack socket counts under its IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address => address,
        })
    }
}

/// Counts holders per key, up to a maximum each. 0 means without limit.
#[derive(Debug)]
pub struct Quota<K: Eq + Hash + Clone> {
    maximum: usize,
    held: Mutex<HashMap<K, usize>>,
}

/// One of a key's places; given back when dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash + Clone> {
    quota: Arc<Quota<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Quota<K> {
    pub fn new(maximum: usize) -> Arc<Self> {
        Arc::new(Self { maximum, held: Mutex::default() })
    }

    /// A place, unless all of this key are taken.
    pub fn take(self: &Arc<Self>, key: K) -> Option<Place<K>> {
        let mut held = self.held.lock();
        let count = held.get(&key).copied().unwrap_or(0);
        if self.maximum != 0 && count >= self.maximum {
            return None;
        }
        held.insert(key.clone(), count + 1);
        Some(Place { quota: self.clone(), key })
    }

    /// A place even if all are taken, for one who takes over from a holder that is about to go.
    pub(crate) fn take_beyond(self: &Arc<Self>, key: K) -> Place<K> {
        *self.held.lock().entry(key.clone()).or_insert(0) += 1;
        Place { quota: self.clone(), key }
    }
}

impl<K: Eq + Hash + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = self.quota.held.lock();
        if let Some(count) = held.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.key);
            }
        }
    }
}

/// Counts those who are there, and tells when nobody is.
#[derive(Debug, Default)]
pub struct Tally {
    count: AtomicUsize,
    emptied: Notify,
}

/// One who is there, until dropped.
#[derive(Debug)]
pub struct Counted(Arc<Tally>);

impl Tally {
    pub fn enter(self: &Arc<Self>) -> Counted {
        self.count.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until nobody is there.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_two_seconds_and_tells_when_to_come_back() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, start);
        for _ in 0..20 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        let wait = bucket.take(start).unwrap_err();
        assert!(wait < Duration::from_millis(101), "{wait:?}");
        assert_eq!(bucket.take(start + wait + Duration::from_millis(1)), Ok(()));
    }

    #[test]
    fn a_bucket_survives_a_clock_that_stands_still_or_leaps() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1, start);
        assert!(bucket.take(start + Duration::from_secs(1_000_000)).is_ok());
        assert!(bucket.take(start).is_ok());
        assert!(bucket.take(start).is_err());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let block = |text: &str| AddressBlock::of(text.parse().unwrap());
        assert_eq!(block("2001:db8:0:1::1"), block("2001:db8:0:1:ffff::2"));
        assert_ne!(block("2001:db8:0:1::1"), block("2001:db8:0:2::1"));
        assert_eq!(block("::ffff:192.0.2.1"), block("192.0.2.1"));
        assert_ne!(block("192.0.2.1"), block("192.0.2.2"));
    }

    #[test]
    fn a_place_comes_back_when_it_is_dropped() {
        let quota = Quota::new(1);
        let place = quota.take("a").unwrap();
        assert!(quota.take("a").is_none());
        assert!(quota.take("b").is_some());
        drop(place);
        assert!(quota.take("a").is_some());
        assert!(quota.held.lock().is_empty());
    }
}
