//! The race of the transports to one node: the best one has a head start, and the first one that connects wins.

use crate::{
    error::DialErrors,
    staggered::{self, Pace},
    transport::{Connection, DialError, Dialer, TransportKind},
    url::NodeUrl,
};
use skywave_client_session::Plan;
use std::{future::Future, time::Duration};

/// Once one transport has failed for certain, the others get this long: the node is there, or gone.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// Opens a connection to `url` by `plan`; whoever loses is closed.
pub(crate) async fn connect(dialer: &Dialer, url: &NodeUrl, plan: &Plan) -> Result<Connection, DialErrors> {
    race(plan, |kind| dialer.dial(url, kind)).await
}

async fn race<T, F>(plan: &Plan, dial: impl Fn(TransportKind) -> F) -> Result<T, DialErrors>
where
    F: Future<Output = Result<T, DialError>>,
{
    let pace = Pace {
        head_start: plan.head_start,
        stagger: Duration::ZERO,
        timeout: None,
        last_chance: Some(LAST_CHANCE),
    };
    let attempt = |index: usize| dial(plan.kinds[index]);
    let outcome = staggered::first(plan.kinds.len(), pace, attempt, || DialError::TimedOut).await;
    outcome.map(|winner| winner.value).map_err(|failed| {
        let named = failed.into_iter().map(|(index, error)| (plan.kinds[index], error));
        let mut errors: Vec<(TransportKind, DialError)> = named.collect();
        errors.sort_by_key(|(kind, _)| *kind);
        DialErrors(errors)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransportKind::{WebSocket, WebTransport};
    use std::future::{pending, ready};
    use tokio::time::{Instant, sleep};

    const HEAD_START: Duration = Duration::from_millis(250);

    fn both() -> Plan {
        Plan { kinds: TransportKind::ALL.to_vec(), head_start: HEAD_START }
    }

    async fn after(ms: u64, outcome: Result<TransportKind, DialError>) -> Result<TransportKind, DialError> {
        sleep(Duration::from_millis(ms)).await;
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn webtransport_wins_within_its_head_start() {
        let both = both();
        let winner = race(&both, |kind| after(if kind == WebTransport { 249 } else { 0 }, Ok(kind))).await;
        assert_eq!(winner.unwrap(), WebTransport);
    }

    #[tokio::test(start_paused = true)]
    async fn websocket_takes_over_from_a_silent_webtransport() {
        let both = both();
        let begin = Instant::now();
        let winner = race(&both, |kind| async move {
            if kind == WebTransport { pending().await } else { after(10, Ok(kind)).await }
        });
        assert_eq!(winner.await.unwrap(), WebSocket);
        assert_eq!(begin.elapsed(), Duration::from_millis(260));
    }

    #[tokio::test(start_paused = true)]
    async fn websocket_starts_at_once_when_webtransport_fails() {
        let both = both();
        let begin = Instant::now();
        let winner = race(&both, |kind| {
            ready(if kind == WebTransport { Err(DialError::Unreachable) } else { Ok(kind) })
        });
        assert_eq!(winner.await.unwrap(), WebSocket);
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_gone_on_one_transport_is_not_waited_for_on_the_other() {
        let both = both();
        let begin = Instant::now();
        let outcome = race(&both, |kind| async move {
            if kind == WebTransport {
                pending::<()>().await
            }
            Err::<TransportKind, _>(DialError::Unreachable)
        });
        let error = outcome.await.unwrap_err();
        assert!(matches!(error.by(WebTransport), Some(DialError::TimedOut)));
        assert!(matches!(error.by(WebSocket), Some(DialError::Unreachable)));
        assert_eq!(begin.elapsed(), HEAD_START + LAST_CHANCE);
    }
}
