//! Regions, each with its own Redis, and what they promise together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod leases;
#[path = "../redis/server.rs"]
mod server;
