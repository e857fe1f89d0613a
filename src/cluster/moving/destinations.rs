//! Where each session that leaves a node goes.

use crate::{
    cluster::{Cluster, balance, rendezvous, standing::Standing},
    registry::Attached,
};
use skywave_protocol::frame::SessionId;
use std::sync::Arc;

/// Chooses a destination for one session after the other, with those already sent in mind.
pub(crate) struct Destinations {
    choice: Choice,
}

enum Choice {
    /// This address for all of them.
    Given(Arc<str>),
    /// Other nodes of the region while they have places left, then those that share this node's address, as behind a
    /// balancer, then other regions.
    Known { peers: Vec<Peer>, even: usize, own: Option<Arc<str>>, regions: Turns },
}

/// Other regions: this address each in turn, the next one first.
struct Turns {
    urls: Vec<Arc<str>>,
    next: usize,
}

struct Peer {
    id: Arc<str>,
    url: Arc<str>,
    /// Its sessions, and those that were sent to it since.
    load: usize,
    limit: usize,
}

impl Peer {
    fn has_room(&self) -> bool {
        self.load < self.limit
    }
}

impl Destinations {
    /// Where sessions of this node can go: to `url` if it is given, else to other nodes of the region while they have
    /// room, else to another region.
    pub(crate) fn new(cluster: &Cluster, url: Option<Arc<str>>) -> Self {
        if let Some(url) = url {
            return Self { choice: Choice::Given(url) };
        }
        let here = cluster.url.as_deref();
        let all = cluster.directory.peers();
        let open = all.iter().filter_map(|peer| peer.open_url(here).map(|url| (peer, url.clone())));
        let peers: Vec<_> = open
            .map(|(peer, url)| Peer {
                id: peer.id.clone(),
                url,
                load: peer.record.sessions,
                limit: peer.record.limit,
            })
            .collect();
        // Where the region cannot serve its other nodes are of no use either.
        let is_left = cluster.is_away() && cluster.standing() != Standing::Deaf;
        let peers = if is_left { Vec::new() } else { peers };
        // A balancer brings nobody back to a node that takes no sessions.
        let is_passed_over = cluster.is_draining() && !is_left;
        let is_shared = all.iter().any(|peer| peer.is_open() && peer.record.url == cluster.url);
        let own = cluster.url.clone().filter(|_| is_passed_over && is_shared);
        Self { choice: Choice::of(peers, cluster.sessions.len(), own, Turns::of(cluster)) }
    }

    /// No other node or region is known.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.choice, Choice::Known { peers, own: None, regions, .. }
            if peers.is_empty() && regions.urls.is_empty())
    }

    /// Sessions come back to the address at which they are, which leads elsewhere then.
    pub(crate) fn is_own_address(&self) -> bool {
        matches!(&self.choice, Choice::Known { peers, own: Some(_), .. } if peers.is_empty())
    }

    /// No session more can be sent to any of them.
    pub(crate) fn is_full(&self) -> bool {
        matches!(&self.choice, Choice::Known { own: None, regions, .. }
            if self.places() == 0 && regions.urls.is_empty())
    }

    /// How many sessions the other nodes of the region have room for.
    pub(crate) fn places(&self) -> usize {
        let Choice::Known { peers, .. } = &self.choice else { return usize::MAX };
        peers.iter().fold(0, |sum, peer| sum.saturating_add(peer.limit.saturating_sub(peer.load)))
    }

    /// Where this session goes; `None` when no other node is known that has room.
    pub(crate) fn next(&mut self, session: &SessionId, attached: &Attached) -> Option<Arc<str>> {
        self.next_but(None, session, attached)
    }

    /// As [`Self::next`], not to the address `but` where there is another.
    pub(crate) fn next_but(
        &mut self,
        but: Option<&str>,
        session: &SessionId,
        attached: &Attached,
    ) -> Option<Arc<str>> {
        self.choice.next(but, session, attached.user.as_deref())
    }

    /// Counts a session that is on its way to this address; whether it can still go there.
    pub(crate) fn expects(&mut self, url: &str) -> bool {
        self.choice.expects(url)
    }
}

