//! What the environment says of a run, such as its seed.

/// The number that a variable holds, if it is set.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("not a number"))
}
