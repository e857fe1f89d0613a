//! Nodes that share a Redis: what they promise together, and what they promise when Redis fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod clocks;
mod epochs;
mod faults;
mod masters;
mod network;
mod nodes;
mod reading;
mod replication;
mod sentinel;
mod setup;
mod sharing;
mod storms;
mod tls;
mod upgrades;
