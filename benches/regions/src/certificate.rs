//! The certificate of all nodes, which clients know by its hash.

use anyhow::Context;
use rcgen::{CertificateParams, KeyPair};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Browsers and clients take a certificate by its hash for no longer than 14 days.
const VALIDITY: Duration = Duration::from_hours(13 * 24);
/// Clocks may be off.
const BACKDATING: Duration = Duration::from_hours(1);

#[derive(Debug, Clone)]
pub struct Certificate {
    /// PEM files.
    pub chain: PathBuf,
    pub key: PathBuf,
    pub sha256: [u8; 32],
}

impl Certificate {
    /// A new one, in files of `directory`.
    ///
    /// # Errors
    /// When it cannot be generated or written.
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.not_before = (std::time::SystemTime::now() - BACKDATING).into();
        params.not_after = params.not_before + VALIDITY;
        let certificate = params.self_signed(&pair).context("no certificate")?;
        let files = Self {
            chain: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
            sha256: Sha256::digest(certificate.der()).into(),
        };
        fs::write(&files.chain, certificate.pem())?;
        fs::write(&files.key, pair.serialize_pem())?;
        Ok(files)
    }
}
