//! The Skywave node as a library: everything but the command line.

pub mod api;
pub mod auth;
pub mod cause;
pub mod certificate;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod region;
pub mod registry;
pub mod scripts;
pub mod server;
pub mod session;
pub mod transport;

pub use skywave_channels::{broadcast, claim, hub, namespace, rights};
pub use skywave_redis as redis;

/// What carries publications between nodes.
pub mod broker {
    pub mod redis;

    pub use skywave_channels::broker::*;
}

/// Who is there, on all nodes.
pub mod presence {
    pub mod redis;

    pub use self::redis::{lease, mirror};
    pub use skywave_channels::presence::*;
}
