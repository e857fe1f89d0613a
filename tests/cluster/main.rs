//! Nodes of a region that know each other: who is there, whose session it is, and where sessions go when they leave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod directory;
mod failover;
mod fencing;
mod moving;
mod process;
mod questions;
mod renewal;
mod session;
mod world;
