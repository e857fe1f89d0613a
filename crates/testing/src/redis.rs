//! Servers of Redis for tests: one, a cluster of them, and sentinels that watch them.

pub mod cluster;
pub(crate) mod sentinels;
pub(crate) mod server;
