//! The nodes that are known: where to go first, and in which order elsewhere.

use crate::{Time, url::NodeUrl};
use skywave_protocol::position::Origin;
use std::{cmp::Ordering, time::Duration};

/// The most addresses that nodes may add.
const MAX_LEARNED: usize = 16;

/// The addresses of nodes: those given, those learned from nodes, and what is known of each.
#[derive(Debug)]
pub(crate) struct Candidates {
    /// Never empty; the given ones, which stay, come first.
    known: Vec<Candidate>,
    current: usize,
}

#[derive(Debug)]
struct Candidate {
    url: NodeUrl,
    given: bool,
    region: Option<Origin>,
    /// Smoothed time from the begin of an attempt to its completed handshake.
    handshake: Option<Duration>,
    /// Whether it failed since the last success or full round.
    failed: bool,
    /// Until when it does not want to be asked.
    rests_until: Option<Time>,
}

impl Candidate {
    fn new(url: NodeUrl, given: bool) -> Self {
        Self { url, given, region: None, handshake: None, failed: false, rests_until: None }
    }
}

impl Candidate {
    fn rests(&self, now: Time) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }
}

impl Candidates {
    /// `given` has at least one.
    pub(crate) fn new(given: Vec<NodeUrl>) -> Self {
        Self { known: given.into_iter().map(|url| Candidate::new(url, true)).collect(), current: 0 }
    }

    /// Where the session is, or was last, or was sent to.
    pub(crate) fn current(&self) -> &NodeUrl {
        &self.known.get(self.current).unwrap_or(&self.known[0]).url
    }

    /// Whom to try in this round: the current one, then the others, the fastest first. Of those in a region
    /// nobody has been to the order in which they were told counts.
    pub(crate) fn order(&self, now: Time) -> Vec<NodeUrl> {
        let all_rest = self.known.iter().all(|candidate| candidate.failed || candidate.rests(now));
        let mut left: Vec<(usize, Option<Duration>)> = (0..self.known.len())
            .filter(|index| !self.known[*index].failed && (all_rest || !self.known[*index].rests(now)))
            .map(|index| (index, self.estimate(index)))
            .collect();
        left.sort_by(|(a, a_time), (b, b_time)| {
            let current_first = (*b == self.current).cmp(&(*a == self.current));
            current_first.then(match (a_time, b_time) {
                (Some(a), Some(b)) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => Ordering::Equal,
            })
        });
        left.into_iter().map(|(index, _)| self.known[index].url.clone()).collect()
    }

    /// How long a handshake takes: measured there, or else at the quickest of the same region.
    fn estimate(&self, index: usize) -> Option<Duration> {
        let candidate = &self.known[index];
        let region = candidate.region.as_ref();
        candidate.handshake.or_else(|| {
            let same_region = |other: &&Candidate| region.is_some() && other.region.as_ref() == region;
            self.known.iter().filter(same_region).filter_map(|other| other.handshake).min()
        })
    }

    /// The time that a handshake with `url` usually takes, if one ever completed.
    pub(crate) fn handshake(&self, url: &NodeUrl) -> Option<Duration> {
        self.known.iter().find(|candidate| candidate.url == *url)?.handshake
    }

    /// A handshake with `url` took so long.
    pub(crate) fn measured(&mut self, url: &NodeUrl, took: Duration) {
        if let Some(candidate) = self.find(url) {
            candidate.handshake = Some(candidate.handshake.map_or(took, |before| (before * 3 + took) / 4));
        }
    }

    fn find(&mut self, url: &NodeUrl) -> Option<&mut Candidate> {
        self.known.iter_mut().find(|candidate| candidate.url == *url)
    }

    /// `url` is not to be tried again in this round, nor before `rests_until`.
    pub(crate) fn failed(&mut self, url: &NodeUrl, rests_until: Option<Time>) {
        if let Some(candidate) = self.find(url) {
            candidate.failed = true;
            candidate.rests_until = rests_until.or(candidate.rests_until);
        }
    }

    /// When somebody wants to be asked again; none when somebody does now.
    pub(crate) fn all_rest_until(&self, now: Time) -> Option<Time> {
        let rests = self.known.iter().map(|candidate| candidate.rests_until.filter(|until| now < *until));
        rests.min().flatten()
    }

    /// Whether nobody is left to be tried in this round.
    pub(crate) fn is_exhausted(&self, now: Time) -> bool {
        self.known.iter().all(|candidate| candidate.failed || candidate.rests(now))
    }

    /// From here on everybody may be tried again.
    pub(crate) fn begin_round(&mut self) {
        self.known.iter_mut().for_each(|candidate| candidate.failed = false);
    }

    /// The session is at `url`, which is in `region`. There it stays: nothing but a failure or the node's own
    /// word leads elsewhere.
    pub(crate) fn succeeded(&mut self, url: &NodeUrl, region: Origin) {
        self.go(url);
        self.begin_round();
        self.known[self.current].region = Some(region);
        self.known[self.current].rests_until = None;
    }

    /// Goes to `url` first from now on.
    pub(crate) fn go(&mut self, url: &NodeUrl) {
        let index = self.known.iter().position(|candidate| candidate.url == *url);
        self.current = index.unwrap_or_else(|| {
            let learned = self.known.iter().filter(|candidate| !candidate.given).count();
            if learned >= MAX_LEARNED {
                self.known.pop();
            }
            self.known.push(Candidate::new(url.clone(), false));
            self.known.len() - 1
        });
    }

