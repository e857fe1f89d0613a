//! Regions, each with its own Redis, and what they promise together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod access;
#[path = "../redis/before.rs"]
mod before;
mod bridge;
mod clocks;
#[path = "../redis/cluster.rs"]
mod cluster;
mod clusters;
#[allow(dead_code, reason = "more scenarios use the rest")]
mod deployment;
mod disturbances;
#[path = "../redis/environment.rs"]
mod environment;
mod epochs;
mod filling;
mod hanging;
mod home;
#[path = "../api/json_socket.rs"]
mod json_socket;
mod leases;
mod links;
mod metrics;
mod ownership;
mod paging;
#[path = "../redis/patience.rs"]
mod patience;
mod process;
mod promises;
#[allow(dead_code, reason = "more scenarios use the rest")]
mod relay;
#[path = "../redis/sentinels.rs"]
mod sentinels;
#[path = "../redis/server.rs"]
mod server;
mod storms;
#[allow(dead_code, reason = "this test binary uses a part")]
#[path = "../redis/world.rs"]
mod world;
