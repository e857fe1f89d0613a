//! What is done once per publication, frame or beat: cases that are measured in time (`benches/time.rs`) and in instructions
//! (`main.rs`).

#![warn(unreachable_pub)]

mod codec;
mod heartbeat;
mod hub;
mod publications;

/// So many rounds of a case. What they need was made before.
pub type Rounds = Box<dyn FnMut(usize)>;

/// Something whose cost matters, because it is done so often.
pub struct Case {
    pub name: &'static str,
    begin: Box<dyn Fn(usize) -> Rounds>,
}

impl Case {
    fn new(name: &'static str, begin: impl Fn(usize) -> Rounds + 'static) -> Self {
        Self { name, begin: Box::new(begin) }
    }

    /// Makes what at most so many rounds need.
    pub fn begin(&self, most: usize) -> Rounds {
        (self.begin)(most)
    }
}

/// All of them.
pub fn cases() -> Vec<Case> {
    [codec::cases(), hub::cases(), heartbeat::cases()].into_iter().flatten().collect()
}

/// Rounds that use up an input each.
fn each<I: 'static>(inputs: impl Iterator<Item = I>, mut round: impl FnMut(I) + 'static) -> Rounds {
    let mut inputs = inputs.collect::<Vec<_>>().into_iter();
    Box::new(move |rounds| inputs.by_ref().take(rounds).for_each(&mut round))
}

/// Rounds that need nothing but what they have.
fn again(mut round: impl FnMut() + 'static) -> Rounds {
    Box::new(move |rounds| (0..rounds).for_each(|_| round()))
}
