//! The Skywave node as a library: everything but the command line.

pub mod api;
pub mod auth;
pub mod broadcast;
pub mod broker;
pub mod cause;
pub mod certificate;
pub mod claim;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod hub;
pub mod limits;
pub mod metrics;
pub mod namespace;
pub mod node;
pub mod presence;
pub mod region;
pub mod registry;
pub mod rights;
pub mod scripts;
pub mod server;
pub mod session;
pub mod transport;

pub use skywave_redis as redis;