impl Turns {
    /// The other regions: the nearest of those within reach, or in turn where distances are not known.
    fn of(cluster: &Cluster) -> Self {
        let urls = cluster.outlook.regions(cluster);
        // Nodes that fail together do not all begin with the same one.
        let next = cluster.host.chance.within(0..urls.len().max(1));
        Self { urls, next }
    }

    fn next(&mut self) -> Option<Arc<str>> {
        let url = self.urls.get(self.next % self.urls.len().max(1))?;
        self.next += 1;
        Some(url.clone())
    }
}

impl Choice {
    fn of(peers: Vec<Peer>, leaving: usize, own: Option<Arc<str>>, regions: Turns) -> Self {
        let sum: usize = peers.iter().map(|peer| peer.load).sum();
        let mean = (sum + leaving) as f64 / peers.len().max(1) as f64;
        Self::Known { peers, even: balance::even(mean), own, regions }
    }

    fn expects(&mut self, url: &str) -> bool {
        match self {
            Self::Given(given) => **given == *url,
            Self::Known { peers, own, regions, .. } => {
                match peers.iter_mut().find(|peer| *peer.url == *url) {
                    Some(peer) => {
                        peer.load += 1;
                        peer.load <= peer.limit
                    }
                    None => own.iter().chain(&regions.urls).any(|place| **place == *url),
                }
            }
        }
    }

