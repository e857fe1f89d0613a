//! `[tls]`: the certificate of the public listener.

use super::section::Section;
use std::path::PathBuf;

/// `[tls]`: the certificate of the public listener, reloaded when the files change.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// `certificate`: a PEM file with the chain, the node's own certificate first. Relative to the working directory.
    pub certificate: PathBuf,
    /// `key`: a PEM file with the private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

impl TlsConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let (certificate, key) = (section.text("certificate"), section.text("key"));
        for (given, missing) in [("certificate", "key"), ("key", "certificate")] {
            if section.is_set(given) && !section.is_set(missing) {
                section.add(missing, format!("is missing beside {given}"));
            }
        }
        Some(Self { certificate: certificate?.into(), key: key?.into() })
    }
}
