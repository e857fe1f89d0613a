//! What won the race of the transports where, so that the next session begins with it.

use crate::{Time, TransportChoice, TransportKind, url::NodeUrl};
use std::{collections::HashMap, time::Duration};

/// How long WebTransport is not tried first again after it lost; doubles with each further loss.
const FIRST_AVOIDANCE: Duration = Duration::from_secs(30);
const LONGEST_AVOIDANCE: Duration = Duration::from_secs(3600);
/// How many URLs are remembered.
const MAX_URLS: usize = 64;

/// What to try, in order, and by how much the first is ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub first: TransportKind,
    pub second: Option<TransportKind>,
    pub head_start: Duration,
}

/// What won where, so that the next session begins with it.
#[derive(Debug, Default)]
pub(crate) struct RaceMemory(HashMap<NodeUrl, Remembered>);

#[derive(Debug, Clone, Copy)]
struct Remembered {
    winner: TransportKind,
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
        let only = |first| Plan { first, second: None, head_start };
        match choice {
            TransportChoice::WebTransport => only(TransportKind::WebTransport),
            TransportChoice::WebSocket => only(TransportKind::WebSocket),
            TransportChoice::Auto if !url.allows(TransportKind::WebTransport) => {
                only(TransportKind::WebSocket)
            }
            TransportChoice::Auto => {
                let avoided = self.0.get(url).is_some_and(|remembered| {
                    remembered.winner == TransportKind::WebSocket && now < remembered.avoid_until
                });
                let first = if avoided { TransportKind::WebSocket } else { TransportKind::WebTransport };
                Plan { first, second: Some(first.other()), head_start }
            }
        }
    }

    /// Remembers who won a race that both could have won.
    pub(crate) fn remember(&mut self, url: &NodeUrl, plan: Plan, winner: TransportKind, now: Time) {
        if plan.second.is_none() {
            return;
        }
        if self.0.len() >= MAX_URLS && !self.0.contains_key(url) {
            self.0.clear();
        }
        let before = self.0.get(url).copied();
        let (avoid_until, avoidance) = match (winner, plan.first, before) {
            (TransportKind::WebTransport, ..) => (now, Duration::ZERO),
            // It lost although it went first: stay away for longer than the last time.
            (TransportKind::WebSocket, TransportKind::WebTransport, before) => {
                let last = before.map_or(Duration::ZERO, |remembered| remembered.avoidance);
                let avoidance = (last * 2).clamp(FIRST_AVOIDANCE, LONGEST_AVOIDANCE);
                (now + avoidance, avoidance)
            }
            (_, _, Some(before)) => (before.avoid_until, before.avoidance),
            (_, _, None) => (now + FIRST_AVOIDANCE, FIRST_AVOIDANCE),
        };
        self.0.insert(url.clone(), Remembered { winner, avoid_until, avoidance });
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
            assert_eq!(plan(&memory, now).first, WebTransport);
            memory.remember(&url(), plan(&memory, now), WebSocket, now);
            assert_eq!(plan(&memory, now).first, WebSocket);
            memory.remember(&url(), plan(&memory, now), WebSocket, now);
            now = now + Duration::from_secs(expected) - Duration::from_millis(1);
            assert_eq!(plan(&memory, now).first, WebSocket, "{expected}");
            now = now + Duration::from_millis(1);
        }
        memory.remember(&url(), plan(&memory, now), WebTransport, now);
        assert_eq!(plan(&memory, now).first, WebTransport);
    }

    #[test]
    fn a_url_that_allows_one_transport_is_no_race() {
        let plan = RaceMemory::default().plan(
            &"wss://node.example".parse().unwrap(),
            TransportChoice::Auto,
            HEAD_START,
            NOW,
        );
        assert_eq!((plan.first, plan.second), (WebSocket, None));
    }
}
