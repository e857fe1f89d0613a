//! How much of another region's log was applied here.

use crate::redis::StreamId;
use std::fmt;

/// A place in one partition of another region's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which life of the log `id` belongs to.
    pub life: String,
    /// The last entry that was looked at.
    pub id: StreamId,
    /// How many publications that region had accepted then, as far as is known; for measuring only.
    pub count: u64,
}

impl Cursor {
    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let cursor = Self {
            life: words.next().filter(|life| !life.is_empty())?.to_owned(),
            id: StreamId::parse(words.next()?)?,
            count: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(cursor)
    }

    /// The place from which nothing is missed in the life that the log is in now, which began when `born` was the
    /// last id: ids of another life may lie below those that were seen.
    pub fn in_life(&self, life: &str, born: StreamId) -> Self {
        if self.life == life {
            return self.clone();
        }
        Self { life: life.to_owned(), id: self.id.min(born), count: self.count }
    }

    /// So many milliseconds before, by the other region's clock.
    pub fn back_by(self, ms: u64) -> Self {
        Self { id: StreamId { ms: self.id.ms.saturating_sub(ms), sequence: 0 }, ..self }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.life, self.id, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(life: &str, ms: u64) -> Cursor {
        Cursor { life: life.to_owned(), id: StreamId { ms, sequence: 0 }, count: 7 }
    }

    #[test]
    fn a_cursor_reads_as_it_was_written() {
        assert_eq!(Cursor::parse(&cursor("a", 5).to_string()), Some(cursor("a", 5)));
        for malformed in ["", "a", "a 5-0", "a 5 7", "a 5-0 7 8", " 5-0 7", "a 5-0 x"] {
            assert_eq!(Cursor::parse(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn in_another_life_it_goes_back_to_where_that_began() {
        let born = StreamId { ms: 3, sequence: 0 };
        assert_eq!(cursor("a", 5).in_life("a", born), cursor("a", 5));
        assert_eq!(cursor("a", 5).in_life("b", born), cursor("b", 3));
        assert_eq!(cursor("a", 2).in_life("b", born), cursor("b", 2));
    }
}
