//! What an operator can rely on when configuring a node.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod defaults;
mod environment;
mod example;
mod exposure;
mod loading;
mod mistakes;
mod regions;
mod secrets;
