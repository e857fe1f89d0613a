//! Moments by the clock of whoever drives a session.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A moment: how long after the clock's beginning it is. The clock is never set back, and goes on while the machine sleeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// The clock's beginning.
    pub const BEGIN: Self = Self(Duration::ZERO);

    pub const fn from_begin(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long it has been since `earlier`; nothing where that is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// So late that nobody lives to see it, where it would be later still.
impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// The clock's beginning, where it would be before that.
impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}
