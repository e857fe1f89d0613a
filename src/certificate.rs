//! The certificate of the public listener: made for development, or read from files and read again when they change.

use crate::{config::TlsConfig, host::WallClock};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::{
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Browsers accept a certificate by its hash when it is valid for 14 days at most (W3C WebTransport, custom certificate
/// requirements). One day is left for clocks that differ.
pub(crate) const DEV_LIFETIME: Duration = Duration::from_secs(13 * 86_400);
/// A fresh certificate is valid from this long ago, for clients whose clocks are behind.
const BACKDATING: Duration = Duration::from_secs(3_600);
/// A PEM file may be this long, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The log tells of a certificate that ends within this time, or within a tenth of its lifetime where that is less:
/// nobody has renewed it.
const SOON: Duration = Duration::from_secs(3 * 86_400);
/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// A file is too long to be a certificate or a key.
    #[error("{path} is longer than {MAX_FILE_BYTES} bytes", path = .0.display())]
    TooLong(PathBuf),
    /// The file of the certificate holds none.
    #[error("{path} holds no certificate in PEM", path = .0.display())]
    NoCertificate(PathBuf),
    /// The file of the key holds none.
    #[error("{path} holds no private key in PEM", path = .0.display())]
    NoKey(PathBuf),
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("cannot use the certificate with its key: {0}")]
    Unusable(#[from] rustls::Error),
    /// No certificate could be made, most likely for a host that is no name.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A certificate for development, signed by its own key: ECDSA on P-256, valid for [`DEV_LIFETIME`].
pub struct DevCertificate {
    pub certificate_pem: String,
    /// In PKCS#8.
    pub key_pem: String,
    /// Both, for a listener.
    pub certified: CertifiedKey,
}

impl DevCertificate {
    /// Makes one for `localhost`, `127.0.0.1`, `::1` and the given host names or addresses.
    pub fn generate(hosts: &[String], now: SystemTime) -> Result<Self, CertificateError> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
        names.extend(
            hosts.iter().filter(|host| !["localhost", "127.0.0.1", "::1"].contains(&host.as_str())).cloned(),
        );
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "skywave development");
        params.not_before = (now - BACKDATING).into();
        params.not_after = (now - BACKDATING + DEV_LIFETIME).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let certified = certified(vec![certificate.der().clone()], private)?;
        Ok(Self { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), certified })
    }
}

impl fmt::Debug for DevCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DevCertificate")
            .field("sha256", &sha256(&self.certified))
            .finish_non_exhaustive()
    }
}

/// The SHA-256 of the DER of the node's own certificate, in lower-case hex: what a browser takes in
/// `serverCertificateHashes`.
pub fn sha256(certified: &CertifiedKey) -> String {
    let own = certified.cert.first().map_or(&[][..], |certificate| certificate.as_ref());
    Sha256::digest(own).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is wrong with the time of the node's own certificate.
fn term(certified: &CertifiedKey, now: SystemTime) -> Option<&'static str> {
    let (_, certificate) = X509Certificate::from_der(certified.cert.first()?).ok()?;
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    let validity = certificate.validity();
    let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let soon = (ends.saturating_sub(begins) / 10).min(SOON.as_secs() as i64);
    match ends.saturating_sub(now) {
        _ if now < begins => Some("is not valid yet, by this machine's clock"),
        ..=0 => Some("has expired"),
        left if left <= soon => Some("expires soon"),
        _ => None,
    }
}

/// Reads a certificate with its chain, and the key that belongs to it.
pub fn load(config: &TlsConfig) -> Result<CertifiedKey, CertificateError> {
    Files::read(config)?.parse(config)
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, CertificateError> {
    Ok(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?)
}

/// What the two files hold.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(config: &TlsConfig) -> Result<Self, CertificateError> {
        Ok(Self { certificate: read(&config.certificate)?, key: read(&config.key)? })
    }

    fn parse(&self, config: &TlsConfig) -> Result<CertifiedKey, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.unwrap_or_default();
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate(config.certificate.clone()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| CertificateError::NoKey(config.key.clone()))?;
        certified(chain, key)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(CertificateError::TooLong(path.to_owned()));
    }
    Ok(bytes)
}

/// Gives each handshake the certificate of the moment.
pub struct CertificateResolver {
    current: ArcSwap<CertifiedKey>,
    source: Option<Source>,
}

/// The files, and what they held when they were last read, good or not.
struct Source {
    config: TlsConfig,
    last_read: Mutex<Option<Files>>,
}

impl CertificateResolver {
    /// Always the same certificate.
    pub fn fixed(certified: CertifiedKey) -> Self {
        Self { current: ArcSwap::from_pointee(certified), source: None }
    }

    /// The certificate of these files, which must be good now. [`CertificateResolver::run`] follows their changes.
    pub(crate) fn from_files(config: TlsConfig) -> Result<Self, CertificateError> {
        let files = Files::read(&config)?;
        let current = ArcSwap::from_pointee(files.parse(&config)?);
        Ok(Self { current, source: Some(Source { config, last_read: Mutex::new(Some(files)) }) })
    }

