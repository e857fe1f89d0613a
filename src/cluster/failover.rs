//! Leaving a region that cannot serve: its Redis is away, or its links to all others are cut; or a node that cannot.

use super::{Cluster, moving};
use crate::config::Isolated;
use parking_lot::Mutex;
use skywave_protocol::{frame::Region, position::Origin};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

/// All has to be well for so long before a node that was left takes sessions again, so that nothing flaps.
const RETURN_AFTER: Duration = Duration::from_secs(3);
/// The sessions of a node that is left are to have moved within this time; each is told its own moment in the first half.
const LEFT_WITHIN: Duration = Duration::from_secs(2);
/// Whether Redis answers at all is known by then.
const TRIED_WITHIN: Duration = Duration::from_millis(1_500);
/// How often it is looked, at most and at least.
const LOOK_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(20)..=Duration::from_millis(200);

/// Why a node cannot serve as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// It can.
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

    fn from_number(number: u8) -> Self {
        let all = [Self::Well, Self::BrokerAway, Self::Deaf, Self::Isolated, Self::Returning];
        all.into_iter().find(|standing| *standing as u8 == number).unwrap_or(Self::Well)
    }
}

/// What the links tell of the other regions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The links to all of them are suspected.
    pub isolated: bool,
    /// Those with a link that is up and a round-trip time that is known, the nearest first.
    pub near: Vec<Origin>,
}

/// Whether a node can serve, and where its sessions go when it cannot.
pub struct Failover {
    standing: AtomicU8,
    outlook: Mutex<Outlook>,
}

impl Default for Failover {
    fn default() -> Self {
        Self { standing: AtomicU8::new(Standing::Well as u8), outlook: Mutex::default() }
    }
}

impl Failover {
    pub fn standing(&self) -> Standing {
        Standing::from_number(self.standing.load(Ordering::Acquire))
    }

    /// Whether the node cannot serve now.
    pub fn is_away(&self) -> bool {
        self.standing() != Standing::Well
    }

    fn set(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Release);
    }

    /// Takes what the links tell. Which regions were near is remembered while none is known to be.
    pub fn look_out(&self, outlook: Outlook) {
        let mut known = self.outlook.lock();
        known.isolated = outlook.isolated;
        if !outlook.near.is_empty() {
            known.near = outlook.near;
        }
    }

    /// Other regions, those first whose distance is known, the nearest of them first; the others as they stand.
    pub fn nearest_first(&self, regions: &[Region]) -> Vec<Region> {
        let near = &self.outlook.lock().near;
        let distance =
            |region: &Region| near.iter().position(|name| **name == *region.name).unwrap_or(usize::MAX);
        let mut regions = regions.to_vec();
        regions.sort_by_key(distance);
        regions
    }

    /// The addresses of other regions to send sessions to: the nearest alone if it is known and within reach; else all
    /// within reach; else all.
    pub fn regions(&self, cluster: &Cluster) -> Vec<Arc<str>> {
        let remotes = cluster.sharing.remotes().iter();
        let reachable = remotes.filter(|remote| remote.redis.commands.is_available());
        let reachable: Vec<_> = reachable.map(|remote| (remote.name.clone(), remote.url.clone())).collect();
        let all = cluster.regions.iter().map(|region| region.url.clone());
        choose(&self.outlook.lock().near, reachable).unwrap_or_else(|| all.collect())
    }
}

/// The addresses of those that are within reach, only the first of `near` if it is one of them; none if none is.
fn choose(near: &[Origin], reachable: Vec<(Origin, Arc<str>)>) -> Option<Vec<Arc<str>>> {
    let url =
        |name: &Origin| reachable.iter().find(|(reached, _)| reached == name).map(|(_, url)| url.clone());
    if let Some(nearest) = near.iter().find_map(url) {
        return Some(vec![nearest]);
    }
    let urls: Vec<_> = reachable.into_iter().map(|(_, url)| url).collect();
    (!urls.is_empty()).then_some(urls)
}

