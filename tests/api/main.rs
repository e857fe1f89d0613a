//! The HTTP API seen from outside: a real node, an HTTP client, and sessions over WebSocket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod bodies;
mod commands;
mod connections;
mod description;
mod operation;
mod world;
