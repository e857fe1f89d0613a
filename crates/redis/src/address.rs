//! Where a region's Redis is, as its nodes are told.

use crate::{script::Scripts, secret::Secret};
use skywave_protocol::position::Origin;
use std::path::PathBuf;

/// Where a region's Redis is, and how its nodes use it.
#[derive(Debug, Clone)]
pub struct Address {
    pub url: Secret,
    /// A PEM file with the authorities that vouch for it over TLS; none: those of the system.
    pub ca: Option<PathBuf>,
    /// Of every key.
    pub prefix: String,
    /// Of the region's log; the same on all nodes.
    pub partitions: u16,
    /// Whose nodes share it.
    pub region: Origin,
    /// What they run inside it.
    pub scripts: Scripts,
}
