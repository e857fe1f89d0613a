//! Which transport won where, so that the next session begins with it.

use crate::{Time, TransportChoice, TransportKind, url::NodeUrl};
use std::{collections::HashMap, time::Duration};

/// How long a transport is not tried first again after it lost; doubles with each further loss.
const FIRST_AVOIDANCE: Duration = Duration::from_secs(30);
const LONGEST_AVOIDANCE: Duration = Duration::from_secs(3600);
/// How many losses are remembered.
const MAX_ENTRIES: usize = 64;

/// What to try, in order, and by how much the first is ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// At least one.
    pub kinds: Vec<TransportKind>,
    pub head_start: Duration,
}

/// Which transports lost where.
#[derive(Debug, Default)]
pub(crate) struct RaceMemory(HashMap<(NodeUrl, TransportKind), Lost>);

#[derive(Debug, Clone, Copy)]
struct Lost {
    /// It is not tried before others until then.
    avoid_until: Time,
    avoidance: Duration,
}

impl RaceMemory {
    pub(crate) fn plan(
        &self,
        url: &NodeUrl,
        choice: TransportChoice,
        head_start: Duration,
        now: Time,
    ) -> Plan {
        let kinds = match choice.only() {
            Some(only) => vec![only],
            None => {
                let allowed = TransportKind::ALL.iter().copied().filter(|kind| url.allows(*kind));
                let mut kinds: Vec<TransportKind> = allowed.collect();
                kinds.sort_by_key(|kind| self.is_avoided(url, *kind, now));
                kinds
            }
        };
        Plan { kinds, head_start }
    }

    fn is_avoided(&self, url: &NodeUrl, kind: TransportKind, now: Time) -> bool {
        self.0.get(&(url.clone(), kind)).is_some_and(|lost| now < lost.avoid_until)
    }

    /// Remembers who won a race that others could have won.
    pub(crate) fn remember(&mut self, url: &NodeUrl, plan: &Plan, winner: TransportKind, now: Time) {
        if plan.kinds.len() == 1 {
            return;
        }
        self.0.remove(&(url.clone(), winner));
        let rank = |kind: TransportKind| TransportKind::ALL.iter().position(|one| *one == kind);
        // They lost although they are better and went first: stay away for longer than the last time.
        let ahead = plan.kinds.iter().take_while(|kind| **kind != winner);
        for kind in ahead.filter(|kind| rank(**kind) < rank(winner)) {
            self.lost(url, *kind, now);
        }
    }

    fn lost(&mut self, url: &NodeUrl, kind: TransportKind, now: Time) {
        let place = (url.clone(), kind);
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&place) {
            self.0.clear();
        }
        let before = self.0.get(&place).map_or(Duration::ZERO, |lost| lost.avoidance);
        let avoidance = (before * 2).clamp(FIRST_AVOIDANCE, LONGEST_AVOIDANCE);
        self.0.insert(place, Lost { avoid_until: now + avoidance, avoidance });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransportKind::{WebSocket, WebTransport};

    const HEAD_START: Duration = Duration::from_millis(250);
    const NOW: Time = Time::from_begin(Duration::from_secs(1_000));

    fn url() -> NodeUrl {
        "https://node.example".parse().unwrap()
    }

    #[test]
    fn a_lost_race_is_remembered_for_a_growing_time() {
        let mut memory = RaceMemory::default();
        let mut now = NOW;
        let plan = |memory: &RaceMemory, now| memory.plan(&url(), TransportChoice::Auto, HEAD_START, now);
        for expected in [30u64, 60, 120] {
            assert_eq!(plan(&memory, now).kinds, [WebTransport, WebSocket]);
            memory.remember(&url(), &plan(&memory, now), WebSocket, now);
            assert_eq!(plan(&memory, now).kinds, [WebSocket, WebTransport]);
            memory.remember(&url(), &plan(&memory, now), WebSocket, now);
            now = now + Duration::from_secs(expected) - Duration::from_millis(1);
            assert_eq!(plan(&memory, now).kinds[0], WebSocket, "{expected}");
            now = now + Duration::from_millis(1);
        }
        memory.remember(&url(), &plan(&memory, now), WebTransport, now);
        assert_eq!(plan(&memory, now).kinds[0], WebTransport);
    }

    #[test]
    fn a_url_that_allows_one_transport_is_no_race() {
        let plan = RaceMemory::default().plan(
            &"wss://node.example".parse().unwrap(),
            TransportChoice::Auto,
            HEAD_START,
            NOW,
        );
        assert_eq!(plan.kinds, [WebSocket]);
    }
}
