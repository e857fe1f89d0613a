//! What everything above a broker relies on; each broker passes the same tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod forgetting;
mod history;
mod publishing;
mod reading;
mod world;
