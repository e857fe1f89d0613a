//! Who is there, when nodes share a Redis: what all nodes say alike, and what stands when a node or Redis fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod crowd;
mod cut_off;
mod faults;
mod large;
mod lists;
mod lost_nodes;
mod nodes;
mod parts;
mod regions;
mod storms;
mod world;
