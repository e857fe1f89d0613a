//! Regions, each with its own Redis, and what they promise together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod access;
mod bridge;
mod clocks;
mod clusters;
mod crossing;
#[allow(dead_code, reason = "more scenarios use the rest")]
mod deployment;
mod disturbances;
mod epochs;
mod filling;
mod forgetting;
mod hanging;
mod home;
mod leases;
mod links;
mod metrics;
mod ownership;
mod paging;
mod promises;
mod storms;
mod uncrossed;
