//! The choice of transport: WebTransport with a head start, WebSocket beside it, first one wins.

use crate::{
    error::RaceError,
    options::TransportChoice,
    transport::{Connection, DialError, Dialer, TransportKind},
    url::NodeUrl,
};
use std::{collections::HashMap, future::Future, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// Once one transport has failed for certain, the other gets this long: the node is there, or gone.
const LAST_CHANCE: Duration = Duration::from_secs(1);
/// How long WebTransport is not tried first again after it lost; doubles with each further loss.
const FIRST_AVOIDANCE: Duration = Duration::from_secs(30);
const LONGEST_AVOIDANCE: Duration = Duration::from_secs(3600);
/// How many URLs are remembered.
const MAX_URLS: usize = 64;

/// What to try, in order, and by how much the first is ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub first: TransportKind,
    pub second: Option<TransportKind>,
    pub head_start: Duration,
}

/// What won where, so that the next session begins with it.
#[derive(Debug, Default)]
pub(crate) struct Memory(HashMap<NodeUrl, Remembered>);

#[derive(Debug, Clone, Copy)]
struct Remembered {
    winner: TransportKind,
    avoid_until: Instant,
    avoidance: Duration,
}

impl Memory {
    pub fn plan(&self, url: &NodeUrl, choice: TransportChoice, head_start: Duration, now: Instant) -> Plan {
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
    pub fn remember(&mut self, url: &NodeUrl, plan: Plan, winner: TransportKind, now: Instant) {
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

/// Opens a connection to `url` by `plan`; whoever loses is closed.
pub(crate) async fn connect(dialer: &Dialer, url: &NodeUrl, plan: Plan) -> Result<Connection, RaceError> {
    race(plan, |kind| dialer.dial(url, kind)).await
}

async fn race<T, F>(plan: Plan, dial: impl Fn(TransportKind) -> F) -> Result<T, RaceError>
where
    F: Future<Output = Result<T, DialError>>,
{
    let mut errors = RaceError::default();
    let first = dial(plan.first);
    tokio::pin!(first);
    let Some(second) = plan.second else {
        return first.await.map_err(|error| errors.with(plan.first, error));
    };
    tokio::select! {
        outcome = &mut first => match outcome {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                errors = errors.with(plan.first, error);
                return dial(second).await.map_err(|error| errors.with(second, error));
            }
        },
        () = sleep(plan.head_start) => {}
    }
    let other = dial(second);
    tokio::pin!(other);
    tokio::select! {
        outcome = &mut first => match outcome {
            Ok(connection) => Ok(connection),
            Err(error) => last_chance(other, second, errors.with(plan.first, error)).await,
        },
        outcome = &mut other => match outcome {
            Ok(connection) => Ok(connection),
            Err(error) => last_chance(first, plan.first, errors.with(second, error)).await,
        },
    }
}

async fn last_chance<T>(
    dial: impl Future<Output = Result<T, DialError>>,
    kind: TransportKind,
    errors: RaceError,
) -> Result<T, RaceError> {
    let outcome = timeout(LAST_CHANCE, dial).await.unwrap_or(Err(DialError::TimedOut));
    outcome.map_err(|error| errors.with(kind, error))
}

impl RaceError {
    pub(crate) fn with(mut self, kind: TransportKind, error: DialError) -> Self {
        match kind {
            TransportKind::WebTransport => self.webtransport = Some(error),
            TransportKind::WebSocket => self.websocket = Some(error),
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransportKind::{WebSocket, WebTransport};
    use std::future::{pending, ready};

    const HEAD_START: Duration = Duration::from_millis(250);
    const BOTH: Plan = Plan { first: WebTransport, second: Some(WebSocket), head_start: HEAD_START };

    fn url() -> NodeUrl {
        "https://node.example".parse().unwrap()
    }

    async fn after(ms: u64, outcome: Result<TransportKind, DialError>) -> Result<TransportKind, DialError> {
        sleep(Duration::from_millis(ms)).await;
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn webtransport_wins_within_its_head_start() {
        let winner = race(BOTH, |kind| after(if kind == WebTransport { 249 } else { 0 }, Ok(kind))).await;
        assert_eq!(winner.unwrap(), WebTransport);
    }

    #[tokio::test(start_paused = true)]
    async fn websocket_takes_over_from_a_silent_webtransport() {
        let begin = Instant::now();
        let winner = race(BOTH, |kind| async move {
            if kind == WebTransport { pending().await } else { after(10, Ok(kind)).await }
        });
        assert_eq!(winner.await.unwrap(), WebSocket);
        assert_eq!(begin.elapsed(), Duration::from_millis(260));
    }

    #[tokio::test(start_paused = true)]
    async fn websocket_starts_at_once_when_webtransport_fails() {
        let begin = Instant::now();
        let winner = race(BOTH, |kind| {
            ready(if kind == WebTransport { Err(DialError::Unreachable) } else { Ok(kind) })
        });
        assert_eq!(winner.await.unwrap(), WebSocket);
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_gone_on_one_transport_is_not_waited_for_on_the_other() {
        let begin = Instant::now();
        let outcome = race(BOTH, |kind| async move {
            if kind == WebTransport {
                pending::<()>().await
            }
            Err::<TransportKind, _>(DialError::Unreachable)
        });
        let error = outcome.await.unwrap_err();
        assert!(matches!(error.webtransport, Some(DialError::TimedOut)));
        assert!(matches!(error.websocket, Some(DialError::Unreachable)));
        assert_eq!(begin.elapsed(), HEAD_START + LAST_CHANCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_race_is_remembered_for_a_growing_time() {
        let mut memory = Memory::default();
        let plan = |memory: &Memory| memory.plan(&url(), TransportChoice::Auto, HEAD_START, Instant::now());
        for expected in [30u64, 60, 120] {
            assert_eq!(plan(&memory).first, WebTransport);
            memory.remember(&url(), plan(&memory), WebSocket, Instant::now());
            assert_eq!(plan(&memory).first, WebSocket);
            memory.remember(&url(), plan(&memory), WebSocket, Instant::now());
            tokio::time::advance(Duration::from_secs(expected) - Duration::from_millis(1)).await;
            assert_eq!(plan(&memory).first, WebSocket, "{expected}");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        memory.remember(&url(), plan(&memory), WebTransport, Instant::now());
        assert_eq!(plan(&memory).first, WebTransport);
    }

    #[test]
    fn a_url_that_allows_one_transport_is_no_race() {
        let plan = Memory::default().plan(
            &"wss://node.example".parse().unwrap(),
            TransportChoice::Auto,
            HEAD_START,
            Instant::now(),
        );
        assert_eq!((plan.first, plan.second), (WebSocket, None));
    }
}
