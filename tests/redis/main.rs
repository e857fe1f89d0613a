//! Nodes that share a Redis: what they promise together, and what they promise when Redis fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod before;
mod clocks;
mod cluster;
mod environment;
mod epochs;
mod faults;
mod masters;
mod nodes;
mod patience;
mod reading;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../network/relay.rs"]
mod relay;
mod replication;
mod sentinel;
mod sentinels;
mod server;
mod setup;
mod sharing;
mod storms;
mod tls;
mod upgrades;
mod world;
