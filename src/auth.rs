//! Who a session is and what it may do: tokens, keys, rights and resume secrets.

mod jwks;
mod keys;
pub mod mint;
pub mod pattern;
pub mod resume;
mod token;

use crate::{
    cause,
    config::AuthConfig,
    rights::{Right, Rights},
};
use bytes::Bytes;
use jsonwebtoken::Algorithm;
pub use jwks::{FetchError, Source};
use jwks::{Freshness, RemoteKeys, Timing, Web};
use keys::Key;
pub use keys::KeyError;
use pattern::Pattern;
use skywave_protocol::{CloseCode, channel::Channel};
use std::{path::PathBuf, sync::Arc, time::SystemTime};
use token::{LEEWAY, MAX_TOKEN_BYTES, Rules, claimed_issue};

/// A file with a key may be this long, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// Why tokens could not be checked with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file of `auth.public_key` could not be read.
    #[error("cannot read the key {path}: {source}", path = .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// A file of `auth.public_key` holds no key that can be used.
    #[error("cannot use the key {path}: {source}", path = .path.display())]
    Key { path: PathBuf, source: KeyError },
    /// No configured key fits any of the configured algorithms.
    #[error("auth.algorithms leaves no key that a token could be checked with")]
    NoAlgorithm,
    /// The client that fetches keys could not be made.
    #[error("cannot fetch keys: {}", cause::root(.0))]
    Client(#[source] reqwest::Error),
}

/// Why a token is not accepted. No variant holds anything of the token.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthError {
    /// It was good, and is over: the client gets a new one and comes back.
    #[error("the token has expired")]
    Expired,
    /// It is not good.
    #[error("the token is refused: {0}")]
    Invalid(&'static str),
    /// Its key may exist, but the keys could not be fetched just now.
    #[error("the keys of tokens cannot be fetched")]
    Unavailable,
    /// There is none, and no session is let in without.
    #[error("a token is needed")]
    Missing,
    /// It is good, but not of the user whose session is to be resumed.
    #[error("the session to resume is another user's")]
    OtherUser,
}

impl AuthError {
    /// A few words, out of a fixed number, for logs and metrics.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Expired => "it has expired",
            Self::Invalid(cause) => cause,
            Self::Unavailable => "its keys cannot be fetched",
            Self::Missing => "no token was given",
            Self::OtherUser => "the session to resume is another user's",
        }
    }

    /// What a session ends with that comes with such a token.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Expired => CloseCode::TokenExpired,
            Self::Invalid(_) | Self::Missing | Self::OtherUser => CloseCode::Unauthenticated,
            // Its keys may be there again in a moment.
            Self::Unavailable => CloseCode::Overloaded,
        }
    }
}

/// Checks tokens with the configured keys.
pub struct Authenticator {
    /// From the configuration: they have no id.
    fixed: Vec<Key>,
    remote: Option<Arc<RemoteKeys>>,
    algorithms: Vec<Algorithm>,
    rules: Rules,
    anonymous: bool,
}

impl Authenticator {
    /// Reads the keys that are files. Those that have a URL are fetched by [`Authenticator::run`], or when the first
    /// token needs them.
    pub fn new(config: &AuthConfig) -> Result<Self, SetupError> {
        Self::with_timing(config, Timing::default())
    }

    /// As [`Authenticator::new`], with keys that are fetched from `source` instead of the web.
    pub fn fetching(config: &AuthConfig, source: Box<dyn Source>) -> Result<Self, SetupError> {
        Self::with_source(config, Timing::default(), Some(source))
    }

    fn with_timing(config: &AuthConfig, timing: Timing) -> Result<Self, SetupError> {
        let web = config.jwks_url.clone().map(|url| Web::new(url, timing.timeout)).transpose();
        let web = web.map_err(SetupError::Client)?;
        Self::with_source(config, timing, web.map(|web| Box::new(web) as Box<dyn Source>))
    }

    fn with_source(
        config: &AuthConfig,
        timing: Timing,
        source: Option<Box<dyn Source>>,
    ) -> Result<Self, SetupError> {
        let mut fixed: Vec<Key> = config.hmac_secret.iter().map(Key::from_secret).collect();
        for path in &config.public_keys {
            fixed.push(read_key(path)?);
        }
        let has_key = config.has_key() || source.is_some();
        fixed.retain(|key| config.algorithms.contains(&key.algorithm));
        let remote = source.map(|source| Arc::new(RemoteKeys::new(source, timing)));
        let is_asymmetric = |algorithm: &Algorithm| *algorithm != Algorithm::HS256;
        let is_remote_of_use = remote.is_some() && config.algorithms.iter().any(is_asymmetric);
        if has_key && fixed.is_empty() && !is_remote_of_use {
            return Err(SetupError::NoAlgorithm);
        }
        Ok(Self {
            fixed,
            remote,
            algorithms: config.algorithms.clone(),
            rules: Rules { audiences: config.audiences.clone(), issuers: config.issuers.clone() },
            anonymous: config.anonymous,
        })
    }

