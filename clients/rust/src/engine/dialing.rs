//! Handshakes: a token, and the first of several nodes that one of its transports reaches.

use crate::{
    error::ConnectError,
    options::TokenSource,
    race,
    staggered::{self, Pace, Winner},
    transport::{Connection, Dialer},
};
use futures_util::future::BoxFuture;
use skywave_client_session::{Dial, STAGGER, Target};
use std::sync::Arc;

/// What came of them.
pub(super) struct Reached {
    pub(super) winner: Winner<Connection>,
    pub(super) token: Option<Arc<str>>,
}

/// Gets a token, where one is needed, and a connection to the first of the targets whose handshake completes.
pub(super) fn dial(
    dialer: Dialer,
    tokens: TokenSource,
    dial: Dial,
) -> BoxFuture<'static, Result<Reached, ConnectError>> {
    let Dial { targets, head_start, timeout, needs_token, .. } = dial;
    let pace = Pace { head_start, stagger: STAGGER, timeout: Some(timeout), last_chance: None };
    Box::pin(async move {
        let token = if needs_token { tokens.token_within(timeout).await? } else { None };
        let attempt = |index: usize| {
            let (dialer, target): (&Dialer, &Target) = (&dialer, &targets[index]);
            async move { Ok(race::connect(dialer, &target.url, &target.plan).await?) }
        };
        let outcome = staggered::first(targets.len(), pace, attempt, || ConnectError::TimedOut).await;
        // The last one to fail says most of how things stand now.
        let failed = |mut errors: Vec<(usize, ConnectError)>| {
            errors.pop().map_or(ConnectError::TimedOut, |(_, error)| error)
        };
        Ok(Reached { winner: outcome.map_err(failed)?, token })
    })
}
