//! Walks through what Redis believes a holder holds, and takes back what it does not.

use super::{answers, requests::Requests, unreadable};
use crate::redis::{CallError, Redis, Request};
use skywave_protocol::{Channel, frame::SessionId};

/// The most sessions in one call.
pub const CLAIMS: usize = 256;

/// A channel and a session on it.
pub type Place = (Channel, SessionId);

/// `release` gives a call for those of its places that are not held, or none; it is called in the step in which
/// that is found out, so that who comes meanwhile is claimed behind it.
///
/// # Errors
/// See [`CallError`]; what was looked at by then is done.
pub async fn release_others<C>(
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
        let scan: Request = requests.scan(partition, &at);
        let scanned = answers::scanned(redis.commands.call(scan).await?).map_err(unreadable)?;
        cursor = scanned.next;
        for places in scanned.held.chunks(CLAIMS) {
            if let Some(call) = release(places) {
                call.await?;
            }
        }
    }
    Ok(())
}
