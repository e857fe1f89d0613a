//! The Skywave node as a library: everything but the command line.
pub mod auth;
pub mod certificate;
pub mod config;
