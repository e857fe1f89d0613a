//! What a client has seen of a channel: origin → (epoch, offset).

use crate::text::Text;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// The most origins (regions) that a position may name.
pub const MAX_ORIGINS: usize = 64;

/// The name of a region in which publications are accepted; at most 32 bytes.
pub type Origin = Text<32>;
/// The name of one life of the offsets of (channel, origin); at most 32 bytes.
pub type Epoch = Text<32>;

/// The last publication seen of one origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    pub epoch: Epoch,
    pub offset: u64,
}

/// Origin → point. An absent origin means "from its beginning".
///
/// Kept as a short sorted list: there are as many origins as regions, and every subscription of
/// every session holds one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position(Vec<(Origin, Point)>);

/// What a publication is to somebody who stands at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The one that follows.
    Next,
    /// Seen before.
    Duplicate,
    /// Publications between the position and this one are missing.
    Gap,
    /// The first that is seen of another epoch: history was lost.
    NewEpoch,
}

impl Position {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn get(&self, origin: &str) -> Option<&Point> {
        self.find(origin).ok().map(|index| &self.0[index].1)
    }

    fn find(&self, origin: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| (**name).cmp(origin))
    }

    pub fn set(&mut self, origin: Origin, point: Point) {
        match self.find(&origin) {
            Ok(index) => self.0[index].1 = point,
            Err(index) => self.0.insert(index, (origin, point)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Origin, Point)> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Judges the publication (`origin`, `epoch`, `offset`) without moving. Offsets begin at 1.
    pub fn admit(&self, origin: &str, epoch: &str, offset: u64) -> Admission {
        let Some(seen) = self.get(origin) else {
            return if offset == 1 { Admission::Next } else { Admission::Gap };
        };
        if &*seen.epoch != epoch {
            return Admission::NewEpoch;
        }
        match offset.checked_sub(seen.offset) {
            None | Some(0) => Admission::Duplicate,
            Some(1) => Admission::Next,
            Some(_) => Admission::Gap,
        }
    }

    /// Moves to the given publication of `origin`. Allocates only when the origin or its epoch is new.
    pub fn advance(&mut self, origin: &Origin, epoch: &Epoch, offset: u64) {
        match self.find(origin) {
            Ok(index) => {
                let point = &mut self.0[index].1;
                if point.epoch != *epoch {
                    point.epoch = epoch.clone();
                }
                point.offset = offset;
            }
            Err(index) => {
                self.0.insert(index, (origin.clone(), Point { epoch: epoch.clone(), offset }));
            }
        }
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(origin, point)| (origin, point)))
    }
}

impl FromIterator<(Origin, Point)> for Position {
    fn from_iter<I: IntoIterator<Item = (Origin, Point)>>(points: I) -> Self {
        let mut position = Self::new();
        for (origin, point) in points {
            position.set(origin, point);
        }
        position
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Position;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of origins to their epoch and offset")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Position, A::Error> {
                let mut position = Position::new();
                while let Some((origin, point)) = map.next_entry()? {
                    position.set(origin, point);
                    if position.len() > MAX_ORIGINS {
                        return Err(de::Error::custom(format_args!("more than {MAX_ORIGINS} origins")));
                    }
                }
                Ok(position)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(offset: u64) -> Position {
        let point = Point { epoch: Epoch::new("e1").unwrap(), offset };
        [(Origin::new("eu").unwrap(), point)].into_iter().collect()
    }

    #[test]
    fn an_absent_origin_begins_at_one() {
        assert_eq!(Position::new().admit("us", "e1", 1), Admission::Next);
        assert_eq!(Position::new().admit("us", "e1", 2), Admission::Gap);
    }

    #[test]
    fn another_epoch_is_noticed_whatever_its_offset() {
        assert_eq!(at(5).admit("eu", "e2", 6), Admission::NewEpoch);
        assert_eq!(at(5).admit("eu", "e2", 1), Admission::NewEpoch);
    }

    proptest! {
        #[test]
        fn exactly_the_following_offset_is_next(seen in 0u64..u64::MAX, offset: u64) {
            let expected = if offset <= seen {
                Admission::Duplicate
            } else if offset == seen + 1 {
                Admission::Next
            } else {
                Admission::Gap
            };
            prop_assert_eq!(at(seen).admit("eu", "e1", offset), expected);
        }

        #[test]
        fn any_interleaving_with_repeats_delivers_each_once_in_order(
            arrivals in proptest::collection::vec(1u64..20, 0..200)
        ) {
            let (origin, epoch) = (Origin::new("eu").unwrap(), Epoch::new("e").unwrap());
            let mut position = Position::new();
            let mut delivered = Vec::new();
            for offset in arrivals {
                if position.admit(&origin, &epoch, offset) == Admission::Next {
                    position.advance(&origin, &epoch, offset);
                    delivered.push(offset);
                }
            }
            let expected: Vec<u64> = (1..=delivered.len() as u64).collect();
            prop_assert_eq!(delivered, expected);
        }
    }
}
