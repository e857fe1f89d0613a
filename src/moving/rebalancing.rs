//! A node with many more sessions than its peers sheds the surplus, little by little.

use super::{TURN, destinations::Destinations};
use crate::{node::Node, region::balance};
use std::{sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;

/// How often a node compares itself with its peers: as often as they tell how busy they are.
const INTERVAL: Duration = Duration::from_secs(2);
/// A session that was asked so lately and is still here is about to go.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// Sheds surplus sessions, for the node's life.
pub async fn run(node: Arc<Node>) {
    if !node.config.drain.rebalance {
        return;
    }
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shedding = false;
    loop {
        interval.tick().await;
        let surplus = surplus(&node, shedding);
        if shedding != (surplus > 0) {
            shedding = surplus > 0;
            let word = if shedding { "begins to shed sessions" } else { "sheds no more sessions" };
            tracing::info!(surplus, sessions = node.sessions.len(), "this node {word}");
        }
        shed(&node, surplus);
    }
}

/// How many sessions this node has beyond an even share.
fn surplus(node: &Node, shedding: bool) -> usize {
    // Who drains, or has no Redis, does not know how busy the others are, or leaves anyhow.
    if node.is_draining() || node.failover.is_away() {
        return 0;
    }
    let peers = node.directory.peers();
    let here = node.config.node.url.as_deref();
    let open = peers.iter().filter(|peer| peer.open_url(here).is_some());
    let loads: Vec<_> = open.map(|peer| peer.record.sessions).collect();
    if loads.is_empty() {
        return 0;
    }
    let load = node.sessions.len().saturating_sub(node.moving.leaving(UNDER_WAY));
    balance::surplus(load, balance::mean(loads.into_iter().chain([load])), shedding)
}

/// Asks the share of the surplus to move that is due now.
fn shed(node: &Node, surplus: usize) {
    if surplus == 0 {
        return;
    }
    let sessions = node.sessions.all();
    let share = f64::from(node.config.drain.rebalance_percent_per_second) / 100.0 * INTERVAL.as_secs_f64();
    let due = ((sessions.len() as f64 * share) as usize).max(1).min(surplus);
    let mut destinations = Destinations::new(node, None);
    for (session, attached) in node.moving.fresh(sessions).into_iter().take(due) {
        node.metrics.sessions_shed.inc();
        node.moving.ask(&attached, TURN, destinations.next(&session, &attached));
    }
}
