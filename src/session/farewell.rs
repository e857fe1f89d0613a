//! The last frame of a transport that the node ends: why, and when its client may come back.

use crate::{auth::AuthError, node::Node};
use skywave_protocol::{CloseCode, frame::Disconnect};
use std::ops::RangeInclusive;

/// When to try again, in milliseconds, where there was no place for a session.
const NO_PLACE_MS: RangeInclusive<u64> = 2_000..=6_000;
/// The most over which the comebacks of those are spread whom a node leaves behind as it stops.
const MAX_SPREAD_MS: u64 = 30_000;

/// What a transport that ends with this code is told last.
pub(crate) fn farewell(node: &Node, code: CloseCode) -> Disconnect {
    let retry_after_ms = match code {
        CloseCode::Overloaded => Some(node.host.chance.within(NO_PLACE_MS)),
        CloseCode::Shutdown => spread_ms(node).map(|spread_ms| node.host.chance.within(0..=spread_ms)),
        _ => None,
    };
    Disconnect { retry_after_ms, ..code.into() }
}

/// What a transport is told last whose token is refused. Why it is, only a developer is told.
pub(crate) fn refusal(node: &Node, error: AuthError) -> Disconnect {
    let mut disconnect = farewell(node, error.close_code());
    disconnect.message = node.config.dev.then(|| error.cause().into());
    disconnect
}

/// All sessions end at once, and arrive elsewhere: no faster than a node takes handshakes.
fn spread_ms(node: &Node) -> Option<u64> {
    let sessions = node.sessions.served.count() as u64;
    let per_second = u64::from(node.config.limits.handshakes_per_second).max(1);
    let spread_ms = (sessions * 1_000 / per_second).min(MAX_SPREAD_MS);
    (spread_ms > 0).then_some(spread_ms)
}
