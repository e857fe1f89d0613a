//! Resume secrets: they prove that a client was given a session, at any node that shares the session secret.

use crate::config::Secret;
use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A session can be resumed for so long after its secret was issued.
pub(crate) const RESUME_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// No secret is longer than this, in bytes: a session id of 64 bytes and a user of 254, escaped and encoded.
const MAX_RESUME_BYTES: usize = 4_096;
/// Keeps these signatures apart from any other use of the same secret.
const DOMAIN: &[u8] = b"skywave resume v1\0";
/// HMAC-SHA256 (RFC 2104).
const TAG_BYTES: usize = 32;

/// Why a resume secret is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeError {
    /// It is none, or was not signed with this node's `auth.session_secret`.
    Invalid,
    /// It was good.
    Expired,
}

impl ResumeError {
    /// A few words, out of a fixed number, for logs and metrics.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Invalid => "the resume secret is broken, or of other nodes",
            Self::Expired => "the resume secret has expired",
        }
    }
}

/// The key that signs and checks resume secrets.
pub struct ResumeKey(hmac::Key);

/// What a resume secret proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    pub session: String,
    /// Its user, if it has one.
    pub user: Option<String>,
    /// How many transports the session had when the secret was issued: the next one's number in their line.
    pub turn: u64,
}

/// The signed part, as JSON.
#[derive(Serialize, Deserialize)]
struct Claims<'a>(u64, std::borrow::Cow<'a, str>, Option<std::borrow::Cow<'a, str>>, u64);

impl ResumeKey {
    /// The key that belongs to `auth.session_secret`.
    pub fn new(session_secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, session_secret.expose().as_bytes()))
    }

    /// Signs a secret for a session whose next transport is the `turn`-th after its first, valid for
    /// [`RESUME_LIFETIME`] from `now`.
    pub fn issue(&self, session: &str, user: Option<&str>, turn: u64, now: SystemTime) -> String {
        let expires_at = seconds(now).saturating_add(RESUME_LIFETIME.as_secs());
        // An array of numbers and texts: serializing it cannot fail.
        let mut signed = serde_json::json!([expires_at, session, user, turn]).to_string().into_bytes();
        let tag = self.sign(&signed);
        signed.extend_from_slice(tag.as_ref());
        BASE64_URL_SAFE_NO_PAD.encode(signed)
    }

    /// Checks a secret.
    ///
    /// # Errors
    /// It is broken, forged or expired.
    pub fn verify(&self, secret: &str, now: SystemTime) -> Result<Resume, ResumeError> {
        let (expires_at, resume) = self.signed(secret).ok_or(ResumeError::Invalid)?;
        if seconds(now) < expires_at { Ok(resume) } else { Err(ResumeError::Expired) }
    }

    /// What a secret says and until when, in seconds since 1970, if it was signed with this key.
    fn signed(&self, secret: &str) -> Option<(u64, Resume)> {
        if secret.len() > MAX_RESUME_BYTES {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(secret).ok()?;
        let (signed, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        hmac::verify(&self.0, &[DOMAIN, signed].concat(), tag).ok()?;
        let Claims(expires_at, session, user, turn) = serde_json::from_slice(signed).ok()?;
        let resume = Resume { session: session.into_owned(), user: user.map(|user| user.into_owned()), turn };
        Some((expires_at, resume))
    }

    fn sign(&self, signed: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, &[DOMAIN, signed].concat())
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> ResumeKey {
        ResumeKey::new(&Secret::new("0123456789abcdef0123456789abcdef"))
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    #[test]
    fn a_secret_names_its_session_user_and_turn_until_it_expires() {
        let secret = key().issue("s-1", Some("alice"), 7, now());
        let resume = Resume { session: "s-1".into(), user: Some("alice".into()), turn: 7 };
        let last = now() + RESUME_LIFETIME - Duration::from_secs(1);
        assert_eq!(key().verify(&secret, now()), Ok(resume.clone()));
        assert_eq!(key().verify(&secret, last), Ok(resume));
        assert_eq!(key().verify(&secret, now() + RESUME_LIFETIME), Err(ResumeError::Expired));
    }

    #[test]
    fn another_session_secret_does_not_accept_it() {
        let other = ResumeKey::new(&Secret::new("another-secret-of-32-bytes-or-more"));
        assert_eq!(other.verify(&key().issue("s-1", None, 1, now()), now()), Err(ResumeError::Invalid));
    }

    #[test]
    fn a_signature_made_for_another_purpose_does_not_count() {
        let mut signed = b"[99999999999,\"s-1\",null,1]".to_vec();
        let tag = hmac::sign(&key().0, &signed);
        signed.extend_from_slice(tag.as_ref());
        let forged = BASE64_URL_SAFE_NO_PAD.encode(signed);
        assert_eq!(key().verify(&forged, now()), Err(ResumeError::Invalid));
    }

    proptest! {
        #[test]
        fn any_session_user_and_turn_come_back(
            session in ".{0,64}",
            user in proptest::option::of(".{0,254}"),
            turn: u64,
        ) {
            let secret = key().issue(&session, user.as_deref(), turn, now());
            let resume = key().verify(&secret, now());
            if secret.len() <= MAX_RESUME_BYTES {
                prop_assert_eq!(resume, Ok(Resume { session, user, turn }));
            }
        }

        #[test]
        fn a_secret_with_any_byte_changed_is_refused(index in any::<prop::sample::Index>(), other in 1u8..) {
            let secret = key().issue("s-1", Some("alice"), 1, now());
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(secret).unwrap();
            let index = index.index(bytes.len());
            bytes[index] ^= other;
            let other = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(key().verify(&other, now()), Err(ResumeError::Invalid));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            prop_assert_eq!(key().verify(&text, now()), Err(ResumeError::Invalid));
        }
    }
}
