//! Nodes of a region that know each other: who is there, whose session it is, and where sessions go when they leave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod directory;
mod failover;
mod fencing;
#[path = "../api/json_socket.rs"]
mod json_socket;
mod moving;
#[path = "../redis/patience.rs"]
mod patience;
mod process;
mod questions;
mod renewal;
#[path = "../redis/server.rs"]
mod server;
mod session;
#[path = "../api/token.rs"]
mod token;
mod world;
