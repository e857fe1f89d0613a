//! How much of another region's log was applied here.

use skywave_redis::StreamId;
use std::fmt;

/// A place in one partition of another region's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which life of the log `id` belongs to.
    pub life: String,
    /// The last entry that was looked at.
    pub id: StreamId,
    /// How many publications that region had accepted then; known once the log was read to its end.
    pub count: u64,
    /// The log's last id when its life began: once the cursor is there, all is here that was left of lives before. Not
    /// known of a cursor that an earlier version stored.
    pub(crate) born: Option<StreamId>,
}

/// What a publication that was heard is to somebody at a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hearing {
    /// It lies behind.
    Known,
    /// It follows; the cursor is here after it.
    Next(Cursor),
    /// Others may lie between, on whatever channels: the log tells.
    Missed,
    /// The other region's log begins anew.
    AnotherLife,
}

impl Cursor {
    /// Reads what [`fmt::Display`] wrote, also that of a later version, which may have more words.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        Some(Self {
            life: words.next().filter(|life| !life.is_empty())?.to_owned(),
            id: StreamId::parse(words.next()?)?,
            count: words.next()?.parse().ok()?,
            born: words.next().and_then(StreamId::parse),
        })
    }

    /// What a publication is that was heard from this life of the log. Whoever does not tell the count may have been
    /// preceded by what was not heard.
    pub fn hear(&self, life: &str, id: StreamId, count: Option<u64>) -> Hearing {
        if life != self.life {
            Hearing::AnotherLife
        } else if id <= self.id {
            Hearing::Known
        } else {
            let next = self.count.checked_add(1).filter(|next| count == Some(*next));
            next.map_or(Hearing::Missed, |count| Hearing::Next(Self { id, count, ..self.clone() }))
        }
    }

    /// The place from which nothing is missed in the log's present life, which began when `born` was the last id. Ids
    /// of another life may lie below those that were seen.
    pub(crate) fn in_life(&self, life: &str, born: StreamId) -> Self {
        let id = if self.life == life { self.id } else { self.id.min(born) };
        Self { life: life.to_owned(), id, count: self.count, born: Some(born) }
    }

    /// So many milliseconds before, by the other region's clock.
    pub(crate) fn back_by(self, ms: u64) -> Self {
        Self { id: StreamId { ms: self.id.ms.saturating_sub(ms), sequence: 0 }, ..self }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.life, self.id, self.count)?;
        self.born.map_or(Ok(()), |born| write!(formatter, " {born}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(life: &str, ms: u64) -> Cursor {
        Cursor { life: life.to_owned(), id: StreamId { ms, sequence: 0 }, count: 7, born: None }
    }

    fn born(life: &str, ms: u64, born: u64) -> Cursor {
        Cursor { born: Some(StreamId { ms: born, sequence: 0 }), ..cursor(life, ms) }
    }

    #[test]
    fn a_cursor_reads_as_it_was_written() {
        for written in [cursor("a", 5), born("a", 5, 3)] {
            assert_eq!(Cursor::parse(&written.to_string()), Some(written));
        }
        for malformed in ["", "a", "a 5-0", "a 5 7", " 5-0 7", "a 5-0 x"] {
            assert_eq!(Cursor::parse(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn what_a_later_version_adds_to_a_cursor_is_passed_over() {
        assert_eq!(Cursor::parse("a 5-0 7 3-0 more of-it"), Some(born("a", 5, 3)));
        assert_eq!(Cursor::parse("a 5-0 7 more of-it"), Some(cursor("a", 5)));
    }

    #[test]
    fn only_what_follows_without_a_hole_moves_a_cursor_that_hears() {
        let at = |ms| StreamId { ms, sequence: 0 };
        let hear = |ms, count| cursor("a", 5).hear("a", at(ms), count);
        assert_eq!(hear(9, Some(8)), Hearing::Next(Cursor { count: 8, ..cursor("a", 9) }));
        assert_eq!(hear(5, Some(7)), Hearing::Known);
        for count in [None, Some(6), Some(7), Some(9)] {
            assert_eq!(hear(9, count), Hearing::Missed, "{count:?}");
        }
        assert_eq!(cursor("a", 5).hear("b", at(9), Some(8)), Hearing::AnotherLife);
    }

    #[test]
    fn in_another_life_it_goes_back_to_where_that_began() {
        let at = StreamId { ms: 3, sequence: 0 };
        assert_eq!(cursor("a", 5).in_life("a", at), born("a", 5, 3));
        assert_eq!(cursor("a", 5).in_life("b", at), born("b", 3, 3));
        assert_eq!(cursor("a", 2).in_life("b", at), born("b", 2, 3));
    }
}
