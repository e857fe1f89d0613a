//! How long to wait before the next attempt at something that fails for everybody at once.

use skywave_host::Chance;
use std::{ops::RangeInclusive, time::Duration};

/// Between attempts to connect anew to a Redis.
pub const RECONNECT_PAUSE: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(1);

/// Pauses that double within bounds, less up to a half at random: those who wait together do not come together.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
    chance: Chance,
}

impl Backoff {
    /// Begins with the shortest of `pauses`.
    pub fn new(pauses: RangeInclusive<Duration>, chance: &Chance) -> Self {
        Self { next: *pauses.start(), longest: *pauses.end(), chance: chance.clone() }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(self.chance.within(0.5..=1.0));
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_less_a_half_at_most() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50)..=ms(150), &Chance::machine());
        for most in [50, 100, 150, 150] {
            let pause = backoff.pause();
            assert!((ms(most) / 2..=ms(most)).contains(&pause), "{pause:?}");
        }
    }
}
