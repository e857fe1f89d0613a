//! When a transport is exchanged for another one: its resume secret ends a day after it was given.

use super::{Session, connection::Connection};
use crate::auth::resume::RESUME_LIFETIME;
use skywave_protocol::{ServerFrame, frame::Drain};
use std::time::{Duration, SystemTime};

/// Within which time a client moves that is asked to, each at its own moment. One that has not is asked again then.
const SPREAD: Duration = Duration::from_secs(3_600);

/// When a transport is to be exchanged: by the clock by which secrets end, also where the machine slept.
pub(crate) struct Renewal {
    due: SystemTime,
}

impl Renewal {
    /// Of a secret that is given now.
    pub(crate) fn new(now: SystemTime) -> Self {
        Self { due: now + RESUME_LIFETIME / 2 }
    }

    /// Whether the client is to be asked now.
    fn is_due(&mut self, now: SystemTime) -> bool {
        let is_due = self.due <= now;
        if is_due {
            self.due = now + SPREAD;
        }
        is_due
    }
}

impl<C: Connection> Session<C> {
    /// Asks the client to come again to this node, where its secret is getting old.
    pub(super) fn renew(&mut self, now: SystemTime) {
        // Who is moved off gets another one elsewhere.
        if !self.renewal.is_due(now) || self.node.cluster.turns_away() {
            return;
        }
        let url = self.node.config.node.url.as_deref().map(Into::into);
        self.send(&ServerFrame::Drain(Drain { after_ms: SPREAD.as_millis() as u64, url }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_asked_long_before_its_secret_ends_and_again_while_it_stays() {
        let (hour, begun) = (Duration::from_secs(3_600), SystemTime::UNIX_EPOCH);
        let mut renewal = Renewal::new(begun);
        let asked: Vec<_> = (0..24).filter(|hours| renewal.is_due(begun + hour * *hours)).collect();
        assert!(asked.iter().copied().eq(12..24), "{asked:?}");
    }
}
