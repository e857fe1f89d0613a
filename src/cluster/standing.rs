//! Whether this node can serve: its Redis answers, it hears its region, and its links are not all cut.

use super::Cluster;
use crate::config::Isolated;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};

/// All has to be well for so long before a node that was left takes sessions again, so that nothing flaps.
const RETURN_AFTER: Duration = Duration::from_secs(3);
/// Whether Redis answers at all is known by then.
const TRIED_WITHIN: Duration = Duration::from_millis(1_500);
/// How often it is looked, at most and at least.
const LOOK_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(20)..=Duration::from_millis(200);

/// Whether a node can serve as it should, and why not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    #[default]
    Well,
    /// Its Redis does not answer.
    BrokerAway,
    /// Its Redis answers, and yet nothing comes of what others publish: other nodes may fare better.
    Deaf,
    /// The links to all other regions are cut, and `failover.isolated` says to leave then.
    Isolated,
    /// All is well again, but not for long.
    Returning,
}

impl Standing {
    /// The word for it in `/readyz`; none while all is well.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Well => None,
            Self::BrokerAway => Some("broker_away"),
            Self::Deaf => Some("deaf"),
            Self::Isolated => Some("isolated"),
            Self::Returning => Some("returning"),
        }
    }

    /// Whether sessions can stay.
    pub fn is_well(self) -> bool {
        matches!(self, Self::Well | Self::Returning)
    }
}

/// Watches whether the node can serve and tells who is concerned, for its life.
pub async fn watch(cluster: Arc<Cluster>) {
    let away_after = cluster.options.failover.broker_away;
    let mut interval =
        tokio::time::interval((away_after / 8).clamp(*LOOK_INTERVAL.start(), *LOOK_INTERVAL.end()));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut well_since = None;
    loop {
        interval.tick().await;
        let before = cluster.standing();
        let after = match trouble(&cluster, before, away_after) {
            Some(trouble) => {
                well_since = None;
                trouble
            }
            None if before == Standing::Well => Standing::Well,
            None => {
                let since = *well_since.get_or_insert_with(Instant::now);
                if since.elapsed() < RETURN_AFTER { Standing::Returning } else { Standing::Well }
            }
        };
        if before != after {
            tell(&cluster, after);
        }
    }
}

/// What keeps the node from serving. A node that is away stays so until Redis answers in a fraction of that time.
fn trouble(cluster: &Cluster, before: Standing, away_after: Duration) -> Option<Standing> {
    let (silent_for, deaf_for) = (cluster.broker.away_for(), cluster.broker.deaf_for());
    let is_back = cluster.broker.is_available() && silent_for.max(deaf_for) < away_after / 2;
    if silent_for >= away_after {
        return Some(Standing::BrokerAway);
    }
    if deaf_for >= away_after + TRIED_WITHIN && cluster.broker.is_available() {
        return Some(Standing::Deaf);
    }
    if before != Standing::Well && !is_back {
        return Some(if before == Standing::Deaf { before } else { Standing::BrokerAway });
    }
    let leaves = cluster.options.failover.isolated == Isolated::Leave && cluster.outlook.is_isolated();
    leaves.then_some(Standing::Isolated)
}

fn tell(cluster: &Cluster, standing: Standing) {
    cluster.standing.send_replace(standing);
    cluster.metrics.away.set(i64::from(standing != Standing::Well));
    cluster.directory.refresh();
    match standing {
        Standing::Well => tracing::info!("this node serves again"),
        Standing::Returning => tracing::info!("all is well again; sessions are taken if it stays so"),
        Standing::BrokerAway | Standing::Deaf | Standing::Isolated => {
            let (reason, sessions) = (standing.word(), cluster.sessions.len());
            tracing::warn!(reason, sessions, "this node cannot serve");
        }
    }
}
