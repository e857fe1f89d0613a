//! When Redis was last heard, on one connection.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Nothing is asked just now.
const NOTHING_ASKED: u64 = u64::MAX;

/// What is known of a connection's other end. Its task tells, anybody may ask.
#[derive(Debug)]
pub struct Pulse {
    /// All times are milliseconds since then.
    begun: Instant,
    available: AtomicBool,
    heard_ms: AtomicU64,
    /// Since when something is asked without pause.
    asked_ms: AtomicU64,
}

impl Pulse {
    pub fn new(available: bool) -> Self {
        Self {
            begun: Instant::now(),
            available: AtomicBool::new(available),
            heard_ms: AtomicU64::new(0),
            asked_ms: AtomicU64::new(NOTHING_ASKED),
        }
    }

    fn now_ms(&self) -> u64 {
        // Half a billion years fit.
        self.begun.elapsed().as_millis() as u64
    }

    /// Whether calls can succeed, as far as is known.
    pub fn is_available(&self) -> bool {
        self.available.load(Ordering::Acquire)
    }

    /// There is a connection, which answered.
    pub fn connected(&self) {
        self.heard(false);
        self.available.store(true, Ordering::Release);
    }

    /// The connection broke, or answers too late.
    pub fn lost(&self) {
        self.available.store(false, Ordering::Release);
    }

    /// The connection broke on which only the other side speaks: its silence before was no sign.
    pub fn broke(&self) {
        if self.is_available() {
            self.heard(false);
        }
        self.lost();
    }

    /// Something is asked.
    pub fn asked(&self) {
        let now = self.now_ms();
        // Where something is asked already, the earlier time stands.
        self.asked_ms.fetch_min(now, Ordering::AcqRel);
    }

    /// Something was answered; `more` is to come.
    pub fn heard(&self, more: bool) {
        self.heard_ms.store(self.now_ms(), Ordering::Release);
        if !more {
            self.asked_ms.store(NOTHING_ASKED, Ordering::Release);
        }
    }

    /// How long Redis has been silent. Zero while nothing is asked, or a connection answers; without a connection, the
    /// time since the last answer.
    pub fn away_for(&self) -> Duration {
        let heard = self.heard_ms.load(Ordering::Acquire);
        let asked = self.asked_ms.load(Ordering::Acquire);
        let since = match (self.is_available(), asked) {
            (true, NOTHING_ASKED) => return Duration::ZERO,
            // An answer to the first of what is under way says that the rest is being worked on.
            (true, asked) => heard.max(asked),
            (false, _) => heard,
        };
        Duration::from_millis(self.now_ms().saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_not_away() {
        let pulse = Pulse::new(true);
        tokio::time::advance(9 * SECOND).await;
        assert_eq!(pulse.away_for(), Duration::ZERO);
        pulse.asked();
        assert_eq!(pulse.away_for(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_question_or_the_last_answer() {
        let pulse = Pulse::new(true);
        tokio::time::advance(SECOND).await;
        pulse.asked();
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(pulse.away_for(), 2 * SECOND);
        pulse.asked();
        pulse.heard(true);
        tokio::time::advance(SECOND).await;
        assert_eq!(pulse.away_for(), SECOND);
        pulse.heard(false);
        tokio::time::advance(SECOND).await;
        assert_eq!(pulse.away_for(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_listens_is_without_a_connection_from_when_it_broke() {
        let pulse = Pulse::new(true);
        for seconds in 1..=3 {
            tokio::time::advance(SECOND).await;
            // It is made anew and breaks at once.
            pulse.broke();
            assert_eq!(pulse.away_for(), (seconds - 1) * SECOND);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_connection_the_last_answer_counts() {
        let pulse = Pulse::new(true);
        tokio::time::advance(SECOND).await;
        pulse.asked();
        pulse.heard(false);
        tokio::time::advance(SECOND).await;
        pulse.lost();
        tokio::time::advance(SECOND).await;
        assert_eq!(pulse.away_for(), 2 * SECOND);
        pulse.connected();
        assert_eq!(pulse.away_for(), Duration::ZERO);
    }
}