/// Keeps the outlook as the links tell it, for the node's life.
pub async fn watch_links(cluster: Arc<Cluster>) {
    let Some(links) = cluster.sharing.links() else { return };
    let mut states = links.states();
    loop {
        let outlook = {
            let states = states.borrow_and_update();
            Outlook { isolated: states.is_isolated(), near: states.nearest().into_iter().cloned().collect() }
        };
        cluster.failover.look_out(outlook);
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// Watches whether the node can serve, for its life.
pub async fn run(cluster: Arc<Cluster>) {
    let away_after = cluster.options.failover.broker_away;
    let mut interval =
        tokio::time::interval((away_after / 8).clamp(*LOOK_INTERVAL.start(), *LOOK_INTERVAL.end()));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut well_since = None;
    // What moves the sessions off while the node cannot serve.
    let mut leaving = JoinSet::new();
    loop {
        interval.tick().await;
        let before = cluster.failover.standing();
        let trouble = trouble(&cluster, before, away_after);
        let after = match trouble {
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
            turn(&cluster, before, after, &mut leaving);
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
    let leaves =
        cluster.options.failover.isolated == Isolated::Leave && cluster.failover.outlook.lock().isolated;
    leaves.then_some(Standing::Isolated)
}

fn turn(cluster: &Arc<Cluster>, before: Standing, after: Standing, leaving: &mut JoinSet<()>) {
    cluster.failover.set(after);
    cluster.metrics.away.set(i64::from(after != Standing::Well));
    cluster.directory.refresh();
    match after {
        Standing::Well => tracing::info!("this node serves again"),
        Standing::Returning => tracing::info!("all is well again; sessions are taken if it stays so"),
        Standing::BrokerAway | Standing::Deaf | Standing::Isolated => {
            tracing::warn!(
                reason = after.word(),
                sessions = cluster.sessions.len(),
                "this node cannot serve"
            );
        }
    }
    let is_well = |standing| matches!(standing, Standing::Well | Standing::Returning);
    match (is_well(before), is_well(after)) {
        // A new reason sends nobody elsewhere who is on the way.
        (true, false) => drop(leaving.spawn(moving::leave(cluster.clone(), LEFT_WITHIN))),
        // Who is still here stays.
        (false, true) => *leaving = JoinSet::new(),
        (true, true) | (false, false) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::Text;

    fn name(name: &str) -> Origin {
        Text::new(name).unwrap()
    }

    fn chosen(near: &[&str], reachable: &[&str]) -> Option<Vec<String>> {
        let near: Vec<_> = near.iter().map(|region| name(region)).collect();
        let reachable = reachable.iter().map(|region| (name(region), Arc::from(*region))).collect();
        choose(&near, reachable).map(|urls| urls.iter().map(|url| (**url).to_owned()).collect())
    }

    #[test]
    fn sessions_go_to_the_nearest_region_within_reach() {
        assert_eq!(chosen(&["us", "ap"], &["ap", "us"]), Some(vec!["us".to_owned()]));
        assert_eq!(chosen(&["us", "ap"], &["ap"]), Some(vec!["ap".to_owned()]));
    }

    #[test]
    fn where_distances_are_not_known_all_within_reach_have_their_turn() {
        assert_eq!(chosen(&[], &["ap", "us"]), Some(vec!["ap".to_owned(), "us".to_owned()]));
        assert_eq!(chosen(&["sa"], &["ap"]), Some(vec!["ap".to_owned()]));
        assert_eq!(chosen(&["us"], &[]), None);
    }

    #[test]
    fn clients_are_told_the_nearest_regions_first() {
        let failover = Failover::default();
        let region = |name: &str| Region { name: Text::new(name).unwrap(), url: Arc::from(name) };
        let all = ["ap", "sa", "us"].map(region);
        let told = || failover.nearest_first(&all).iter().map(|one| one.name.to_string()).collect::<Vec<_>>();
        assert_eq!(told(), ["ap", "sa", "us"]);
        failover.look_out(Outlook { isolated: false, near: vec![name("us"), name("ap")] });
        assert_eq!(told(), ["us", "ap", "sa"]);
    }

    #[test]
    fn what_was_near_is_remembered_while_nothing_is_known() {
        let failover = Failover::default();
        failover.look_out(Outlook { isolated: false, near: vec![name("us")] });
        failover.look_out(Outlook { isolated: true, near: Vec::new() });
        assert_eq!(*failover.outlook.lock(), Outlook { isolated: true, near: vec![name("us")] });
    }
}
