//! Whether a server is to be believed that is in an earlier life than somebody saw.
//!
//! No life comes back. So one of two things happened. Others took over from that server, and neither it knows that yet
//! nor whoever named it: that is soon over. Or all was lost, and all who knew of the life are gone, while the clock
//! stands behind: that stays.

use parking_lot::Mutex;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// How long it may take until all sentinels, or all servers of a cluster, tell of the same master.
const PATIENCE: Duration = Duration::from_secs(12);
/// Of how many lives of a partition it is remembered that somebody saw them.
const MOST: usize = 64;

/// The lives of a partition that somebody saw, each with the time when that was said first; the earliest comes first.
#[derive(Default)]
pub(crate) struct Doubts(VecDeque<(String, Instant)>);

impl Doubts {
    /// Those of partitions 0 to `partitions` − 1.
    pub(crate) fn of_all(partitions: u16) -> Vec<Mutex<Self>> {
        (0..partitions).map(|_| Mutex::default()).collect()
    }

    /// Whether to wait for `life`, of which somebody says that it is a later one. Anybody may say what is not so. So
    /// where too many lives are named, the one that was named first gives way, and is waited for anew if it is named
    /// again. Whoever lies ends nobody else's waiting.
    pub(crate) fn wait_for(&mut self, life: &str) -> bool {
        let now = Instant::now();
        if let Some((_, since)) = self.0.iter().find(|(known, _)| known == life) {
            return is_recent(*since, now);
        }
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((life.to_owned(), now));
        true
    }

    /// Has nobody doubt these any more: they came. Should a server in an earlier one be told of once more, they are
    /// waited for anew.
    pub(crate) fn came(&mut self, came: impl Fn(&str) -> bool) {
        self.0.retain(|(life, _)| !came(life));
    }

    /// The lives that are waited for.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = &str> {
        let now = Instant::now();
        self.0.iter().filter(move |(_, since)| is_recent(*since, now)).map(|(life, _)| &**life)
    }
}

fn is_recent(since: Instant, now: Instant) -> bool {
    now.duration_since(since) < PATIENCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_life_is_waited_for_from_when_it_was_first_said_to_be_a_later_one() {
        let mut doubts = Doubts::default();
        assert!(doubts.wait_for("b"));
        advance(PATIENCE / 2).await;
        assert!(doubts.wait_for("b") && doubts.wait_for("c"));
        advance(PATIENCE / 2).await;
        assert!(!doubts.wait_for("b"));
        assert!(doubts.awaited().eq(["c"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_that_came_is_waited_for_anew_should_a_server_in_an_earlier_one_be_told_of_again() {
        let mut doubts = Doubts::default();
        assert!(doubts.wait_for("b") && doubts.wait_for("c"));
        doubts.came(|life| life == "b");
        assert!(doubts.awaited().eq(["c"]));
        advance(PATIENCE).await;
        assert!(doubts.wait_for("b") && !doubts.wait_for("c"));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_too_much_ends_nobody_elses_waiting_and_takes_little() {
        let mut doubts = Doubts::default();
        assert!(doubts.wait_for("b"));
        for lie in 0..10 * MOST {
            assert!(doubts.wait_for(&lie.to_string()));
        }
        assert!(doubts.wait_for("b") && doubts.awaited().count() == MOST);
        advance(PATIENCE).await;
        assert!(!doubts.wait_for("b") && doubts.awaited().next().is_none());
    }
}
