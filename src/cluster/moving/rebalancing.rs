//! A node with many more sessions than its peers sheds the surplus, little by little.

use super::{RECORDED, TURN, ask, destinations::Destinations, fresh, leaving};
use crate::cluster::{Cluster, balance};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};

/// How often a node compares itself with its peers: as often as they tell how busy they are.
const INTERVAL: Duration = Duration::from_secs(2);
/// A session that was asked so lately and is still here is about to go.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// Sheds surplus sessions, for the node's life.
pub(crate) async fn run(cluster: Arc<Cluster>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shedding = false;
    let mut sent = Sent::default();
    loop {
        interval.tick().await;
        let unrecorded = sent.lately();
        let surplus = surplus(&cluster, shedding, unrecorded);
        // While some count twice, an even share is not certain.
        let sheds = surplus > 0 || shedding && unrecorded > 0;
        if shedding != sheds {
            shedding = sheds;
            let word = if shedding { "begins to shed sessions" } else { "sheds no more sessions" };
            tracing::info!(surplus, sessions = cluster.sessions.len(), "this node {word}");
        }
        sent.add(shed(&cluster, surplus, unrecorded));
    }
}

/// How many were asked to move in the last rounds.
#[derive(Default)]
struct Sent(VecDeque<(Instant, usize)>);

impl Sent {
    fn add(&mut self, sessions: usize) {
        self.0.push_back((Instant::now(), sessions));
    }

    /// Those whom the other nodes' records may not show yet.
    fn lately(&mut self) -> usize {
        while self.0.pop_front_if(|(at, _)| at.elapsed() >= RECORDED).is_some() {}
        self.0.iter().map(|(_, sessions)| sessions).sum()
    }
}

/// How many sessions this node has beyond an even share, if `unrecorded` were sent to others whose records do not show
/// them yet.
fn surplus(cluster: &Cluster, shedding: bool, unrecorded: usize) -> usize {
    // Who drains, or has no Redis, does not know how busy the others are, or leaves anyhow.
    if cluster.is_draining() || cluster.is_away() {
        return 0;
    }
    let peers = cluster.directory.peers();
    let here = cluster.url.as_deref();
    let open = peers.iter().filter(|peer| peer.open_url(here).is_some());
    let loads: Vec<_> = open.map(|peer| peer.record.sessions).collect();
    if loads.is_empty() {
        return 0;
    }
    let load = cluster.sessions.len().saturating_sub(leaving(cluster, UNDER_WAY));
    balance::surplus(load, balance::mean(loads.into_iter().chain([load + unrecorded])), shedding)
}

/// Asks the share of the surplus to move that is due now, as far as there is room; answers how many.
fn shed(cluster: &Cluster, surplus: usize, unrecorded: usize) -> usize {
    if surplus == 0 {
        return 0;
    }
    let mut destinations = Destinations::new(cluster, None);
    let surplus = surplus.min(destinations.places().saturating_sub(unrecorded));
    let due = due(cluster.sessions.len(), cluster.options.drain.rebalance_percent_per_second.into(), surplus);
    let sessions: Vec<_> = fresh(cluster).into_iter().take(due).collect();
    let count = sessions.len();
    for (session, attached) in sessions {
        cluster.metrics.sessions_shed.inc();
        ask(cluster, &session, &attached, TURN, destinations.next(&session, &attached));
    }
    count
}

/// How many of the surplus are due in an interval, at this rate.
fn due(sessions: usize, percent_per_second: f64, surplus: usize) -> usize {
    let share = percent_per_second / 100.0 * INTERVAL.as_secs_f64();
    ((sessions as f64 * share) as usize).max(1).min(surplus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surplus_goes_by_the_part_of_all_sessions_that_may_go_in_a_second() {
        assert_eq!(due(10_000, 1.0, 5_000), 200, "a hundred a second");
        assert_eq!(due(10_000, 1.0, 150), 150, "never more than the surplus");
        assert_eq!(due(20, 1.0, 5), 1, "a small node sheds as well");
        assert_eq!(due(10_000, 1.0, 0), 0);
    }
}
