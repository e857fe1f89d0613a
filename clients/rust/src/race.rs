//! The choice of transport: WebTransport with a head start, WebSocket beside it, first one wins.

use crate::{
    error::RaceError,
    transport::{Connection, DialError, Dialer, TransportKind},
    url::NodeUrl,
};
use skywave_client_session::Plan;
use std::{future::Future, time::Duration};
use tokio::time::{sleep, timeout};

/// Once one transport has failed for certain, the other gets this long: the node is there, or gone.
const LAST_CHANCE: Duration = Duration::from_secs(1);

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
    use tokio::time::Instant;

    const HEAD_START: Duration = Duration::from_millis(250);
    const BOTH: Plan = Plan { first: WebTransport, second: Some(WebSocket), head_start: HEAD_START };

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
}