    /// The certificate of the moment.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.current.load_full()
    }

    /// Reads the files, and takes their certificate if they changed since they were last read; says whether it did. On
    /// an error the certificate stays. Files that have not changed since an error are not an error again.
    pub(crate) fn reload(&self) -> Result<bool, CertificateError> {
        let Some(source) = &self.source else { return Ok(false) };
        let mut last_read = source.last_read.lock();
        let files = match Files::read(&source.config) {
            Ok(files) => files,
            // Told once; and whatever comes back is looked at anew.
            Err(_) if last_read.is_none() => return Ok(false),
            Err(error) => {
                *last_read = None;
                return Err(error);
            }
        };
        if last_read.as_ref() == Some(&files) {
            return Ok(false);
        }
        let outcome = files.parse(&source.config);
        *last_read = Some(files);
        self.current.store(Arc::new(outcome?));
        Ok(true)
    }

    /// Follows the files, for ever. Both need not change at once: between a new certificate and its new key, the old
    /// ones stay. The log tells of a certificate whose time is over, or almost.
    pub async fn run(self: Arc<Self>, clock: WallClock) {
        let mut told = None;
        loop {
            let term = term(&self.current(), clock.now());
            if let Some(term) = term.filter(|_| term != told) {
                tracing::error!(
                    sha256 = sha256(&self.current()),
                    "the certificate {term}: clients take none that is not valid"
                );
            }
            told = term;
            tokio::time::sleep(POLL_INTERVAL).await;
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.reload()).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => tracing::info!(sha256 = sha256(&self.current()), "took the new certificate"),
                Ok(Err(error)) => {
                    tracing::error!(%error, "cannot take the new certificate; the old one stays")
                }
                Err(error) => tracing::error!(%error, "cannot look at the certificate"),
            }
        }
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CertificateResolver")
            .field("sha256", &sha256(&self.current()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
    use rustls_pki_types::{ServerName, UnixTime};
    use std::fs;

    fn dev(hosts: &[&str]) -> DevCertificate {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        DevCertificate::generate(&hosts, SystemTime::now()).unwrap()
    }

    /// Two files in a directory of their own.
    struct Directory {
        config: TlsConfig,
        _directory: tempfile::TempDir,
    }

    impl Directory {
        fn with(certificate: &DevCertificate) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let config = TlsConfig {
                certificate: directory.path().join("certificate.pem"),
                key: directory.path().join("key.pem"),
            };
            let this = Self { config, _directory: directory };
            this.write(&certificate.certificate_pem, &certificate.key_pem);
            this
        }

        fn write(&self, certificate: &str, key: &str) {
            fs::write(&self.config.certificate, certificate).unwrap();
            fs::write(&self.config.key, key).unwrap();
        }
    }

    #[derive(Debug)]
    struct At(SystemTime);

    impl rustls::time_provider::TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            self.0.duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
        }
    }

    /// Shakes hands in memory with a client that trusts this certificate alone; gives what the server showed.
    fn handshake(
        resolver: &Arc<CertificateResolver>,
        trusted: &CertifiedKey,
        host: &str,
        at: SystemTime,
    ) -> Result<Vec<u8>, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        let mut roots = RootCertStore::empty();
        roots.add(trusted.cert[0].clone())?;
        let client = ClientConfig::builder_with_details(provider, Arc::new(At(at)))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        let mut bytes = Vec::new();
        while client.is_handshaking() {
            bytes.clear();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(client.peer_certificates().unwrap()[0].to_vec())
    }

    #[test]
    fn a_dev_certificate_is_good_for_this_machine_and_the_given_hosts() {
        let certificate = dev(&["example.test", "192.0.2.7", "localhost"]).certified;
        let resolver = Arc::new(CertificateResolver::fixed(certificate.clone()));
        for host in ["localhost", "127.0.0.1", "::1", "example.test", "192.0.2.7"] {
            handshake(&resolver, &certificate, host, SystemTime::now()).unwrap();
        }
        assert!(handshake(&resolver, &certificate, "other.test", SystemTime::now()).is_err());
    }

    #[test]
    fn a_dev_certificate_is_valid_for_thirteen_days_at_most() {
        let now = SystemTime::now();
        let certificate = DevCertificate::generate(&[], now).unwrap().certified;
        let resolver = Arc::new(CertificateResolver::fixed(certificate.clone()));
        let day = Duration::from_secs(86_400);
        for good in [now - Duration::from_secs(3_000), now, now + 12 * day] {
            handshake(&resolver, &certificate, "localhost", good).unwrap();
        }
        for bad in [now - 2 * BACKDATING, now + DEV_LIFETIME] {
            assert!(handshake(&resolver, &certificate, "localhost", bad).is_err());
        }
    }

    #[test]
    fn a_certificate_whose_time_is_over_or_almost_is_told_of() {
        let now = SystemTime::now();
        let certificate = DevCertificate::generate(&[], now).unwrap().certified;
        let day = Duration::from_secs(86_400);
        let told = |at| term(&certificate, at);
        assert_eq!((told(now), told(now + 11 * day)), (None, None));
        assert_eq!(told(now + 12 * day), Some("expires soon"));
        assert_eq!(told(now + 13 * day), Some("has expired"));
        assert!(told(now - day).unwrap().contains("not valid yet"));
    }

    #[test]
    fn a_host_that_is_no_name_is_refused() {
        assert!(DevCertificate::generate(&["n\u{f6}name".to_owned()], SystemTime::now()).is_err());
    }

    #[test]
    fn the_sha256_is_that_of_the_der_in_hex() {
        let certificate = dev(&[]);
        let der = CertificateDer::from_pem_slice(certificate.certificate_pem.as_bytes()).unwrap();
        let expected: String = Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sha256(&certificate.certified), expected);
        assert_eq!(expected.len(), 64);
    }

    #[test]
    fn a_changed_certificate_is_taken_for_the_next_handshake() {
        let (old, new) = (dev(&[]), dev(&[]));
        let files = Directory::with(&old);
        let resolver = Arc::new(CertificateResolver::from_files(files.config.clone()).unwrap());
        let shown = |trusted| handshake(&resolver, trusted, "localhost", SystemTime::now()).unwrap();
        assert_eq!(shown(&old.certified), old.certified.cert[0].to_vec());
        assert!(!resolver.reload().unwrap());
        files.write(&new.certificate_pem, &new.key_pem);
        assert!(resolver.reload().unwrap());
        assert_eq!(shown(&new.certified), new.certified.cert[0].to_vec());
    }

    #[test]
    fn broken_files_are_told_once_and_the_old_certificate_stays() {
        let (old, new) = (dev(&[]), dev(&[]));
        let files = Directory::with(&old);
        let resolver = CertificateResolver::from_files(files.config.clone()).unwrap();
        for (certificate, key) in [
            ("", old.key_pem.as_str()),
            (&new.certificate_pem[..200], &old.key_pem),
            (&old.certificate_pem, "no key"),
            (&new.certificate_pem, &old.key_pem),
        ] {
            files.write(certificate, key);
            assert!(resolver.reload().is_err());
            assert!(!resolver.reload().unwrap());
            assert_eq!(sha256(&resolver.current()), sha256(&old.certified));
        }
        files.write(&new.certificate_pem, &new.key_pem);
        assert!(resolver.reload().unwrap());
        assert_eq!(sha256(&resolver.current()), sha256(&new.certified));
    }

    #[test]
    fn files_that_vanish_are_told_once_and_taken_when_they_come_back() {
        let (old, new) = (dev(&[]), dev(&[]));
        let files = Directory::with(&old);
        let resolver = CertificateResolver::from_files(files.config.clone()).unwrap();
        fs::remove_file(&files.config.key).unwrap();
        assert!(matches!(resolver.reload(), Err(CertificateError::Unreadable { .. })));
        assert!(!resolver.reload().unwrap());
        files.write(&new.certificate_pem, &new.key_pem);
        assert!(resolver.reload().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_node_takes_a_changed_certificate_by_itself() {
        let (old, new) = (dev(&[]), dev(&[]));
        let files = Directory::with(&old);
        let resolver = Arc::new(CertificateResolver::from_files(files.config.clone()).unwrap());
        let task = tokio::spawn(resolver.clone().run(WallClock::machine()));
        files.write(&new.certificate_pem, &new.key_pem);
        let wait = async {
            while sha256(&resolver.current()) != sha256(&new.certified) {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::time::timeout(100 * POLL_INTERVAL, wait).await.unwrap();
        task.abort();
    }

    #[test]
    fn files_that_are_wrong_from_the_start_are_refused_by_name() {
        let (one, two) = (dev(&[]), dev(&[]));
        let files = Directory::with(&one);
        files.write(&one.certificate_pem, &two.key_pem);
        assert!(matches!(load(&files.config), Err(CertificateError::Unusable(_))));
        files.write(&one.key_pem, &one.key_pem);
        assert!(matches!(load(&files.config), Err(CertificateError::NoCertificate(_))));
        files.write(&one.certificate_pem, &one.certificate_pem);
        assert!(matches!(load(&files.config), Err(CertificateError::NoKey(_))));
        fs::remove_file(&files.config.certificate).unwrap();
        let error = load(&files.config).unwrap_err().to_string();
        assert!(error.contains("certificate.pem"), "{error}");
    }

    #[test]
    fn no_key_shows_in_debug_output() {
        let certificate = dev(&[]);
        let resolver = CertificateResolver::fixed(certificate.certified.clone());
        let shown = format!("{certificate:?} {resolver:?}");
        assert!(!shown.contains("PRIVATE") && shown.contains(&sha256(&certificate.certified)));
    }
}
