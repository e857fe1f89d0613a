//! What is to be done at which time.

use parking_lot::Mutex;
use skywave_protocol::{Channel, frame::SessionId};
use std::collections::BTreeMap;
use tokio::{sync::Notify, time::Instant};

/// What is to be done at its time.
#[derive(Debug)]
pub(crate) enum Due {
    /// Tell the channel's changes.
    Flush(Channel),
    /// End the session's absence, if it still is one.
    Leave(Channel, SessionId),
}

#[derive(Default)]
pub(crate) struct Schedule {
    due: Mutex<BTreeMap<Instant, Vec<Due>>>,
    /// Something is due earlier than before.
    changed: Notify,
}

impl Schedule {
    pub(crate) fn add(&self, at: Instant, due: Due) {
        let mut all = self.due.lock();
        let first = all.first_key_value().is_none_or(|(first, _)| at < *first);
        all.entry(at).or_default().push(due);
        drop(all);
        if first {
            self.changed.notify_one();
        }
    }

    /// Waits until something is due, and takes it. One may wait at a time.
    pub(crate) async fn due(&self) -> Vec<Due> {
        loop {
            let next = self.due.lock().first_key_value().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = sleep_until(next) => return self.take(Instant::now()),
                () = self.changed.notified() => {}
            }
        }
    }

    fn take(&self, now: Instant) -> Vec<Due> {
        let mut all = self.due.lock();
        let mut taken = Vec::new();
        while let Some(entry) = all.first_entry().filter(|entry| *entry.key() <= now) {
            taken.append(&mut entry.remove());
        }
        taken
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
