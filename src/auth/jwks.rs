//! The keys of a JSON Web Key Set (RFC 7517), fetched from its URL, kept, and fetched again when that helps.

use super::keys::Key;
use crate::cause;
use arc_swap::ArcSwapOption;
use futures_util::{FutureExt, future::BoxFuture};
use jsonwebtoken::jwk::Jwk;
use reqwest::Url;
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// A key set may be this long, in bytes …
const MAX_SET_BYTES: usize = 256 * 1024;
/// … and hold so many keys.
const MAX_KEYS: usize = 100;

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// A fetch must be done within this time.
    pub timeout: Duration,
    /// Between the beginnings of two fetches lies at least this time.
    pub(crate) floor: Duration,
    /// Keys are fetched again after this time, so that a withdrawn one is forgotten.
    pub period: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            floor: Duration::from_secs(10),
            period: Duration::from_secs(300),
        }
    }
}

/// Where a key set comes from.
pub trait Source: Send + Sync {
    /// What is there now: a JSON Web Key Set. It gives up by itself.
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>>;
}

/// Why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the request failed: {}", cause::root(.0))]
    Request(#[source] reqwest::Error),
    #[error("the answer is {0}")]
    Status(reqwest::StatusCode),
    #[error("the answer is longer than {MAX_SET_BYTES} bytes")]
    TooLong,
    #[error("the answer is no JSON Web Key Set of up to {MAX_KEYS} keys")]
    Malformed,
    #[error("the answer holds no key that could be used")]
    NoKey,
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error.without_url())
    }
}

/// What the last fetch came to.
#[derive(Clone, Copy)]
struct Attempt {
    began: Instant,
    is_success: bool,
}

/// How far the keys at hand are what their URL has to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// They are.
    Fresh,
    /// They were so long ago; what was published since may be missing.
    Aged(Duration),
    /// They could not be fetched.
    Unknown,
}

/// A key set that is kept fresh.
pub(super) struct RemoteKeys {
    source: Box<dyn Source>,
    timing: Timing,
    /// Absent until the first fetch that succeeded. A failed one leaves it alone.
    keys: ArcSwapOption<Vec<Key>>,
    /// Held while fetching, so that there is one fetch at a time.
    last: Mutex<Option<Attempt>>,
}

/// A key set on the web, reached by sockets of its client's own.
pub(super) struct Web {
    url: Url,
    client: reqwest::Client,
}

impl Web {
    pub(crate) fn new(url: Url, timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(timeout);
        // A proxy has no business with an address of this machine.
        // Nor is there anybody to be vouched for, and a container may hold no authorities that could.
        let client = if url.scheme() == "http" { client.no_proxy().tls_certs_only([]) } else { client };
        Ok(Self { url, client: client.build()? })
    }

    async fn get(&self) -> Result<Vec<u8>, FetchError> {
        let mut response = self.client.get(self.url.clone()).send().await?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_SET_BYTES {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl Source for Web {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        self.get().boxed()
    }
}

impl RemoteKeys {
    pub(crate) fn new(source: Box<dyn Source>, timing: Timing) -> Self {
        Self { source, timing, keys: ArcSwapOption::empty(), last: Mutex::new(None) }
    }

    /// The keys at hand, which may be old; `None` when there never were any.
    pub(crate) fn current(&self) -> Option<Arc<Vec<Key>>> {
        self.keys.load_full()
    }

    /// Fetches the keys anew, unless that was done a moment ago or is being done: then its outcome counts.
    pub(crate) async fn refresh(self: &Arc<Self>) -> Freshness {
        let (this, asked) = (self.clone(), Instant::now());
        // A task of its own: a client that goes away in the middle must not spoil the fetch for everyone.
        tokio::spawn(async move { this.refresh_once(asked).await }).await.unwrap_or(Freshness::Unknown)
    }

    async fn refresh_once(&self, asked: Instant) -> Freshness {
        let mut last = self.last.lock().await;
        if let Some(Attempt { began, is_success }) = *last
            && (began >= asked || began.elapsed() < self.timing.floor)
        {
            return match is_success {
                false => Freshness::Unknown,
                true if began >= asked => Freshness::Fresh,
                true => Freshness::Aged(began.elapsed()),
            };
        }
        let began = Instant::now();
        let freshness = match self.fetch().await {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "fetched the keys of tokens");
                self.keys.store(Some(Arc::new(keys)));
                Freshness::Fresh
            }
            Err(error) => {
                tracing::warn!(%error, kept = self.keys.load().is_some(), "cannot fetch the keys of tokens");
                Freshness::Unknown
            }
        };
        *last = Some(Attempt { began, is_success: freshness == Freshness::Fresh });
        freshness
    }

    /// Keeps the keys fresh, for ever.
    pub(crate) async fn run(self: &Arc<Self>) {
        loop {
            let pause = match self.refresh().await {
                Freshness::Fresh | Freshness::Aged(_) => self.timing.period,
                Freshness::Unknown => self.timing.floor,
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, FetchError> {
        parse(&self.source.fetch().await?)
    }
}

/// Reads a set. A key of a kind that is not known is passed over: the set may serve others as well.
fn parse(body: &[u8]) -> Result<Vec<Key>, FetchError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let Ok(set) = serde_json::from_slice::<Set>(body) else { return Err(FetchError::Malformed) };
    if set.keys.len() > MAX_KEYS {
        return Err(FetchError::Malformed);
    }
    let mut keys = Vec::new();
    for value in set.keys {
        let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
            tracing::debug!("passed over a malformed key of the set");
            continue;
        };
        match Key::from_jwk(&jwk) {
            Ok(key) => keys.push(key),
            Err(error) => tracing::debug!(id = ?jwk.common.key_id, %error, "passed over a key of the set"),
        }
    }
    if keys.is_empty() { Err(FetchError::NoKey) } else { Ok(keys) }
}

#[cfg(test)]
mod tests;