    fn next(&mut self, but: Option<&str>, session: &str, user: Option<&str>) -> Option<Arc<str>> {
        match self {
            Self::Given(url) => Some(url.clone()),
            Self::Known { peers, even, own, regions } => {
                let own = own.as_ref().filter(|own| but != Some(&***own) || regions.urls.is_empty());
                // Who knows no other place may as well try the same one again.
                let but = but.filter(|but| peers.iter().any(|peer| peer.has_room() && *peer.url != **but));
                let is_open = |peer: &&mut Peer| peer.has_room() && but != Some(&*peer.url);
                let suits = |peer: &&mut Peer| is_open(peer) && peer.load < *even;
                let suited = user.and_then(|user| {
                    let weight = |peer: &&mut Peer| rendezvous::weight(user, &peer.id);
                    peers.iter_mut().filter(suits).max_by_key(weight)
                });
                // Who has no name, or whose node is full, goes where there is most room.
                let chosen = match suited {
                    Some(peer) => peer,
                    None => {
                        let load = |peer: &&mut Peer| (peer.load, rendezvous::weight(session, &peer.id));
                        match peers.iter_mut().filter(is_open).min_by_key(load) {
                            Some(peer) => peer,
                            None => return own.cloned().or_else(|| regions.next()),
                        }
                    }
                };
                chosen.load += 1;
                Some(chosen.url.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn peer((number, (load, limit)): (usize, (usize, usize))) -> Peer {
        Peer { id: format!("n{number}").into(), url: format!("https://n{number}").into(), load, limit }
    }

    fn turns(urls: &[&str], next: usize) -> Turns {
        Turns { urls: urls.iter().map(|url| Arc::from(*url)).collect(), next }
    }

    fn choice(loads: &[usize], leaving: usize) -> Choice {
        let peers = loads.iter().map(|load| (*load, 100_000)).enumerate().map(peer).collect();
        Choice::of(peers, leaving, None, turns(&[], 0))
    }

    fn counts(urls: impl Iterator<Item = Option<Arc<str>>>) -> Vec<usize> {
        let mut counts: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for url in urls {
            *counts.entry(url.unwrap()).or_default() += 1;
        }
        counts.into_values().collect()
    }

    #[test]
    fn sessions_without_a_name_go_where_there_is_most_room() {
        let mut choice = choice(&[100, 0, 40], 120);
        let sent = counts((0..120).map(|session| choice.next(None, &session.to_string(), None)));
        assert_eq!(sent, [80, 40], "until those two are even, the full one gets none");
    }

    #[test]
    fn users_go_to_the_node_that_suits_them_but_never_all_to_one() {
        let mut choice = choice(&[10, 10, 10], 600);
        let sent: Vec<_> =
            (0..600).map(|user| choice.next(None, "", Some(&format!("user-{user}")))).collect();
        let suited = |user: usize| {
            let weight = |node: &usize| rendezvous::weight(&format!("user-{user}"), &format!("n{node}"));
            format!("https://n{}", (0..3).max_by_key(weight).unwrap())
        };
        let right = sent.iter().enumerate().filter(|(user, url)| **url.as_ref().unwrap() == *suited(*user));
        assert!(right.count() > 560);
        assert!(counts(sent.into_iter()).into_iter().all(|count| (150..=245).contains(&count)));
    }

    #[test]
    fn a_busy_node_is_passed_over() {
        let mut choice = choice(&[1_000, 10], 100);
        let sent = counts((0..100).map(|user| choice.next(None, "", Some(&format!("user-{user}")))));
        assert_eq!(sent, [100]);
    }

    #[test]
    fn no_node_gets_more_than_it_has_places_for_and_other_regions_get_the_rest() {
        let peers = [(0, 2), (60, 1_000)].into_iter().enumerate().map(peer).collect();
        let mut choice = Choice::of(peers, 60, None, turns(&[], 0));
        let sent = counts((0..60).map(|session| choice.next(None, &session.to_string(), None)));
        assert_eq!(sent, [2, 58]);
        for regions in [&["https://us"][..], &[]] {
            let mut choice = Choice::of(vec![peer((0, (8, 10)))], 9, None, turns(regions, 0));
            let sent: Vec<_> = (0..3).map(|_| choice.next(None, "", Some("alice"))).collect();
            let rest = regions.first().map(|url| Arc::from(*url));
            assert_eq!(sent, [Some("https://n0".into()), Some("https://n0".into()), rest]);
        }
    }

    #[test]
    fn who_was_refused_is_told_another_place_if_there_is_one() {
        let mut choice = choice(&[0, 500], 1);
        assert_eq!(choice.next(Some("https://n0"), "", None).as_deref(), Some("https://n1"));
        assert!(choice.expects("https://n0") && !choice.expects("https://gone"));
        let mut choice = self::choice(&[0], 1);
        assert_eq!(choice.next(Some("https://n0"), "", None).as_deref(), Some("https://n0"));
    }

    #[test]
    fn who_shares_an_address_with_others_is_told_it_first_and_then_another_region() {
        let own = || Some(Arc::from("https://own"));
        let mut choice = Choice::of(Vec::new(), 4, own(), turns(&["https://us"], 0));
        assert_eq!(choice.next(None, "", None), own());
        assert_eq!(choice.next(Some("https://own"), "", None).as_deref(), Some("https://us"));
        assert!(choice.expects("https://own"));
        let mut choice = Choice::of(Vec::new(), 4, own(), turns(&[], 0));
        assert_eq!(choice.next(Some("https://own"), "", None), own());
        let mut choice = Choice::of(vec![peer((0, (0, 10)))], 4, own(), turns(&["https://us"], 0));
        assert_eq!(choice.next(None, "", None).as_deref(), Some("https://n0"));
    }

    #[test]
    fn regions_have_their_turn_each() {
        let mut choice = Choice::of(Vec::new(), 4, None, turns(&["https://us", "https://ap"], 1));
        let sent: Vec<_> = (0..4).map(|_| choice.next(None, "", None).unwrap()).collect();
        assert_eq!(
            sent.iter().map(|url| &**url).collect::<Vec<_>>(),
            ["https://ap", "https://us", "https://ap", "https://us"]
        );
        assert_eq!(Choice::of(Vec::new(), 4, None, turns(&[], 0)).next(None, "", None), None);
    }
}
