//! `[failover]`: when a node or a region is left.

use super::{
    duration::{MILLISECOND, MINUTE, SECOND},
    section::Section,
};
use std::time::Duration;

/// What a region does when its links to all others are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolated {
    /// Go on; the logs merge when the links heal.
    Serve,
    /// Send its sessions to another region.
    Leave,
}

/// `[failover]`: when a node is left.
#[derive(Clone, Debug)]
pub struct FailoverConfig {
    /// `broker_away`: a node whose Redis is away for so long sends its sessions elsewhere; 100ms … 10m. Default: 3s.
    pub broker_away: Duration,
    /// `link_lag`: a link that lags further is marked and counted; 10ms … 10m. Default: 1s.
    pub link_lag: Duration,
    /// `isolated`: `serve` or `leave`. Default: `serve`.
    pub isolated: Isolated,
}

impl FailoverConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let choices = [("serve", Isolated::Serve), ("leave", Isolated::Leave)];
        Self {
            broker_away: section.duration("broker_away", 3 * SECOND, 100 * MILLISECOND..=10 * MINUTE),
            link_lag: section.duration("link_lag", SECOND, 10 * MILLISECOND..=10 * MINUTE),
            isolated: section.choice("isolated", Isolated::Serve, &choices),
        }
    }
}
