//! A host's addresses, and the race over them ("Happy Eyeballs", RFC 8305).

use crate::{transport::DialError, url::NodeUrl};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{future::Future, net::SocketAddr, time::Duration};
use tokio::time::sleep;

/// The most addresses of one host that are tried.
const MAX_ADDRESSES: usize = 4;
/// The wait before the next address is tried beside the earlier ones. It is the least that RFC 8305, section 8
/// recommends, so that a second address fits into the race of transports.
const ATTEMPT_DELAY: Duration = Duration::from_millis(100);

/// Resolves `url`'s host; families take turns, as the resolver ordered them.
pub(super) async fn resolve(url: &NodeUrl) -> Result<Vec<SocketAddr>, DialError> {
    let found = tokio::net::lookup_host((url.host(), url.port())).await.map_err(DialError::Resolve)?;
    let (six, four): (Vec<SocketAddr>, Vec<SocketAddr>) = found.partition(SocketAddr::is_ipv6);
    let longest = six.len().max(four.len());
    let addresses: Vec<SocketAddr> = (0..longest)
        .flat_map(|index| [six.get(index), four.get(index)].into_iter().flatten().copied())
        .take(MAX_ADDRESSES)
        .collect();
    if addresses.is_empty() {
        return Err(DialError::Resolve(std::io::Error::other("the host has no address")));
    }
    Ok(addresses)
}

/// Tries the addresses one after another: the next one beside the earlier ones, after a short delay (at once on this
/// machine). The first success wins. Gives the last error when all fail.
pub(super) async fn race<T, F: Future<Output = Result<T, DialError>>>(
    addresses: &[SocketAddr],
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, DialError> {
    let mut waiting = addresses.iter();
    let mut running = FuturesUnordered::new();
    let mut last_error = None;
    running.extend(waiting.next().map(|address| attempt(*address)));
    loop {
        let next = waiting.as_slice().first();
        let delay = if next.is_some_and(|address| address.ip().is_loopback()) {
            Duration::ZERO
        } else {
            ATTEMPT_DELAY
        };
        tokio::select! {
            biased;
            outcome = running.next(), if !running.is_empty() => match outcome {
                Some(Ok(value)) => return Ok(value),
                Some(Err(error)) => {
                    last_error = Some(error);
                    running.extend(waiting.next().map(|address| attempt(*address)));
                }
                None => {}
            },
            () = sleep(delay), if next.is_some() => running.extend(waiting.next().map(|address| attempt(*address))),
            else => {
                return Err(last_error
                    .unwrap_or_else(|| DialError::Resolve(std::io::Error::other("the host has no address"))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (1..=count).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_does_not_hold_up_the_next() {
        let addresses = addresses(3);
        let winner = race(&addresses, |address| async move {
            if address.port() == 1 { pending().await } else { Ok(address.port()) }
        });
        assert_eq!(winner.await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusing_address_is_passed_over_at_once() {
        let begin = tokio::time::Instant::now();
        let addresses = addresses(3);
        let winner = race(&addresses, |address| async move {
            if address.port() < 3 { Err(DialError::Unreachable) } else { Ok(address.port()) }
        });
        assert_eq!(winner.await.unwrap(), 3);
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_addresses_fail_the_error_is_told() {
        let outcome = race(&addresses(2), |_| async { Err::<(), _>(DialError::Unreachable) }).await;
        assert!(matches!(outcome, Err(DialError::Unreachable)));
    }
}
