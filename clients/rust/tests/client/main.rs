//! What an application can rely on, against a scripted node over both transports.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod node;

mod asking;
mod connecting;
mod delivery;
mod failover;
mod limits;
mod moving;
mod publishing;
mod subscribing;
mod tokens;
mod transport;
