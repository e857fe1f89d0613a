//! What a node has of the machine it runs on: the wall clock, chance, and connections to others. It is handed in, so that
//! many nodes can run in one process, in a time of their own, and the same way again.
//!
//! How much time passes is not part of it: tokio's clock says so, and whoever runs nodes can pause that of their runtime.

#![warn(unreachable_pub)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod chance;
mod network;
mod wall_clock;

pub use chance::Chance;
pub use network::{Connecting, Network, Sockets, Stream};
pub use wall_clock::{WallClock, milliseconds};

use std::sync::Arc;

/// A machine, as the nodes on it see it.
#[derive(Clone, Debug)]
pub struct Host {
    pub clock: WallClock,
    pub chance: Chance,
    pub network: Arc<dyn Network>,
}

impl Host {
    /// The one on which this process runs.
    #[allow(clippy::disallowed_methods, reason = "this is where the machine is asked")]
    pub fn machine() -> Self {
        Self { clock: WallClock::machine(), chance: Chance::machine(), network: Arc::new(Sockets) }
    }
}
