//! The command line: what a person or a service manager asks of the binary.
use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use jsonwebtoken::Algorithm;
use serde_json::value::RawValue;
use skywave::auth::Authenticator;
use skywave::auth::mint::{Claims, Minter};
use skywave::auth::pattern::Pattern;
use skywave::auth::rights::{Right, Rights};
use skywave::certificate::{self, DevCertificate};
use skywave::config::{self, Config, LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

/// The exit code of wrong usage and of a wrong configuration; clap uses the same.
const EXIT_USAGE: u8 = 2;
/// A token minted by hand is valid for a year at most.
const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

/// A realtime edge node: channels, presence and history over WebTransport, with WebSocket as the fallback.
///
/// Exit codes: 0 done (a node: drained), 1 failed, 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "skywave", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM or SIGINT, which drain it; a second one stops it at once
    ///
    /// The first line on stdout says that it serves, and where; logs go to stderr.
    Serve(ConfigArguments),
    /// Check the configuration and the files that it names, and say everything that is wrong
    Check(ConfigArguments),
    /// Make a token (JWT) for a user, signed with auth.hmac_secret or with a private key
    Token(TokenArguments),
    /// Make a certificate for development: ECDSA P-256, 13 days, signed by itself
    ///
    /// Writes certificate.pem and key.pem, and prints the SHA-256 that a browser takes in serverCertificateHashes.
    Cert(CertArguments),
}

#[derive(Debug, Args)]
struct ConfigArguments {
    /// The configuration (TOML); any key can be set by SKYWAVE_<SECTION>__<KEY> instead
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Fill what the configuration leaves out for a node on this machine alone, open to anyone on it
    #[arg(long)]
    dev: bool,
}

#[derive(Debug, Args)]
struct TokenArguments {
    /// The user (sub)
    #[arg(long, value_name = "USER")]
    user: String,
    /// A pattern of channels and the rights on them: 'chat:*=subscribe,publish'; may be repeated
    ///
    /// `*` stands for any characters but `:`, `**` for any. The rights: subscribe, publish, emit, presence, history.
    #[arg(long, value_name = "PATTERN=RIGHTS", value_parser = parse_channels)]
    channels: Vec<(String, Rights)>,
    /// How long the token is valid: 90s, 15m, 1h, 7d …
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_lifetime)]
    ttl: Duration,
    /// What presence shows of the user: any JSON
    #[arg(long, value_name = "JSON", value_parser = parse_info)]
    info: Option<Box<RawValue>>,
    /// Sign with this private key (PEM, PKCS#8: RSA, P-256 or Ed25519) instead of auth.hmac_secret
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The configuration (TOML) with the secret, the audience and the issuer
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CertArguments {
    /// The directory to write to; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "certs")]
    out: PathBuf,
    /// Another host name or address, besides localhost, 127.0.0.1 and ::1; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
}

/// A failure that the person at the command line can mend: wrong usage or configuration.
#[derive(Debug)]
struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Wraps an error as one of usage.
fn usage(error: impl fmt::Display) -> UsageError {
    UsageError(error.to_string())
}

