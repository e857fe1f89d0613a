//! Chance: for ids that nobody is to foresee, and for what is not to happen to everybody at once.

use parking_lot::Mutex;
use rand::{
    Rng, RngExt, TryRng,
    distr::{
        Distribution, StandardUniform,
        uniform::{SampleRange, SampleUniform},
    },
    rngs::ThreadRng,
};
use std::{convert::Infallible, fmt, sync::Arc};

/// Draws lots. Cheap to clone; that of the machine costs what the thread's generator does.
#[derive(Clone)]
pub struct Chance(Option<Arc<Mutex<dyn Rng + Send>>>);

/// What is drawn from, for a moment.
enum Source<'a> {
    /// Seeded by the system, and not to be foreseen.
    Machine(ThreadRng),
    Given(&'a Mutex<dyn Rng + Send>),
}

impl Chance {
    /// That of the machine.
    pub fn machine() -> Self {
        Self(None)
    }

    /// One that draws from a generator, in the order in which it is asked.
    pub fn new(generator: impl Rng + Send + 'static) -> Self {
        Self(Some(Arc::new(Mutex::new(generator))))
    }

    /// As a generator, for what needs one.
    #[allow(clippy::disallowed_methods, reason = "this is where the machine is asked")]
    pub fn generator(&self) -> impl Rng {
        match &self.0 {
            None => Source::Machine(rand::rng()),
            Some(given) => Source::Given(given),
        }
    }

    /// Anything that the type holds; of floats, from 0 up to 1.
    pub fn any<T>(&self) -> T
    where
        StandardUniform: Distribution<T>,
    {
        self.generator().random()
    }

    /// Anything within a range that is not empty.
    pub fn within<T: SampleUniform>(&self, range: impl SampleRange<T>) -> T {
        self.generator().random_range(range)
    }
}

impl TryRng for Source<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        match self {
            Self::Machine(machine) => machine.try_next_u32(),
            Self::Given(given) => given.lock().try_next_u32(),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        match self {
            Self::Machine(machine) => machine.try_next_u64(),
            Self::Given(given) => given.lock().try_next_u64(),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match self {
            Self::Machine(machine) => machine.try_fill_bytes(bytes),
            Self::Given(given) => given.lock().try_fill_bytes(bytes),
        }
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Chance")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    #[test]
    fn the_same_seed_draws_the_same_whoever_asks() {
        let draw = |seed| {
            let chance = Chance::new(SmallRng::seed_from_u64(seed));
            let (one, other) = (chance.clone(), chance);
            (one.any::<u64>(), other.any::<u64>(), one.within(0..1_000_000))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1).0, draw(1).1);
    }
}
