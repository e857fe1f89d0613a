//! The rights that a session can have on a channel, and sets of them.

use std::{fmt, ops::BitOr};

/// One thing that a session may do on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Right {
    /// Receive publications and events.
    Subscribe = 1,
    /// Send publications.
    Publish = 1 << 1,
    /// Send events.
    Emit = 1 << 2,
    /// See who is present.
    Presence = 1 << 3,
    /// Read the retained publications.
    History = 1 << 4,
}

impl Right {
    /// Every right, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Subscribe, Self::Publish, Self::Emit, Self::Presence, Self::History];

    /// The name used in the configuration, in tokens and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Emit => "emit",
            Self::Presence => "presence",
            Self::History => "history",
        }
    }

    /// The right of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.name() == name)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A set of rights.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// No right at all.
    pub const NONE: Self = Self(0);
    /// Every right.
    pub const ALL: Self = Self(0b1_1111);

    /// Whether `right` is in the set.
    pub const fn contains(self, right: Right) -> bool {
        self.0 & right as u8 != 0
    }

    /// This set without the rights of another.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set holds nothing.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rights of the set, in the order of [`Right::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.contains(*right))
    }
}

impl BitOr for Rights {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl From<Right> for Rights {
    fn from(right: Right) -> Self {
        Self(right as u8)
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        rights.into_iter().fold(Self::NONE, |set, right| set | right.into())
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter().map(Right::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_exactly_the_rights_put_into_it() {
        for right in Right::ALL {
            assert!(Rights::ALL.contains(right));
            assert!(!Rights::NONE.contains(right));
            let set = Rights::from(right);
            assert_eq!(set.iter().collect::<Vec<_>>(), [right]);
            assert_eq!(Right::from_name(right.name()), Some(right));
        }
        let all: Rights = Right::ALL.into_iter().collect();
        assert_eq!(all, Rights::ALL);
        assert_eq!(all.without(Right::Publish.into()).iter().count(), 4);
        assert_eq!(Right::from_name("administer"), None);
    }
}