/// Does what the arguments say. Errors go to stderr.
pub fn run(arguments: Arguments) -> ExitCode {
    let outcome = match arguments.command {
        Command::Serve(arguments) => serve(&arguments),
        Command::Check(arguments) => check(&arguments),
        Command::Token(arguments) => token(arguments),
        Command::Cert(arguments) => cert(&arguments),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("{error:#}");
    if error.is::<UsageError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
}

fn load(path: Option<&Path>, dev: bool) -> Result<Config, UsageError> {
    Config::load(path, dev, std::env::vars_os()).map_err(usage)
}

fn serve(arguments: &ConfigArguments) -> anyhow::Result<()> {
    let config = load(arguments.config.as_deref(), arguments.dev)?;
    start_log(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(skywave::server::run(config))
}

/// Logs go to stderr; `RUST_LOG` overrides the configured level.
fn start_log(config: &LogConfig) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) => filter,
        Err(_) => config.level.clone(),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|error| usage(format!("log.level: {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn check(arguments: &ConfigArguments) -> anyhow::Result<()> {
    let config = load(arguments.config.as_deref(), arguments.dev)?;
    let keys = Authenticator::new(&config.auth).err().map(|error| error.to_string());
    let certificate = config.tls.as_ref().and_then(|tls| certificate::load(tls).err());
    let problems: Vec<String> = keys.into_iter().chain(certificate.map(|error| error.to_string())).collect();
    if !problems.is_empty() {
        bail!(UsageError(problems.join("\n")));
    }
    print_line("OK")
}

fn token(arguments: TokenArguments) -> anyhow::Result<()> {
    // Only [auth] matters here, so that what else a node needs may be missing.
    let auth = load(arguments.config.as_deref(), true)?.auth;
    let minter = match (&arguments.key, &auth.hmac_secret) {
        (Some(path), _) => {
            let pem = std::fs::read(path)
                .map_err(|error| usage(format!("cannot read {}: {error}", path.display())))?;
            Minter::from_pem(&pem).map_err(|error| usage(format!("{}: {error}", path.display())))?
        }
        (None, Some(secret)) => Minter::from_secret(secret),
        (None, None) => bail!(UsageError(
            "there is nothing to sign with: give --config FILE with auth.hmac_secret, or --key FILE with a private \
             key"
            .to_owned()
        )),
    };
    let algorithm = minter.algorithm();
    if !auth.algorithms.contains(&algorithm) {
        bail!(UsageError(format!("auth.algorithms does not accept {}", name(algorithm))));
    }
    let claims = Claims {
        user: Some(arguments.user),
        channels: arguments.channels,
        info: arguments.info,
        audience: auth.audiences.first().cloned(),
        issuer: auth.issuers.first().cloned(),
        lifetime: arguments.ttl,
    };
    print_line(&minter.mint(&claims, SystemTime::now())?)
}

fn name(algorithm: Algorithm) -> &'static str {
    config::ALGORITHMS.iter().find(|(_, known)| *known == algorithm).map_or("it", |(name, _)| *name)
}

fn cert(arguments: &CertArguments) -> anyhow::Result<()> {
    let certificate = DevCertificate::generate(&arguments.hosts, SystemTime::now()).map_err(usage)?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make the directory {}", arguments.out.display()))?;
    write(&arguments.out.join("key.pem"), &certificate.key_pem, 0o600)?;
    write(&arguments.out.join("certificate.pem"), &certificate.certificate_pem, 0o644)?;
    print_line(&certificate::sha256(&certificate.certified))
}

/// Writes a file beside its place and moves it there, so that nobody sees half of it, and nobody sees a key before its
/// mode is set.
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

/// Prints to stdout. A closed pipe is an error like any other, not a panic.
fn print_line(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to stdout")
}

fn parse_channels(text: &str) -> Result<(String, Rights), String> {
    let (pattern, rights) =
        text.rsplit_once('=').ok_or("expected PATTERN=RIGHTS, as in 'chat:*=subscribe,publish'")?;
    Pattern::new(pattern).ok_or("a pattern has 1 … 255 bytes")?;
    let right = |name: &str| {
        Right::from_name(name.trim())
            .ok_or_else(|| format!("{name:?} is no right: subscribe, publish, emit, presence, history"))
    };
    let rights: Rights = rights.split(',').map(right).collect::<Result<_, _>>()?;
    Ok((pattern.to_owned(), rights))
}

fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = config::parse_duration(text).map_err(|error| error.to_string())?;
    if !(Duration::from_secs(1)..=MAX_TOKEN_LIFETIME).contains(&lifetime) {
        return Err("expected 1s … 365d".to_owned());
    }
    Ok(lifetime)
}

fn parse_info(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected JSON: {error}"))
}