    /// Replaces what nodes told of others, with their regions; the current one stays.
    pub(crate) fn learn(&mut self, told: impl Iterator<Item = (Origin, NodeUrl)>) {
        let current = self.current().clone();
        let (mut known, mut former): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.known).into_iter().partition(|candidate| candidate.given);
        let given = known.len();
        for (region, url) in told {
            if let Some(candidate) = known.iter_mut().find(|candidate| candidate.url == url) {
                candidate.region = Some(region);
            } else if known.len() - given < MAX_LEARNED {
                let before = former.iter().position(|candidate| candidate.url == url);
                let before = before.map(|index| former.swap_remove(index));
                let candidate = before.unwrap_or_else(|| Candidate::new(url, false));
                known.push(Candidate { region: Some(region), ..candidate });
            }
        }
        let stays = former.into_iter().find(|candidate| candidate.url == current);
        if let Some(candidate) = stays {
            known.truncate(given + MAX_LEARNED - 1);
            known.push(candidate);
        }
        self.known = known;
        self.go(&current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_begin(Duration::from_secs(1_000));

    fn url(name: &str) -> NodeUrl {
        format!("https://{name}").parse().unwrap()
    }

    fn region(name: &str) -> Origin {
        Origin::new(name).unwrap()
    }

    fn told(names: &[(&str, &str)]) -> Vec<(Origin, NodeUrl)> {
        names.iter().map(|(name, at)| (region(name), url(at))).collect()
    }

    /// At `a` in `eu`, after a handshake of 20 ms.
    fn at_a() -> Candidates {
        let mut candidates = Candidates::new(vec![url("a")]);
        candidates.succeeded(&url("a"), region("eu"));
        candidates.measured(&url("a"), Duration::from_millis(20));
        candidates.learn(told(&[("eu", "b"), ("ap", "c"), ("us", "d")]).into_iter());
        candidates
    }

    #[test]
    fn peers_of_the_own_region_come_before_regions_never_seen_and_those_as_told() {
        assert_eq!(at_a().order(NOW), [url("a"), url("b"), url("c"), url("d")]);
    }

    #[test]
    fn the_fastest_known_comes_after_the_current_one() {
        let mut candidates = at_a();
        candidates.measured(&url("d"), Duration::from_millis(10));
        candidates.measured(&url("c"), Duration::from_millis(300));
        assert_eq!(candidates.order(NOW), [url("a"), url("d"), url("b"), url("c")]);
        candidates.measured(&url("d"), Duration::from_millis(1010));
        assert_eq!(candidates.handshake(&url("d")), Some(Duration::from_millis(260)));
        assert_eq!(candidates.order(NOW), [url("a"), url("b"), url("d"), url("c")]);
    }

    #[test]
    fn one_that_failed_is_not_tried_again_before_the_round_is_over() {
        let mut candidates = at_a();
        for name in ["b", "a", "c"] {
            candidates.failed(&url(name), None);
        }
        assert_eq!(candidates.order(NOW), [url("d")]);
        assert!(!candidates.is_exhausted(NOW));
        candidates.failed(&url("d"), None);
        assert!(candidates.is_exhausted(NOW));
        candidates.begin_round();
        assert_eq!(candidates.order(NOW).len(), 4);
    }

    #[test]
    fn who_wants_to_be_left_alone_is_tried_when_nobody_else_is_left() {
        let mut candidates = at_a();
        let now = NOW;
        let soon = now + Duration::from_secs(5);
        candidates.failed(&url("a"), Some(soon));
        candidates.begin_round();
        assert_eq!(candidates.order(now), [url("b"), url("c"), url("d")]);
        assert_eq!(candidates.order(soon)[0], url("a"));
        assert_eq!(candidates.all_rest_until(now), None);
        for name in ["b", "c", "d"] {
            candidates.failed(&url(name), None);
        }
        assert!(candidates.is_exhausted(now));
        candidates.begin_round();
        for name in ["b", "c", "d"] {
            candidates.failed(&url(name), Some(soon + Duration::from_secs(5)));
        }
        assert_eq!(candidates.all_rest_until(now), Some(soon));
        assert_eq!(candidates.all_rest_until(soon), None);
    }

    #[test]
    fn after_a_failover_the_new_node_is_the_first_and_the_old_one_no_more_than_another() {
        let mut candidates = at_a();
        candidates.succeeded(&url("d"), region("us"));
        candidates.measured(&url("d"), Duration::from_millis(250));
        candidates.learn(told(&[("eu", "a"), ("eu", "b"), ("ap", "c")]).into_iter());
        assert_eq!(*candidates.current(), url("d"));
        assert_eq!(candidates.order(NOW)[0], url("d"));
    }

    #[test]
    fn the_current_one_survives_what_is_learned() {
        let mut candidates = Candidates::new(vec![url("a")]);
        candidates.go(&url("x"));
        candidates.learn((0..100).map(|index| (region("us"), url(&format!("r{index}")))));
        assert_eq!(*candidates.current(), url("x"));
        assert!(candidates.known.len() <= 1 + MAX_LEARNED);
        candidates.go(&url("y"));
        assert_eq!(*candidates.current(), url("y"));
        assert!(candidates.known.len() <= 1 + MAX_LEARNED);
    }

    #[test]
    fn what_is_told_again_keeps_its_time() {
        let mut candidates = at_a();
        candidates.measured(&url("c"), Duration::from_millis(300));
        candidates.learn(told(&[("us", "d"), ("ap", "c")]).into_iter());
        assert_eq!(candidates.handshake(&url("c")), Some(Duration::from_millis(300)));
        assert_eq!(candidates.order(NOW), [url("a"), url("c"), url("d")]);
    }
}
