//! Certificates for development are made.

use crate::world::{cert, refused, skywave};
use skywave::config::TlsConfig;

#[test]
fn cert_writes_a_certificate_with_its_key_and_prints_its_sha256() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("new/certs");
    let printed = cert(&out, &["--host", "example.test"]);
    let config = TlsConfig { certificate: out.join("certificate.pem"), key: out.join("key.pem") };
    let certified = skywave::certificate::load(&config).unwrap();
    assert_eq!(printed, skywave::certificate::sha256(&certified));
    let again = cert(&out, &[]);
    assert_ne!(again, printed);
    assert_eq!(again, skywave::certificate::sha256(&skywave::certificate::load(&config).unwrap()));
}

#[cfg(unix)]
#[test]
fn a_key_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key.pem");
    std::fs::write(&key, "an older key, open to all").unwrap();
    cert(directory.path(), &[]);
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_host_that_is_no_name_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    refused(&skywave(&["cert", "--out", out, "--host", "n\u{f6}name"], &[]));
}
