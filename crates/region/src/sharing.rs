//! What a node shares with others: nothing, or its region's Redis and the links.

use crate::{
    link::Links,
    regions::{Regions, Remote},
};
use skywave_redis::Redis;
use std::sync::Arc;

/// What a node shares with others.
#[derive(Clone)]
pub enum Sharing {
    /// Nothing: it has no Redis.
    Alone,
    /// Its region's Redis, and the links to the other regions, if there are any.
    WithRegion { regions: Arc<Regions>, links: Arc<Links> },
}

impl Sharing {
    /// The region's Redis; `None` where the node is alone.
    pub fn redis(&self) -> Option<&Redis> {
        match self {
            Self::Alone => None,
            Self::WithRegion { regions, .. } => Some(&regions.local),
        }
    }

    /// The other regions.
    pub fn remotes(&self) -> &[Remote] {
        match self {
            Self::Alone => &[],
            Self::WithRegion { regions, .. } => &regions.remotes,
        }
    }

    /// What is known of the links to them; `None` where the node is alone.
    pub fn links(&self) -> Option<&Arc<Links>> {
        match self {
            Self::Alone => None,
            Self::WithRegion { links, .. } => Some(links),
        }
    }
}
