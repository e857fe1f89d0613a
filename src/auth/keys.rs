//! Keys that tokens are checked with, from a secret, a PEM file or a JSON Web Key.

use crate::config::Secret;
use aws_lc_rs::{
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey},
};
use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};

/// An RSA modulus has at least 2,048 bits.
const MIN_RSA_BYTES: usize = 2_048 / 8;
/// An uncompressed point on P-256.
const P256_POINT_BYTES: usize = 65;
/// An Ed25519 public key (RFC 8032).
const ED25519_BYTES: usize = 32;

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The file holds a private key, which has no place on a node that only checks tokens.
    #[error("this is a private key: configure the public one")]
    Private,
    /// The file is no PEM, or holds another kind of key.
    #[error("expected a PEM file with a public key: RSA of at least 2,048 bits, P-256, or Ed25519")]
    Unsupported,
    /// An RSA modulus shorter than 2,048 bits.
    #[error("an RSA key needs at least 2,048 bits")]
    Short,
}

/// A key and the one algorithm that it accepts.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub algorithm: Algorithm,
    pub(crate) decoding: DecodingKey,
    /// The id that a JWKS gives to the key.
    pub id: Option<String>,
}

impl Key {
    pub(crate) fn from_secret(secret: &Secret) -> Self {
        let decoding = DecodingKey::from_secret(secret.expose().as_bytes());
        Self { algorithm: Algorithm::HS256, decoding, id: None }
    }

    pub(crate) fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        if !pem.contains("PUBLIC KEY-----") {
            return Err(KeyError::Unsupported);
        }
        let pem = pem.as_bytes();
        if let Ok(decoding) = DecodingKey::from_ec_pem(pem) {
            return Self::checked(Algorithm::ES256, decoding);
        }
        if let Ok(decoding) = DecodingKey::from_ed_pem(pem) {
            return Self::checked(Algorithm::EdDSA, decoding);
        }
        let decoding = DecodingKey::from_rsa_pem(pem).map_err(|_| KeyError::Unsupported)?;
        Self::checked(Algorithm::RS256, decoding)
    }

    /// A key of a JWKS. A symmetric one is refused: a secret that is published is none.
    pub(crate) fn from_jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        let common = &jwk.common;
        let is_for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        let operations = common.key_operations.as_deref();
        let can_verify = operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return Err(KeyError::Unsupported),
        };
        let is_named =
            common.key_algorithm.is_none_or(|named| Algorithm::try_from(named).ok() == Some(algorithm));
        if !(is_for_signatures && can_verify && is_named) {
            return Err(KeyError::Unsupported);
        }
        let decoding = DecodingKey::from_jwk(jwk).map_err(|_| KeyError::Unsupported)?;
        let key = Self::checked(algorithm, decoding)?;
        Ok(Self { id: common.key_id.clone(), ..key })
    }

    fn checked(algorithm: Algorithm, decoding: DecodingKey) -> Result<Self, KeyError> {
        match (algorithm, decoding.kind()) {
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, .. }) => {
                let leading_zeros = n.iter().take_while(|byte| **byte == 0).count();
                check_rsa(n.len() - leading_zeros)?;
            }
            (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => {
                let key = rsa::PublicKey::from_der(der).map_err(|_| KeyError::Unsupported)?;
                check_rsa(key.modulus_len())?;
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
                let is_point = point.len() == P256_POINT_BYTES;
                if !is_point || ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_err() {
                    return Err(KeyError::Unsupported);
                }
            }
            (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(key)) if key.len() == ED25519_BYTES => {}
            _ => return Err(KeyError::Unsupported),
        }
        Ok(Self { algorithm, decoding, id: None })
    }
}

fn check_rsa(modulus_bytes: usize) -> Result<(), KeyError> {
    if modulus_bytes < MIN_RSA_BYTES { Err(KeyError::Short) } else { Ok(()) }
}
