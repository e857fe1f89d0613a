//! What the links tell of the other regions: which are near, and whether any is left.

use super::Cluster;
use crate::region::link::LinkStates;
use parking_lot::Mutex;
use skywave_protocol::{frame::Region, position::Origin};
use std::sync::Arc;
use tokio::sync::watch;

/// What the links tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The links to all other regions are suspected.
    pub isolated: bool,
    /// Those with a link that is up and a round-trip time that is known, the nearest first.
    pub near: Vec<Origin>,
}

/// The other regions, as they were seen last.
#[derive(Default)]
pub struct Outlook(Mutex<View>);

impl Outlook {
    /// Whether none is left.
    pub fn is_isolated(&self) -> bool {
        self.0.lock().isolated
    }

    /// Takes what the links tell. Which regions were near is remembered while none is known to be.
    pub fn see(&self, view: View) {
        let mut known = self.0.lock();
        known.isolated = view.isolated;
        if !view.near.is_empty() {
            known.near = view.near;
        }
    }

    /// Other regions, those first whose distance is known, the nearest of them first; the others as they stand.
    pub(crate) fn nearest_first(&self, regions: &[Region]) -> Vec<Region> {
        let near = &self.0.lock().near;
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
        choose(&self.0.lock().near, reachable).unwrap_or_else(|| all.collect())
    }

    /// Keeps it as the links tell it, for the node's life.
    pub async fn watch(cluster: Arc<Cluster>, mut states: watch::Receiver<LinkStates>) {
        loop {
            let view = {
                let states = states.borrow_and_update();
                View { isolated: states.is_isolated(), near: states.nearest().into_iter().cloned().collect() }
            };
            cluster.outlook.see(view);
            if states.changed().await.is_err() {
                return;
            }
        }
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
        let outlook = Outlook::default();
        let region = |name: &str| Region { name: Text::new(name).unwrap(), url: Arc::from(name) };
        let all = ["ap", "sa", "us"].map(region);
        let told = || outlook.nearest_first(&all).iter().map(|one| one.name.to_string()).collect::<Vec<_>>();
        assert_eq!(told(), ["ap", "sa", "us"]);
        outlook.see(View { isolated: false, near: vec![name("us"), name("ap")] });
        assert_eq!(told(), ["us", "ap", "sa"]);
    }

    #[test]
    fn what_was_near_is_remembered_while_nothing_is_known() {
        let outlook = Outlook::default();
        outlook.see(View { isolated: false, near: vec![name("us")] });
        outlook.see(View { isolated: true, near: Vec::new() });
        assert_eq!(*outlook.0.lock(), View { isolated: true, near: vec![name("us")] });
    }
}
