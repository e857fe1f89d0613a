//! The claims of a token: what they may be, and what they grant.

use super::{AuthError, Grant, keys::Key, pattern::Pattern};
use crate::rights::{Right, Rights};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, Validation, dangerous::insecure_decode_claims, errors::ErrorKind};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A token may be this long, in bytes.
pub(super) const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// A user's name may be so long that `@user` is still a channel, in bytes.
const MAX_USER_BYTES: usize = 254;
/// `info` may be this long, in bytes of JSON.
const MAX_INFO_BYTES: usize = 4 * 1024;
/// A token may list so many patterns of channels.
const MAX_PATTERNS: usize = 128;
/// Clocks may differ by so much where a token is not valid yet. An expired token gets no such grace.
pub(super) const LEEWAY: Duration = Duration::from_secs(30);
/// The last second of the year 9999, the end of what a date can be.
const MAX_SECONDS: f64 = 253_402_300_799.0;

#[derive(Deserialize)]
struct Claims {
    sub: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    iat: Option<Value>,
    info: Option<Box<RawValue>>,
    channels: Option<Value>,
}

#[derive(Deserialize)]
struct ChannelClaim {
    r#match: String,
    allow: Vec<String>,
}

/// When a token says that it was issued, whoever it is from: nothing of it is checked.
pub(super) fn claimed_issue(token: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Issue {
        iat: Value,
    }
    let issue: Issue = insecure_decode_claims(token).ok()?;
    date(&issue.iat, "iat is no number").ok()
}

/// What every token is checked for, whatever its key.
#[derive(Debug)]
pub(super) struct Rules {
    pub audiences: Vec<String>,
    pub issuers: Vec<String>,
}

impl Rules {
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        // Times are checked here, against a clock that is passed in.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = !self.audiences.is_empty();
        let mut required = HashSet::from(["exp".to_owned()]);
        if !self.audiences.is_empty() {
            validation.set_audience(&self.audiences);
            required.insert("aud".to_owned());
        }
        if !self.issuers.is_empty() {
            validation.set_issuer(&self.issuers);
            required.insert("iss".to_owned());
        }
        validation.required_spec_claims = required;
        validation
    }

    /// Checks a token with one key. `None`: it was not signed by this key.
    pub(crate) fn check(&self, token: &str, key: &Key, now: SystemTime) -> Option<Result<Grant, AuthError>> {
        match jsonwebtoken::decode::<Claims>(token, &key.decoding, &self.validation(key.algorithm)) {
            Ok(data) => Some(grant(data.claims, now)),
            Err(error) => match error.kind() {
                ErrorKind::InvalidSignature => None,
                ErrorKind::InvalidAudience => Some(Err(AuthError::Invalid("it is for another audience"))),
                ErrorKind::InvalidIssuer => Some(Err(AuthError::Invalid("it is from another issuer"))),
                ErrorKind::MissingRequiredClaim(claim) => {
                    Some(Err(AuthError::Invalid(match claim.as_str() {
                        "aud" => "aud is missing",
                        "iss" => "iss is missing",
                        _ => "exp is missing",
                    })))
                }
                ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_) => {
                    Some(Err(AuthError::Invalid("a claim has the wrong type")))
                }
                _ => Some(Err(AuthError::Invalid("it is malformed"))),
            },
        }
    }
}

fn grant(claims: Claims, now: SystemTime) -> Result<Grant, AuthError> {
    let exp = claims.exp.ok_or(AuthError::Invalid("exp is missing"))?;
    let expires_at = date(&exp, "exp is no number")?;
    if expires_at <= now {
        return Err(AuthError::Expired);
    }
    for (begin, no_number, too_early) in [
        (claims.nbf, "nbf is no number", "it is not valid yet (nbf)"),
        (claims.iat, "iat is no number", "it was issued in the future (iat): clocks differ"),
    ] {
        let begin = begin.map(|begin| date(&begin, no_number)).transpose()?;
        if begin.is_some_and(|begin| begin > now + LEEWAY) {
            return Err(AuthError::Invalid(too_early));
        }
    }
    let info = claims.info.map(|info| Bytes::from(String::from(Box::<str>::from(info))));
    if info.as_ref().is_some_and(|info| info.len() > MAX_INFO_BYTES) {
        return Err(AuthError::Invalid("info is longer than 4,096 bytes"));
    }
    let listed: Option<Vec<ChannelClaim>> = claims
        .channels
        .map(serde_json::from_value)
        .transpose()
        .map_err(|_| AuthError::Invalid("channels is no list of objects with match and allow"))?;
    let listed = listed.unwrap_or_default();
    if listed.len() > MAX_PATTERNS {
        return Err(AuthError::Invalid("channels has more than 128 entries"));
    }
    let channels: Result<Arc<[_]>, _> = listed.into_iter().map(channel).collect();
    Ok(Grant {
        user: claims.sub.map(user).transpose()?,
        expires_at: Some(expires_at),
        info,
        channels: channels?,
    })
}

fn date(claim: &Value, no_number: &'static str) -> Result<SystemTime, AuthError> {
    let seconds = claim.as_f64().ok_or(AuthError::Invalid(no_number))?;
    if (0.0..=MAX_SECONDS).contains(&seconds) {
        Ok(UNIX_EPOCH + Duration::from_secs_f64(seconds))
    } else {
        Err(AuthError::Invalid("a date is out of range"))
    }
}

fn user(claim: Value) -> Result<Arc<str>, AuthError> {
    let Value::String(name) = claim else { return Err(AuthError::Invalid("sub is no text")) };
    if name.is_empty() || name.len() > MAX_USER_BYTES || name.chars().any(char::is_control) {
        return Err(AuthError::Invalid("sub must be 1 … 254 bytes without control characters"));
    }
    Ok(name.into())
}

fn channel(claim: ChannelClaim) -> Result<(Pattern, Rights), AuthError> {
    let pattern = Pattern::new(&claim.r#match).ok_or(AuthError::Invalid("match must be 1 … 255 bytes"))?;
    let rights: Option<Rights> = claim.allow.iter().map(|name| Right::from_name(name)).collect();
    Ok((pattern, rights.ok_or(AuthError::Invalid("allow names an unknown right"))?))
}
