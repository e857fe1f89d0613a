//! Test support, once for all tests: servers of Redis, relays, processes, ports and waiting; and, with the feature
//! `node`, nodes in this process.

#![warn(unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

pub mod clock;
pub mod environment;
mod json_socket;
pub mod machine;
#[cfg(feature = "node")]
pub mod node;
mod port;
pub mod process;
mod redis;
mod relay;
pub mod tls;
mod waiting;
pub mod webtransport;

pub use crate::redis::{
    cluster::{self, RedisCluster},
    sentinels::{Sentinel, Sentinels},
    server::{FREE_PORT, RedisServer},
};
pub use json_socket::JsonSocket;
pub use port::Port;
pub use process::Process;
pub use relay::{Relay, Weather};
pub use waiting::{PATIENCE, eventually, soon};
