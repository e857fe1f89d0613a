//! `[auth]`: who may come in, and how the node knows them.

use super::{
    checks::{jwks_url, web_origin},
    section::Section,
};
use crate::redis::Secret;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use reqwest::Url;
use std::path::PathBuf;

/// The signature algorithms that a token may use.
pub const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// `[auth]`. Several keys may be configured together; each accepts only the algorithms that fit it. A list that is
/// given names at least one.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// `hmac_secret` or `hmac_secret_file`: for HS256; at least 32 bytes.
    pub hmac_secret: Option<Secret>,
    /// `public_key`: PEM files with public keys: RSA of at least 2,048 bits, P-256, or Ed25519. One path or a list.
    pub public_keys: Vec<PathBuf>,
    /// `jwks_url`: where a JSON Web Key Set (RFC 7517) is fetched; https, or http on loopback.
    pub jwks_url: Option<Url>,
    /// `algorithms`: of `HS256`, `RS256`, `ES256`, `EdDSA`, those that are accepted. Default: all that fit the keys.
    pub algorithms: Vec<Algorithm>,
    /// `audience`: a token's `aud` must name one of these. Default: not checked.
    pub audiences: Vec<String>,
    /// `issuer`: a token's `iss` must be one of these. Default: not checked.
    pub issuers: Vec<String>,
    /// `anonymous`: let sessions without a token in, with the rights that the namespaces allow. Default: false, with
    /// `--dev` true.
    pub anonymous: bool,
    /// `allowed_origins`: pages that may connect. Default: any, because a token travels in a frame and never in a
    /// cookie.
    pub allowed_origins: Vec<String>,
    /// `session_secret` or `session_secret_file`: signs resume secrets; at least 32 bytes; the same on all nodes of
    /// all regions. Default: random, which is enough for a single node.
    pub session_secret: Secret,
    /// `api_key` or `api_key_file`: for the admin API; at least 16 bytes of printable ASCII. Absent: the admin listener
    /// must be on loopback, and asks for no key.
    pub api_key: Option<Secret>,
}

impl AuthConfig {
    pub(super) fn read(section: &mut Section<'_>, dev: bool) -> Self {
        Self {
            hmac_secret: section.secret("hmac_secret", 32),
            public_keys: section
                .list("public_key", non_empty)
                .unwrap_or_default()
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            jwks_url: section.parsed("jwks_url", jwks_url),
            algorithms: algorithms(section),
            audiences: section.list("audience", non_empty).unwrap_or_default(),
            issuers: section.list("issuer", non_empty).unwrap_or_default(),
            anonymous: section.boolean("anonymous").unwrap_or(dev),
            allowed_origins: section.list("allowed_origins", web_origin).unwrap_or_default(),
            session_secret: section.secret("session_secret", 32).unwrap_or_else(random_secret),
            api_key: api_key(section),
        }
    }

    /// Whether a page of this origin may connect. Clients that are no browser send no origin, and are let in.
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let is_listed = |allowed: &String| allowed.eq_ignore_ascii_case(origin);
        self.allowed_origins.is_empty() || self.allowed_origins.iter().any(is_listed)
    }

    /// Whether any key is configured that a token could be checked with.
    pub fn has_key(&self) -> bool {
        self.hmac_secret.is_some() || !self.public_keys.is_empty() || self.jwks_url.is_some()
    }
}

/// 256 bits of entropy, as base64url.
#[allow(clippy::disallowed_methods, reason = "whoever runs a node can name its secret")]
fn random_secret() -> Secret {
    let bytes: [u8; 32] = rand::random();
    Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn non_empty(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("must not be empty") } else { Ok(text.to_owned()) }
}

/// A key that requests can bring in a header.
fn api_key(section: &mut Section<'_>) -> Option<Secret> {
    let key = section.secret("api_key", 16)?;
    let is_printable = key.expose().bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_printable && key.expose().trim() == key.expose() {
        return Some(key);
    }
    let given = if section.is_set("api_key") { "api_key" } else { "api_key_file" };
    section.add(given, "expected printable ASCII without blanks at its ends: it is sent in a header");
    None
}

fn algorithms(section: &mut Section<'_>) -> Vec<Algorithm> {
    let parse = |text: &str| {
        let known = ALGORITHMS.iter().find(|(name, _)| *name == text);
        known.map(|(_, algorithm)| *algorithm).ok_or("expected HS256, RS256, ES256 or EdDSA")
    };
    section
        .list("algorithms", parse)
        .unwrap_or_else(|| ALGORITHMS.iter().map(|(_, algorithm)| *algorithm).collect())
}
