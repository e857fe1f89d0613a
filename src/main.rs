//! The `skywave` binary.
fn main() {}
