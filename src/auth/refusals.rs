//! Why tokens were refused, for the log: the first of a cause at once, then one line for all within a while.

use super::AuthError;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A cause is logged no more often than this.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// By cause, of which there are few: when it was logged last, and how often it happened since.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<&'static str, (Instant, u64)>>);

impl Refusals {
    /// Logs a refusal, now or with a later one of its cause. Nothing of the token is told.
    pub fn log(&self, error: AuthError) {
        if let Some(more) = self.due(error.cause(), Instant::now()) {
            tracing::warn!(cause = error.cause(), more, "a session was refused");
        }
    }

    /// How many were passed over before this one; none if it is passed over itself.
    fn due(&self, cause: &'static str, now: Instant) -> Option<u64> {
        let mut causes = self.0.lock();
        match causes.get_mut(cause) {
            Some((logged, more)) if now.saturating_duration_since(*logged) < LOG_INTERVAL => {
                *more += 1;
                None
            }
            Some(last) => Some(std::mem::replace(last, (now, 0)).1),
            None => {
                causes.insert(cause, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_logged_at_once_and_then_no_more_often_than_the_log_bears() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.due("one", now), Some(0));
        for _ in 0..1_000 {
            assert_eq!(refusals.due("one", now), None);
        }
        assert_eq!(refusals.due("another", now), Some(0));
        assert_eq!(refusals.due("one", now + LOG_INTERVAL), Some(1_000));
    }
}
