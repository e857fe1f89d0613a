//! Sessions leave a node that cannot serve, and stay once it can.

use super::{Order, REVIEW, carrying::Carrying, destinations::Destinations};
use crate::cluster::Cluster;
use std::{sync::Arc, time::Duration};

/// The sessions of a node that is left are to have moved within this time; each is told its own moment in the first
/// half.
const WITHIN: Duration = Duration::from_secs(2);

/// Moves sessions off whenever the node cannot serve, for its life.
pub async fn run(cluster: Arc<Cluster>) {
    let mut standing = cluster.standing.subscribe();
    loop {
        // The sender is the cluster's own: it is not gone.
        if standing.wait_for(|standing| !standing.is_well()).await.is_err() {
            return;
        }
        let all_is_well = async { drop(standing.wait_for(|standing| standing.is_well()).await) };
        tokio::pin!(all_is_well);
        // A new reason sends nobody elsewhere who is on the way; who is still here when all is well stays.
        tokio::select! {
            biased;
            () = leave(&cluster) => all_is_well.await,
            () = &mut all_is_well => {}
        }
    }
}

/// Moves all sessions off a node that cannot serve, each told a moment within half of [`WITHIN`], and told anew where
/// destinations change. Ends when all have moved; where there is no other place, they stay, until there is one.
async fn leave(cluster: &Arc<Cluster>) {
    while Destinations::new(cluster, None).is_empty() {
        tokio::time::sleep(REVIEW).await;
    }
    cluster.metrics.failovers.inc();
    let mut carrying = Carrying::new(cluster.clone(), Order::default(), WITHIN);
    carrying.may_stay = true;
    carrying.begin(Duration::ZERO, cluster.sessions.all()).await;
}
