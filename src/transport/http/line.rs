//! Those who came and wait for the turn of their handshake.

use std::collections::VecDeque;

/// For how many seconds' worth of turns there are places: clients give an attempt up after five seconds.
const PATIENCE_SECONDS: usize = 2;

/// Whoever came last is next, and takes the place of who has waited longest where there is none. If the first were
/// next, and more came than have a turn, everybody would wait until just before giving up, and each turn would be
/// wasted.
pub(crate) struct Line<T> {
    waiting: VecDeque<T>,
    places: usize,
}

impl<T> Line<T> {
    /// Where so many have a turn in a second.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { waiting: VecDeque::new(), places: (per_second as usize).saturating_mul(PATIENCE_SECONDS) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One more waits; gives the one who has waited in vain for it, if any.
    pub(crate) fn join(&mut self, newcomer: T) -> Option<T> {
        self.waiting.push_back(newcomer);
        if self.waiting.len() > self.places { self.waiting.pop_front() } else { None }
    }

    /// Whose turn it is.
    pub(crate) fn next(&mut self) -> Option<T> {
        self.waiting.pop_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_last_is_next_and_who_has_waited_longest_makes_room() {
        let mut line = Line::new(1);
        assert_eq!((line.join(1), line.join(2), line.join(3)), (None, None, Some(1)));
        assert_eq!((line.next(), line.join(4), line.next()), (Some(3), None, Some(4)));
        assert_eq!((line.next(), line.next()), (Some(2), None));
        assert!(line.is_empty());
    }
}
