//! The Skywave node as a library: everything but the command line.
pub mod auth;
pub mod certificate;
pub mod config;
pub mod broadcast;
pub mod broker;
pub mod hub;
pub mod limits;
pub mod presence;
pub mod metrics;
pub mod node;
pub mod session;
pub mod transport;
