//! TLS: how a node's certificate is judged.

use crate::url::NodeUrl;
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::danger::ServerCertVerifier,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use std::sync::Arc;
use wtransport::tls::{
    Sha256Digest, WEBTRANSPORT_ALPN,
    client::{NoServerVerification, ServerHashVerification},
};

/// How a node proves that it is who it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CertificateCheck {
    /// A chain to one of Mozilla's root certificates, for the URL's host.
    #[default]
    WebPki,
    /// The certificate itself, by the SHA-256 of its DER form; any in the list will do. The rules are
    /// those of a browser's `serverCertificateHashes`: ECDSA P-256, valid now, for at most 14 days.
    Sha256(Vec<[u8; 32]>),
    /// No check at all; only for a node on this machine, refused for any other host.
    Insecure,
}

/// TLS cannot be used as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    #[error("certificates may only be left unchecked on a loopback host, not on {host}")]
    InsecureHost { host: String },
    #[error("TLS configuration: {0}")]
    Configuration(#[from] rustls::Error),
}

impl CertificateCheck {
    /// # Errors
    /// `InsecureHost` when certificates are not checked and the host is another machine.
    pub fn permits(&self, url: &NodeUrl) -> Result<(), TlsError> {
        if *self == Self::Insecure && url.is_tls() && !url.is_loopback() {
            return Err(TlsError::InsecureHost { host: url.host().to_owned() });
        }
        Ok(())
    }

    fn verifier(&self) -> Option<Arc<dyn ServerCertVerifier>> {
        match self {
            Self::WebPki => None,
            Self::Sha256(digests) => {
                let digests = digests.iter().map(|digest| Sha256Digest::new(*digest));
                Some(Arc::new(ServerHashVerification::new(digests)))
            }
            Self::Insecure => Some(Arc::new(NoServerVerification::new())),
        }
    }
}

/// The TLS configurations of one client, built once.
#[derive(Debug, Clone)]
pub(crate) struct TlsConfigs {
    pub quic: ClientConfig,
    pub http1: Arc<ClientConfig>,
    pub http2: Arc<ClientConfig>,
}

impl TlsConfigs {
    pub(crate) fn new(check: &CertificateCheck) -> Result<Self, TlsError> {
        Ok(Self {
            quic: configure(check, &[&TLS13], WEBTRANSPORT_ALPN)?,
            http1: Arc::new(configure(check, &[&TLS13, &TLS12], b"http/1.1")?),
            http2: Arc::new(configure(check, &[&TLS13, &TLS12], b"h2")?),
        })
    }
}

fn configure(
    check: &CertificateCheck,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[u8],
) -> Result<ClientConfig, TlsError> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if let Some(verifier) = check.verifier() {
        config.dangerous().set_certificate_verifier(verifier);
    }
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}
