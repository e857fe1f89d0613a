//! Where each session that leaves a node goes.

use crate::{
    node::Node,
    region::{balance, failover::Standing, rendezvous},
    session::registry::Attached,
};
use skywave_protocol::frame::SessionId;
use std::sync::Arc;

/// Chooses a destination for one session after the other, with those already sent in mind.
pub struct Destinations {
    choice: Choice,
}

enum Choice {
    /// This address for all of them.
    Given(Arc<str>),
    /// Other nodes of the region.
    Peers { peers: Vec<Peer>, even: usize },
    /// Other regions: this address each in turn, the next one first.
    Regions { urls: Vec<Arc<str>>, next: usize },
}

struct Peer {
    id: Arc<str>,
    url: Arc<str>,
    /// Its sessions, and those that were sent to it since.
    load: usize,
    limit: usize,
}

impl Destinations {
    /// Where sessions of `node` can go: to `url` if it is given, else to other nodes of the region, else to another
    /// region.
    pub fn new(node: &Node, url: Option<Arc<str>>) -> Self {
        if let Some(url) = url {
            return Self { choice: Choice::Given(url) };
        }
        let here = node.config.node.url.as_deref();
        let all = node.directory.peers();
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
        let is_left = node.failover.is_away() && node.failover.standing() != Standing::Deaf;
        if peers.is_empty() || is_left {
            return Self::regions(node);
        }
        Self { choice: Choice::of(peers, node.sessions.len()) }
    }

    /// The other regions: the nearest of those within reach, or in turn where distances are not known.
    pub fn regions(node: &Node) -> Self {
        let urls = node.failover.regions(node);
        // Nodes that fail together do not all begin with the same one.
        let next = rand::random_range(0..urls.len().max(1));
        Self { choice: Choice::Regions { urls, next } }
    }

    pub fn is_empty(&self) -> bool {
        matches!(&self.choice, Choice::Regions { urls, .. } if urls.is_empty())
    }

    /// Where this session goes; `None` when no other node is known.
    pub fn next(&mut self, session: &SessionId, attached: &Attached) -> Option<Arc<str>> {
        self.choice.next(session, attached.user.as_deref())
    }
}

impl Choice {
    fn of(peers: Vec<Peer>, leaving: usize) -> Self {
        let sum: usize = peers.iter().map(|peer| peer.load).sum();
        let mean = (sum + leaving) as f64 / peers.len().max(1) as f64;
        Self::Peers { peers, even: balance::even(mean) }
    }

    fn next(&mut self, session: &str, user: Option<&str>) -> Option<Arc<str>> {
        match self {
            Self::Given(url) => Some(url.clone()),
            Self::Peers { peers, even } => {
                let suits = |peer: &&mut Peer| peer.load < (*even).min(peer.limit);
                let suited = user.and_then(|user| {
                    let weight = |peer: &&mut Peer| rendezvous::weight(user, &peer.id);
                    peers.iter_mut().filter(suits).max_by_key(weight)
                });
                // Who has no name, or whose node is full, goes where there is most room.
                let chosen = match suited {
                    Some(peer) => peer,
                    None => {
                        let load = |peer: &&mut Peer| (peer.load, rendezvous::weight(session, &peer.id));
                        peers.iter_mut().min_by_key(load)?
                    }
                };
                chosen.load += 1;
                Some(chosen.url.clone())
            }
            Self::Regions { urls, next } => {
                let url = urls.get(*next % urls.len().max(1))?;
                *next += 1;
                Some(url.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn choice(loads: &[usize], leaving: usize) -> Choice {
        let peer = |(number, load): (usize, &usize)| Peer {
            id: format!("n{number}").into(),
            url: format!("https://n{number}").into(),
            load: *load,
            limit: 100_000,
        };
        Choice::of(loads.iter().enumerate().map(peer).collect(), leaving)
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
        let sent = counts((0..120).map(|session| choice.next(&session.to_string(), None)));
        assert_eq!(sent, [80, 40], "until those two are even, the full one gets none");
    }

    #[test]
    fn users_go_to_the_node_that_suits_them_but_never_all_to_one() {
        let mut choice = choice(&[10, 10, 10], 600);
        let sent: Vec<_> = (0..600).map(|user| choice.next("", Some(&format!("user-{user}")))).collect();
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
        let sent = counts((0..100).map(|user| choice.next("", Some(&format!("user-{user}")))));
        assert_eq!(sent, [100]);
    }

    #[test]
    fn regions_have_their_turn_each() {
        let urls = vec!["https://us".into(), "https://ap".into()];
        let mut choice = Choice::Regions { urls, next: 1 };
        let sent: Vec<_> = (0..4).map(|_| choice.next("", None).unwrap()).collect();
        assert_eq!(
            sent.iter().map(|url| &**url).collect::<Vec<_>>(),
            ["https://ap", "https://us", "https://ap", "https://us"]
        );
        assert_eq!(Choice::Regions { urls: Vec::new(), next: 0 }.next("", None), None);
    }
}
