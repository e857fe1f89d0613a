//! Where in a channel's history readers of several chunks have got to, so that the next chunk need not be searched.

use super::recovery::Starts;
use parking_lot::Mutex;
use skywave_protocol::{Channel, Point, Position, position::Origin};
use skywave_redis::StreamId;
use std::collections::VecDeque;

/// The most marks that are kept; the oldest give way.
const MAX_MARKS: usize = 512;

#[derive(Default)]
pub(crate) struct Marks(Mutex<VecDeque<Mark>>);

struct Mark {
    channel: Channel,
    position: Position,
    next: Next,
}

/// Where reading goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Next {
    /// Nothing before this entry is needed.
    pub from: StreamId,
    /// Nor is anything of an origin before these.
    pub starts: Starts,
}

impl Marks {
    /// Remembers where reading goes on for whoever stands at `position`.
    pub(crate) fn set(&self, channel: &Channel, position: Position, next: Next) {
        let mut marks = self.0.lock();
        if marks.len() == MAX_MARKS {
            marks.pop_front();
        }
        marks.push_back(Mark { channel: channel.clone(), position, next });
    }

    /// Where reading goes on for somebody who has seen `position`: as far on as is known.
    pub(crate) fn find(&self, channel: &Channel, position: &Position) -> Option<Next> {
        let covers = |mark: &&Mark| mark.channel == *channel && has_seen(position, &mark.position);
        let marks = self.0.lock();
        marks.iter().filter(covers).map(|mark| &mark.next).max_by_key(|next| next.from).cloned()
    }

    /// Forgets everything, as after a change of life.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Whether `position` is `other` or a later one in the same epochs. Of the same origins, too: what a mark knows of an
/// origin's epochs holds for those who have seen as much of it.
fn has_seen(position: &Position, other: &Position) -> bool {
    let at_least = |(origin, point): &(Origin, Point)| {
        position.get(origin).is_some_and(|seen| seen.epoch == point.epoch && seen.offset >= point.offset)
    };
    position.len() == other.len() && other.iter().all(at_least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::Text;

    fn at(epoch: &str, offset: u64) -> Position {
        let point = Point { epoch: Text::new(epoch).unwrap(), offset };
        [(Text::new("eu").unwrap(), point)].into_iter().collect()
    }

    fn next(ms: u64) -> Next {
        let from = StreamId { ms, sequence: 0 };
        Next { from, starts: Starts::at(from) }
    }

    #[test]
    fn the_furthest_mark_that_a_position_covers_is_found() {
        let (marks, channel) = (Marks::default(), Channel::new("chat:1").unwrap());
        for offset in [10, 20, 30] {
            marks.set(&channel, at("e", offset), next(offset));
        }
        assert_eq!(marks.find(&channel, &at("e", 25)), Some(next(20)));
        assert_eq!(marks.find(&channel, &at("e", 9)), None);
        assert_eq!(marks.find(&channel, &at("x", 25)), None);
        assert_eq!(marks.find(&Channel::new("chat:2").unwrap(), &at("e", 25)), None);
        assert_eq!(marks.find(&channel, &Position::new()), None);
    }

    #[test]
    fn a_mark_says_nothing_to_those_who_know_more_origins() {
        let (marks, channel) = (Marks::default(), Channel::new("chat:1").unwrap());
        marks.set(&channel, at("e", 10), next(10));
        let mut position = at("e", 10);
        position.set(Text::new("us").unwrap(), Point { epoch: Text::new("e").unwrap(), offset: 1 });
        assert_eq!(marks.find(&channel, &position), None);
    }

    #[test]
    fn marks_are_bounded() {
        let (marks, channel) = (Marks::default(), Channel::new("chat:1").unwrap());
        for offset in 0..2 * MAX_MARKS as u64 {
            marks.set(&channel, at("e", offset), next(offset));
        }
        assert_eq!(marks.0.lock().len(), MAX_MARKS);
    }
}
