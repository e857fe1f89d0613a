//! The doctor's look at a certificate: what it says, and whether the public roots vouch for it.

use super::network::TIMEOUT;
use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use skywave_client::url::NodeUrl;
use std::{fmt, sync::Arc};
use time::OffsetDateTime;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

/// What a server's own certificate says.
#[derive(Debug, Serialize)]
pub(crate) struct Certificate {
    pub subject: String,
    /// The hosts that it is for.
    pub names: Vec<String>,
    #[serde(serialize_with = "date")]
    pub not_before: OffsetDateTime,
    #[serde(serialize_with = "date")]
    pub not_after: OffsetDateTime,
    /// Whole days until it ends; negative when it has.
    pub days_left: i64,
    #[serde(rename = "sha256", serialize_with = "as_hex")]
    pub digest: [u8; 32],
    /// Why the public roots do not vouch for it, if they do not.
    pub distrusted: Option<String>,
}

impl fmt::Display for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}, for {}, until {} ({} days left), SHA-256 {}",
            self.subject,
            self.names.join(" "),
            self.not_after.date(),
            self.days_left,
            hex(&self.digest)
        )
    }
}

fn date<S: Serializer>(date: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    let milliseconds = date.unix_timestamp().saturating_mul(1000);
    serializer
        .serialize_str(&crate::cli::terminal::timestamp(u64::try_from(milliseconds).unwrap_or_default()))
}

fn as_hex<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(digest))
}

pub(crate) fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of a certificate's DER.
pub(crate) fn digest(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// Shakes hands whatever the certificate is, to look at it. Nothing secret may be sent on this stream.
pub(crate) async fn look(
    url: &NodeUrl,
    stream: TcpStream,
) -> Result<(Certificate, TlsStream<TcpStream>), String> {
    let recorder = Arc::new(Recorder::new()?);
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(recorder.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(url.host().to_owned()).map_err(|error| error.to_string())?;
    let stream = timeout(TIMEOUT, TlsConnector::from(Arc::new(config)).connect(name, stream))
        .await
        .map_err(|_| "the TLS handshake does not end".to_owned())?
        .map_err(|error| format!("TLS handshake: {error}"))?;
    let seen = recorder.seen.lock().take();
    let (der, distrusted) = seen.ok_or("the server showed no certificate")?;
    Ok((read(&der, distrusted)?, stream))
}

fn read(der: &[u8], distrusted: Option<String>) -> Result<Certificate, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("not X.509: {error}"))?;
    let names = match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().map(name).collect(),
        Ok(None) => Vec::new(),
        Err(error) => return Err(format!("not X.509: {error}")),
    };
    let not_after = certificate.validity().not_after.to_datetime();
    Ok(Certificate {
        subject: certificate.subject().to_string(),
        names,
        not_before: certificate.validity().not_before.to_datetime(),
        not_after,
        days_left: (not_after - OffsetDateTime::now_utc()).whole_days(),
        digest: digest(der),
        distrusted,
    })
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(four), _) => std::net::Ipv4Addr::from(four).to_string(),
            (_, Ok(six)) => std::net::Ipv6Addr::from(six).to_string(),
            _ => "?".to_owned(),
        },
        other => other.to_string(),
    }
}

/// Takes every certificate, and notes it with what the public roots say of it.
#[derive(Debug)]
struct Recorder {
    public: Arc<WebPkiServerVerifier>,
    seen: Mutex<Option<(CertificateDer<'static>, Option<String>)>>,
}

impl Recorder {
    fn new() -> Result<Self, String> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let public = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { public, seen: Mutex::new(None) })
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict =
            self.public.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let distrusted = verdict.err().map(|error| error.to_string());
        *self.seen.lock() = Some((end_entity.clone().into_owned(), distrusted));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.public.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.public.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.public.supported_verify_schemes()
    }
}
