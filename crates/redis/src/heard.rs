//! Whether all was heard that was said on a numbered pub/sub channel.
//!
//! Pub/sub loses what is said while a connection is broken; its listener knows that. It also loses what a cluster's
//! servers do not pass on to each other; nobody tells that. So whatever others rely on is numbered without gaps, in the
//! step in which it is said, and Redis keeps the number of the last. A listener that hears a number that does not
//! follow, or learns that more was said than it heard, makes up for it: it reads, or says again, what the news were
//! about.

use std::time::Duration;
use tokio::time::Instant;

/// What was said may be on its way for so long.
const GRACE: Duration = Duration::from_millis(1_500);

/// What was heard of one channel.
#[derive(Debug, Default)]
pub struct Heard {
    /// The number that was heard last, or up to which all was made up for; none before the first count.
    last: Option<u64>,
    /// The number that Redis told last.
    counted: u64,
    /// More was said than was heard: up to which number, and since when that is known.
    owed: Option<(u64, Instant)>,
}

impl Heard {
    /// The number of what was heard last, if anything is known.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// The news of this number are heard. Whether others were missed before them.
    pub fn news(&mut self, number: u64) -> bool {
        let Some(last) = &mut self.last else { return false };
        std::mem::replace(last, number).checked_add(1) != Some(number)
    }

    /// Redis tells the number of what was said last. Whether some of it was missed; at first that cannot be known.
    pub fn counted(&mut self, said: u64) -> bool {
        // It lost its count, and what was said by it with it.
        let began_anew = said < std::mem::replace(&mut self.counted, said) || self.last.is_none();
        let last = *self.last.get_or_insert(said);
        self.owed.take_if(|(number, _)| *number <= last);
        if said > last {
            self.owed.get_or_insert((said, Instant::now()));
        }
        let missed = began_anew || self.owed.is_some_and(|(_, since)| since.elapsed() >= GRACE);
        if missed {
            (self.last, self.owed) = (Some(said), None);
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_secs(2);

    /// One that knows nothing begins with a count; what was said by then is to be made up for.
    fn begun(said: u64) -> Heard {
        let mut heard = Heard::default();
        assert!(!heard.news(said));
        assert!(heard.counted(said));
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_that_does_not_follow_tells_of_a_hole_once() {
        let mut heard = begun(4);
        assert_eq!([5, 6, 8, 9].map(|number| heard.news(number)), [false, false, true, false]);
        assert!(!heard.counted(9));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_last_and_never_came_is_missed_after_a_while_and_then_no_more() {
        let mut heard = begun(3);
        assert!(!heard.counted(5), "it may be on its way");
        tokio::time::advance(TURN).await;
        assert!(heard.counted(5));
        tokio::time::advance(TURN).await;
        assert!(!heard.counted(5));
        assert!(!heard.news(6));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_late_is_not_missed_however_much_is_said_meanwhile() {
        let mut heard = begun(0);
        for number in 1..100 {
            assert!(!heard.counted(number));
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(!heard.news(number));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_that_begins_anew_is_a_hole() {
        let mut heard = begun(7);
        assert!(heard.counted(0));
        assert!(!heard.counted(0));
        assert!(!heard.news(1));
        assert!(heard.news(1), "and so is a number that comes again");
    }
}
