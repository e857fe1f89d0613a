//! Walks through what Redis believes a holder holds, and takes back what it does not.

use super::{
    answers::{self, Scanned},
    requests::Requests,
    unreadable,
};
use skywave_protocol::{Channel, frame::SessionId};
use skywave_redis::{CallError, Redis};

/// The most sessions in one call.
pub(crate) const CLAIMS: usize = 256;

/// A channel and a session on it.
pub(crate) type Place = (Channel, SessionId);

/// A step through what Redis believes the holder of these requests holds.
///
/// # Errors
/// See [`CallError`].
pub(crate) async fn step_through(
    redis: &Redis,
    requests: &Requests,
    partition: u16,
    cursor: &str,
) -> Result<Scanned, CallError> {
    answers::scanned(redis.commands.call(requests.scan(partition, cursor)).await?).map_err(unreadable)
}

/// `release` gives a call for those of its places that are not held, or none. It is called in the same step in which
/// that is found out: whoever comes meanwhile is claimed behind it.
///
/// # Errors
/// See [`CallError`]; what was looked at by then is done.
pub(crate) async fn release_others<C>(
    redis: &Redis,
    requests: &Requests,
    partition: u16,
    release: impl Fn(&[Place]) -> Option<C>,
) -> Result<(), CallError>
where
    C: Future<Output = Result<redis::Value, CallError>>,
{
    let mut cursor = Some("0".to_owned());
    while let Some(at) = cursor {
        let scanned = step_through(redis, requests, partition, &at).await?;
        cursor = scanned.next;
        for places in scanned.held.chunks(CLAIMS) {
            if let Some(call) = release(places) {
                call.await?;
            }
        }
    }
    Ok(())
}
