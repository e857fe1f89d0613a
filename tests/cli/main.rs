//! What a person at the command line can rely on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod certificates;
mod configuration;
mod doctor;
mod publishing;
mod reaching;
mod serving;
mod subscribing;
mod tokens;
mod world;
