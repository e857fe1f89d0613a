//! Servers of Redis for tests: one, a cluster of them, and sentinels that watch them.

pub mod cluster;
pub mod sentinels;
pub mod server;
