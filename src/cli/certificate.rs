//! `cert`: a certificate for development.

use super::{terminal::print_line, usage};
use anyhow::Context as _;
use clap::Args;
use skywave::certificate::{self, DevCertificate};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

#[derive(Debug, Args)]
pub(crate) struct CertificateArguments {
    /// The directory to write to; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "certs")]
    out: PathBuf,
    /// Another host name or address, besides localhost, 127.0.0.1 and ::1; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
}

pub(crate) fn make(arguments: &CertificateArguments) -> anyhow::Result<()> {
    let certificate = DevCertificate::generate(&arguments.hosts, SystemTime::now()).map_err(usage)?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make the directory {}", arguments.out.display()))?;
    write(&arguments.out.join("key.pem"), &certificate.key_pem, 0o600)?;
    write(&arguments.out.join("certificate.pem"), &certificate.certificate_pem, 0o644)?;
    print_line(&certificate::sha256(&certificate.certified))
}

/// Writes a file beside its place and moves it there: nobody sees half of it, or a key before its mode is set.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let beside = path.with_extension("pem.new");
    let outcome = (|| {
        // Left by a run that was cut off.
        if beside.exists() {
            std::fs::remove_file(&beside)?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        let mut file = options.open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    outcome.with_context(|| format!("cannot write {}", path.display()))
}
