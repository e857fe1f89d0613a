//! Leases: what one of many nodes does at a time, with a token that fences off whoever held it before.
//!
//! A lease stands in the region's Redis and is judged by Redis' clock. The holder counts its time from the moment at
//! which it *asked*, so it gives up no later than Redis does. That is not enough for safety: a holder may sleep between
//! looking at the time and writing. So whatever the lease protects also compares tokens (Kleppmann, "How to do
//! distributed locking", 2016).

use crate::keys::RegionKeys as _;
use redis::Value;
use skywave_redis::{CallError, Malformed, Redis, Request, Script, reply, scripts};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

scripts! {
    /// All that leases run inside Redis.
    SCRIPTS:
    LEASE = Script::new("lease", &[include_str!("lease.lua")]);
}

/// For how long a lease is held without being renewed.
const DURATION: Duration = Duration::from_secs(3);
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// A renewal that failed is tried again after this.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Somebody who would hold a lease.
#[derive(Clone)]
pub struct Candidate {
    redis: Redis,
    key: String,
    holder: Arc<str>,
}

/// Why a lease cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Whoever holds it renews it.
    Renewed,
    /// Redis takes no writes for now.
    Unwritable,
}

/// What Redis answers to who asks for a lease.
enum Answer {
    Held {
        token: u64,
    },
    Taken {
        left: Duration,
    },
    /// It takes no writes for now.
    Unwritable,
}

impl Candidate {
    /// `holder` names one contender in one life: two tasks or processes never share it.
    pub fn new(redis: Redis, name: &str, holder: Arc<str>) -> Self {
        let key = redis.keys.lease(name);
        Self { redis, key, holder }
    }

    fn request(&self, action: &str, at_least: u64) -> Request {
        let duration_ms = DURATION.as_millis().to_string();
        let args = [action, &*self.holder, &duration_ms, &at_least.to_string()];
        Request::Script {
            script: &LEASE,
            keys: vec![self.key.clone()],
            args: args.map(|arg| arg.as_bytes().to_vec()).into(),
        }
    }

    async fn ask(&self, action: &str, at_least: u64) -> Result<Answer, CallError> {
        let value = self.redis.commands.call(self.request(action, at_least)).await?;
        answer(value).map_err(|error| {
            tracing::error!(%error, lease = self.key, "a lease cannot be read");
            CallError::Refused
        })
    }

    /// Waits until the lease is free, and takes it with a token of `at_least` so much.
    pub async fn acquire(&self, at_least: u64) -> Lease {
        loop {
            let asked = Instant::now();
            let pause = match self.ask("take", at_least).await {
                Ok(Answer::Held { token }) => return Lease::new(self.clone(), token, asked + DURATION),
                Ok(Answer::Taken { left }) => left.clamp(RETRY_INTERVAL, RENEW_INTERVAL),
                Ok(Answer::Unwritable) | Err(_) => RETRY_INTERVAL,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes the lease if it is free, or becomes free once its holder's time is over; `waits` is told how long that is.
    ///
    /// # Errors
    /// `Renewed` when its holder has renewed it meanwhile, `Unwritable` where nobody can take it now.
    pub(crate) async fn acquire_unless_renewed(&self, waits: impl Fn(Duration)) -> Result<Lease, Denied> {
        let mut has_waited = false;
        loop {
            let asked = Instant::now();
            let pause = match self.ask("take", 0).await {
                Ok(Answer::Held { token }) => return Ok(Lease::new(self.clone(), token, asked + DURATION)),
                Ok(Answer::Taken { .. }) if has_waited => return Err(Denied::Renewed),
                Ok(Answer::Unwritable) => return Err(Denied::Unwritable),
                Ok(Answer::Taken { left }) => {
                    has_waited = true;
                    waits(left);
                    left + RETRY_INTERVAL
                }
                Err(_) => RETRY_INTERVAL,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Renews until the lease is another's, has run out, or Redis has lost it.
    async fn keep(self, token: u64, mut until: Instant, lost: watch::Sender<bool>) {
        tokio::time::sleep(RENEW_INTERVAL).await;
        loop {
            let asked = Instant::now();
            let pause = match tokio::time::timeout_at(until, self.ask("renew", token)).await {
                Ok(Ok(Answer::Held { token: renewed })) if renewed == token => {
                    until = asked + DURATION;
                    RENEW_INTERVAL
                }
                Ok(Ok(Answer::Unwritable) | Err(_)) => RETRY_INTERVAL,
                // Another held it meanwhile, Redis lost it, or its time is over.
                Ok(Ok(_)) | Err(_) => break,
            };
            tokio::time::sleep_until(until.min(Instant::now() + pause)).await;
            if Instant::now() >= until {
                break;
            }
        }
        lost.send_replace(true);
    }
}

fn answer(value: Value) -> Result<Answer, Malformed> {
    let Value::Array(parts) = value else { return Err(Malformed("lease")) };
    let Ok([token, left]) = <[Value; 2]>::try_from(parts) else { return Err(Malformed("lease")) };
    let number = |value| reply::text(value)?.parse::<i64>().map_err(|_| Malformed("number"));
    let (token, left_ms) = (number(token)?.unsigned_abs(), number(left)?);
    Ok(match (token, u64::try_from(left_ms)) {
        (0, Ok(left_ms)) => Answer::Taken { left: Duration::from_millis(left_ms) },
        (0, Err(_)) => Answer::Unwritable,
        (token, _) => Answer::Held { token },
    })
}

/// A lease that is held, and renewed, until it is dropped, which gives it back.
pub struct Lease {
    candidate: Candidate,
    token: u64,
    lost: watch::Receiver<bool>,
    keeping: JoinHandle<()>,
}

impl Lease {
    fn new(candidate: Candidate, token: u64, until: Instant) -> Self {
        let (sender, lost) = watch::channel(false);
        let keeping = tokio::spawn(candidate.clone().keep(token, until, sender));
        Self { candidate, token, lost, keeping }
    }

    /// Higher than that of every earlier holder.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Resolves when the lease is lost.
    pub async fn lost(&self) {
        // An error means that nobody renews it any more.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeping.abort();
        if self.candidate.redis.commands.send(self.candidate.request("release", 0)).is_err() {
            tracing::debug!(lease = self.candidate.key, "a lease is not given back: it will run out");
        }
    }
}
