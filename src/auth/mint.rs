//! Makes tokens: for the command line, for tests, and for an application that has no other way yet.

use crate::{config::Secret, rights::Rights};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The text is no private key that can sign.
    #[error("expected a PEM file with a private key in PKCS#8: RSA, P-256 or Ed25519")]
    Key,
    /// Signing failed.
    #[error("cannot sign the token: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Signs tokens.
pub struct Minter {
    algorithm: Algorithm,
    key: EncodingKey,
}

/// What a token is to say.
#[derive(Debug)]
pub struct Claims {
    /// `sub`: the user; `None` for an anonymous one.
    pub user: Option<String>,
    /// `channels`: patterns, each with its rights.
    pub channels: Vec<(String, Rights)>,
    /// `info`: any JSON.
    pub info: Option<Box<RawValue>>,
    /// `aud`.
    pub audience: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// How long the token is valid.
    pub lifetime: Duration,
}

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<Channel<'a>>,
}

#[derive(Serialize)]
struct Channel<'a> {
    r#match: &'a str,
    allow: Vec<&'static str>,
}

impl Minter {
    /// Signs with HS256.
    pub fn from_secret(secret: &Secret) -> Self {
        let key = EncodingKey::from_secret(secret.expose().as_bytes());
        Self { algorithm: Algorithm::HS256, key }
    }

    /// Signs with what fits the private key: ES256, EdDSA or RS256.
    pub fn from_pem(pem: &[u8]) -> Result<Self, MintError> {
        if let Ok(key) = EncodingKey::from_ec_pem(pem) {
            return Ok(Self { algorithm: Algorithm::ES256, key });
        }
        if let Ok(key) = EncodingKey::from_ed_pem(pem) {
            return Ok(Self { algorithm: Algorithm::EdDSA, key });
        }
        let key = EncodingKey::from_rsa_pem(pem).map_err(|_| MintError::Key)?;
        Ok(Self { algorithm: Algorithm::RS256, key })
    }

    /// The algorithm of its signatures.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Makes a token that is valid from `now`.
    pub fn mint(&self, claims: &Claims, now: SystemTime) -> Result<String, MintError> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let allow = |rights: &Rights| rights.iter().map(|right| right.name()).collect();
        let payload = Payload {
            sub: claims.user.as_deref(),
            iat: now,
            exp: now.saturating_add(claims.lifetime.as_secs()),
            aud: claims.audience.as_deref(),
            iss: claims.issuer.as_deref(),
            info: claims.info.as_deref(),
            channels: claims
                .channels
                .iter()
                .map(|(pattern, rights)| Channel { r#match: pattern, allow: allow(rights) })
                .collect(),
        };
        Ok(jsonwebtoken::encode(&Header::new(self.algorithm), &payload, &self.key)?)
    }
}
