//! Load generator for a Skywave node.
fn main() {}