    /// Keeps the keys that have a URL fresh; without any, it waits for ever.
    pub async fn run(&self) {
        match &self.remote {
            Some(remote) => remote.run().await,
            None => std::future::pending().await,
        }
    }

    /// What a session without a token may do; `None` when it is not let in.
    pub fn anonymous(&self) -> Option<Grant> {
        self.anonymous.then(Grant::default)
    }

    /// Checks a token that comes now. It may wait for keys to be fetched, a few seconds at most.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Grant, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Invalid("it is too long"));
        }
        // This is where `none` and whatever else is no signature fails: there is no such algorithm.
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid("it is malformed"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(AuthError::Invalid("its algorithm is not accepted"));
        }
        if header.crit.is_some() {
            return Err(AuthError::Invalid("it asks for an extension (crit)"));
        }
        let fitting = self.fixed.iter().filter(|key| key.algorithm == header.alg);
        if let Some(outcome) = self.check(token, fitting, now) {
            return outcome;
        }
        let Some(remote) = self.remote.as_ref().filter(|_| header.alg != Algorithm::HS256) else {
            return Err(AuthError::Invalid("no key fits its signature"));
        };
        self.verify_remote(remote, token, &header, now).await
    }

    async fn verify_remote(
        &self,
        remote: &Arc<RemoteKeys>,
        token: &str,
        header: &jsonwebtoken::Header,
        now: SystemTime,
    ) -> Result<Grant, AuthError> {
        // Without an id in the token, any key of its algorithm may be the one.
        let is_meant =
            |key: &&Key| key.algorithm == header.alg && (header.kid.is_none() || key.id == header.kid);
        let known = remote.current();
        let known = known.iter().flat_map(|keys| keys.iter()).filter(is_meant);
        if let Some(outcome) = self.check(token, known, now) {
            return outcome;
        }
        // Even if the key that it names is known: another may have taken its place under that id.
        let freshness = remote.refresh().await;
        let keys = remote.current();
        let keys = keys.iter().flat_map(|keys| keys.iter()).filter(is_meant);
        if let Some(outcome) = self.check(token, keys, now) {
            return outcome;
        }
        let has_key_by_now = match freshness {
            Freshness::Fresh => true,
            // Its key may have been published since, if the token is as young.
            Freshness::Aged(age) => claimed_issue(token).is_none_or(|issued| issued + LEEWAY + age < now),
            Freshness::Unknown => false,
        };
        Err(if has_key_by_now {
            AuthError::Invalid("no key fits its signature")
        } else {
            AuthError::Unavailable
        })
    }

    fn check<'k>(
        &self,
        token: &str,
        keys: impl Iterator<Item = &'k Key>,
        now: SystemTime,
    ) -> Option<Result<Grant, AuthError>> {
        keys.filter_map(|key| self.rules.check(token, key, now)).next()
    }
}

fn read_key(path: &PathBuf) -> Result<Key, SetupError> {
    use std::io::Read as _;
    let mut pem = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut pem))
        .map_err(|source| SetupError::Unreadable { path: path.clone(), source })?;
    Key::from_pem(&pem).map_err(|source| SetupError::Key { path: path.clone(), source })
}

/// What a session was granted when it came in. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// The user; absent for anonymous sessions.
    pub user: Option<Arc<str>>,
    /// When the token ends; absent without a token.
    pub expires_at: Option<SystemTime>,
    /// What presence shows of the user: JSON of at most 4,096 bytes.
    pub info: Option<Bytes>,
    channels: Arc<[(Pattern, Rights)]>,
}

impl Grant {
    /// The rights on a channel: those of the token's patterns and of `namespace_allow`, the `allow` of the channel's
    /// namespace, together.
    ///
    /// A user channel is read by its user alone, who needs no right for it. Nobody else may subscribe to it or see its
    /// history, whatever the token or the namespace says.
    pub fn rights(&self, namespace_allow: Rights, channel: &Channel) -> Rights {
        let matching = self.channels.iter().filter(|(pattern, _)| pattern.matches(channel));
        let rights = matching.fold(namespace_allow, |all, (_, rights)| all | *rights);
        let reading = Rights::from_iter([Right::Subscribe, Right::History]);
        match channel.user() {
            None => rights,
            Some(owner) if self.user.as_deref() == Some(owner) => rights | reading | Right::Presence.into(),
            Some(_) => rights.without(reading),
        }
    }

    /// Whether the session has this right on a channel; see [`Grant::rights`].
    pub fn allows(&self, namespace_allow: Rights, channel: &Channel, right: Right) -> bool {
        self.rights(namespace_allow, channel).contains(right)
    }
}

#[cfg(test)]
mod tests;
