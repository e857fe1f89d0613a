//! `[drain]`: how the node leaves.

use super::{duration::HOUR, section::Section};
use std::time::Duration;

/// `[drain]`: how the node leaves.
#[derive(Clone, Debug)]
pub struct DrainConfig {
    /// `deadline`: how long sessions have to move elsewhere; 0s … 1h. Default: 30s, with `--dev` 1s: there is nowhere
    /// to move to.
    pub deadline: Duration,
    /// `rebalance`: whether a node with many more sessions than its peers (a fifth, and 50) sheds the surplus to those
    /// that have another `node.url`. Default: `true`.
    pub rebalance: bool,
    /// `rebalance_percent_per_second`: how many of its sessions it sheds a second; 1 … 100. Default: 1.
    pub rebalance_percent_per_second: u8,
}

impl DrainConfig {
    pub(super) fn read(section: &mut Section<'_>, dev: bool) -> Self {
        let default = Duration::from_secs(if dev { 1 } else { 30 });
        Self {
            deadline: section.duration("deadline", default, Duration::ZERO..=HOUR),
            rebalance: section.boolean("rebalance").unwrap_or(true),
            rebalance_percent_per_second: section.integer("rebalance_percent_per_second", 1, 1..=100),
        }
    }
}
