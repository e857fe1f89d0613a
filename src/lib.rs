//! The Skywave node as a library: everything but the command line.

#![warn(unreachable_pub)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod api;
pub mod auth;
pub mod cause;
pub mod certificate;
pub mod cluster;
pub mod config;
mod demo;
pub mod limits;
pub mod metrics;
pub mod node;
mod refusals;
mod registry;
pub mod scripts;
pub mod server;
pub mod session;
pub mod transport;

pub use skywave_channels::{broadcast, broker, claim, hub, namespace, presence, rights};
pub use skywave_host as host;
pub use skywave_redis as redis;
pub use skywave_region as region;
