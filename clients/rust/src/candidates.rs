//! Which node to try next.

use crate::url::NodeUrl;

/// The most addresses that nodes may add.
const MAX_LEARNED: usize = 16;

/// The addresses of nodes: those given, those learned from nodes, and where to go first.
#[derive(Debug)]
pub(crate) struct Candidates {
    given: Vec<NodeUrl>,
    learned: Vec<NodeUrl>,
    current: usize,
    /// Failures since the last success.
    failures: usize,
}

impl Candidates {
    /// `given` has at least one.
    pub fn new(given: Vec<NodeUrl>) -> Self {
        Self { given, learned: Vec::new(), current: 0, failures: 0 }
    }

    fn len(&self) -> usize {
        self.given.len() + self.learned.len()
    }

    pub fn current(&self) -> &NodeUrl {
        self.given
            .get(self.current)
            .or_else(|| self.learned.get(self.current - self.given.len()))
            .unwrap_or(&self.given[0])
    }

    /// Moves on to the next; whether all have failed once since the last success or full round.
    pub fn failed(&mut self) -> bool {
        self.current = (self.current + 1) % self.len();
        self.failures += 1;
        let round = self.failures >= self.len();
        if round {
            self.failures = 0;
        }
        round
    }

    pub fn succeeded(&mut self, url: &NodeUrl) {
        self.failures = 0;
        self.go(url.clone());
    }

    /// After a failed move the next one, if there is one planned, goes on; else back to `url`.
    pub fn go_unless_draining(&mut self, url: &NodeUrl, draining: bool) {
        if !draining {
            self.go(url.clone());
        }
    }

    /// Goes to `url` next.
    pub fn go(&mut self, url: NodeUrl) {
        let index = self.given.iter().chain(&self.learned).position(|known| *known == url);
        self.current = index.unwrap_or_else(|| {
            if self.learned.len() >= MAX_LEARNED {
                self.learned.pop();
            }
            self.learned.push(url);
            self.len() - 1
        });
    }

    /// Replaces what nodes told about other regions; the current one stays.
    pub fn learn(&mut self, urls: impl Iterator<Item = NodeUrl>) {
        let current = self.current().clone();
        self.learned.clear();
        for url in urls {
            if self.learned.len() < MAX_LEARNED && !self.given.contains(&url) && !self.learned.contains(&url)
            {
                self.learned.push(url);
            }
        }
        self.go(current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(name: &str) -> NodeUrl {
        format!("https://{name}").parse().unwrap()
    }

    #[test]
    fn failures_go_round_all_of_them() {
        let mut candidates = Candidates::new(vec![url("a"), url("b")]);
        candidates.learn([url("c"), url("a")].into_iter());
        let mut seen = vec![candidates.current().clone()];
        assert!(!candidates.failed());
        seen.push(candidates.current().clone());
        assert!(!candidates.failed());
        seen.push(candidates.current().clone());
        assert!(candidates.failed());
        assert_eq!(seen, [url("a"), url("b"), url("c")]);
        assert_eq!(*candidates.current(), url("a"));
    }

    #[test]
    fn the_current_one_survives_what_is_learned() {
        let mut candidates = Candidates::new(vec![url("a")]);
        candidates.go(url("x"));
        candidates.learn((0..100).map(|index| url(&format!("r{index}"))));
        assert_eq!(*candidates.current(), url("x"));
        assert!(candidates.len() <= 1 + MAX_LEARNED);
    }
}
