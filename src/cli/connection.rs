//! How a command reaches a node: address, token, transport, trust; and what helps when it cannot.

use super::{
    UsageError,
    terminal::{one_line, tell},
    usage,
};
use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use skywave::config::Secret;
use skywave_client::{
    CertificateCheck, Channel, Client, ClientOptions, ConnectError, DialErrors, Status, TokenSource,
    TransportChoice, TransportKind, transport::DialError, url::NodeUrl,
};
use skywave_protocol::{CloseCode, Text};
use std::{
    convert::Infallible,
    io::Read as _,
    path::{Path, PathBuf},
};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Where a development node is.
const DEFAULT_URL: &str = "https://localhost:4433";
/// A file with a secret may be this long, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Where the node is. What follows `?` may be secret and is never shown.
#[derive(Clone)]
pub(crate) struct Address {
    /// As it was given.
    text: String,
    pub url: NodeUrl,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.url, formatter)
    }
}

impl Address {
    /// The address on the command line, else that of the environment, else this machine's.
    pub(crate) fn find(given: Option<&str>) -> Result<Self, UsageError> {
        let text = match given {
            Some(given) => given.to_owned(),
            None => variable("SKYWAVE_URL")?.unwrap_or_else(|| DEFAULT_URL.to_owned()),
        };
        let url = text.parse().map_err(|error| {
            let shown = text.split('?').next().unwrap_or_default();
            usage(format!("{shown:?} is not the address of a node: {error}"))
        })?;
        Ok(Self { text, url })
    }
}

/// A variable of the environment; an empty one is none.
pub(crate) fn variable(name: &str) -> Result<Option<String>, UsageError> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(usage(format!("{name} is not UTF-8"))),
    }
}

/// A secret in a variable of the environment, without white space around it, as one in a file.
pub(crate) fn secret_variable(name: &str) -> Result<Option<Secret>, UsageError> {
    Ok(variable(name)?.map(|text| Secret::new(text.trim())))
}

#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    /// The token (JWT); in SKYWAVE_TOKEN or a file it is better hidden from other users of this machine
    #[arg(long, value_name = "TOKEN", value_parser = parse_secret)]
    token: Option<Secret>,
    /// Read the token from this file
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

pub(crate) fn parse_secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

impl TokenArguments {
    /// `--token`, else `--token-file`, else SKYWAVE_TOKEN; `None` is an anonymous session.
    pub(crate) fn find(&self) -> Result<Option<Secret>, UsageError> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(path)) => read_secret(path, "token").map(Some),
            (None, None) => secret_variable("SKYWAVE_TOKEN"),
        }
    }
}

/// A secret from a file; `noun` says what it is.
pub(crate) fn read_secret(path: &Path, noun: &str) -> Result<Secret, UsageError> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| usage(format!("cannot read {}: {error}", path.display())))?;
    let secret = text.trim();
    if secret.is_empty() || text.len() as u64 > MAX_SECRET_BYTES {
        return Err(usage(format!("{} holds no {noun}", path.display())));
    }
    Ok(Secret::new(secret))
}

#[derive(Debug, Args)]
pub(crate) struct TrustArguments {
    /// Trust the certificate with this SHA-256 of its DER alone, as browsers do by serverCertificateHashes: ECDSA
    /// P-256, valid for 14 days at most; may be repeated
    #[arg(long, value_name = "HEX", value_parser = parse_sha256)]
    certificate_sha256: Vec<[u8; 32]>,
    /// Do not check the certificate; only for a node on this machine
    #[arg(long, conflicts_with = "certificate_sha256")]
    insecure: bool,
}

/// 64 hexadecimal digits; the colons that other tools put between them are passed over.
fn parse_sha256(text: &str) -> Result<[u8; 32], String> {
    let expected = || "expected a SHA-256: 64 hexadecimal digits".to_owned();
    let digits: String = text.chars().filter(|character| *character != ':').collect();
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(expected());
    }
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        let pair = digits.get(2 * index..2 * index + 2).ok_or_else(expected)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| expected())?;
    }
    Ok(digest)
}

impl TrustArguments {
    /// How the certificate of the node at `url` is to be judged.
    pub(crate) fn check(&self, url: &NodeUrl) -> Result<CertificateCheck, UsageError> {
        let check = match (self.insecure, self.certificate_sha256.as_slice()) {
            (true, _) => CertificateCheck::Insecure,
            (false, []) => CertificateCheck::WebPki,
            (false, digests) => CertificateCheck::Sha256(digests.to_vec()),
        };
        if check.permits(url).is_err() {
            return Err(usage(format!(
                "--insecure is only for a node on this machine, which {} is not: anyone on the way could read along; \
                 give --certificate-sha256 HEX instead",
                url.host()
            )));
        }
        Ok(check)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TransportArgument {
    /// WebTransport where it works, else WebSocket
    Auto,
    #[value(name = "webtransport")]
    WebTransport,
    #[value(name = "websocket")]
    WebSocket,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectionArguments {
    /// Where the node is [default: SKYWAVE_URL, else https://localhost:4433]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    token: TokenArguments,
    /// What to reach it by
    #[arg(long, value_enum, default_value_t = TransportArgument::Auto)]
    transport: TransportArgument,
    #[command(flatten)]
    trust: TrustArguments,
}

/// All that a client needs to know of a node.
pub(crate) struct Target {
    options: ClientOptions,
    url: NodeUrl,
    check: CertificateCheck,
}

impl ConnectionArguments {
    pub(crate) fn target(&self) -> Result<Target, UsageError> {
        let Address { text, url } = Address::find(self.url.as_deref())?;
        if matches!(self.transport, TransportArgument::WebTransport)
            && !url.allows(TransportKind::WebTransport)
        {
            return Err(usage(format!("--transport webtransport needs an address with https://, not {url}")));
        }
        let check = self.trust.check(&url)?;
        let token = self.token.find()?;
        let options = ClientOptions {
            transport: match self.transport {
                TransportArgument::Auto => TransportChoice::Auto,
                TransportArgument::WebTransport => TransportChoice::WebTransport,
                TransportArgument::WebSocket => TransportChoice::WebSocket,
            },
            token: token.map_or(TokenSource::None, |token| TokenSource::fixed(token.expose())),
            certificate: check.clone(),
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ClientOptions::new(text)
        };
        Ok(Target { options, url, check })
    }
}

impl Target {
    /// Opens a session, and says so on stderr, with all that happens to it from then on.
    pub(crate) async fn connect(self) -> anyhow::Result<Client> {
        let has_token = !matches!(self.options.token, TokenSource::None);
        match Client::connect(self.options).await {
            Ok(client) => {
                let mut status = client.status();
                tell_status(&status.borrow_and_update());
                tokio::spawn(tell_changes(status));
                Ok(client)
            }
            Err(error) => Err(anyhow!(explain(&error, &self.url, &self.check, has_token))),
        }
    }
}

/// Says on stderr what a session is doing, until it has ended.
async fn tell_changes(mut status: watch::Receiver<Status>) {
    while status.changed().await.is_ok() {
        tell_status(&status.borrow_and_update());
    }
}

fn tell_status(status: &Status) {
    if let Some(text) = describe(status) {
        tell(&one_line(&text));
    }
}

fn describe(status: &Status) -> Option<String> {
    match status {
        Status::Connected(connected) => {
            let how = match (connected.connects, connected.resumed) {
                (1, _) => "connected",
                (_, true) => "resumed",
                (_, false) => "connected anew, as another session,",
            };
            let user = connected.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
            Some(format!(
                "{how} over {} to node {} in region {}{user}",
                connected.transport, connected.node, connected.region
            ))
        }
        Status::Disconnected { code, reason, .. } => {
            Some(format!("not connected: {}; trying again", named(*code, reason)))
        }
        // The command itself says how it ended.
        Status::Connecting { .. } | Status::Closed { .. } => None,
    }
}

/// A reason with its code, where there is one.
pub(crate) fn named(code: Option<u16>, reason: &str) -> String {
    match code {
        // An error of the client tells its code by itself.
        Some(code) if !reason.contains(&format!("({code})")) => format!("{reason} ({code})"),
        _ => reason.to_owned(),
    }
}

/// Why there is no session, and what helps.
fn explain(error: &ConnectError, url: &NodeUrl, check: &CertificateCheck, has_token: bool) -> String {
    let told = one_line(&format!("cannot open a session at {url}: {error}"));
    match advice(error, url, check, has_token) {
        Some(advice) => format!("{told}\n{advice}"),
        None => told,
    }
}

fn advice(error: &ConnectError, url: &NodeUrl, check: &CertificateCheck, has_token: bool) -> Option<String> {
    match error {
        ConnectError::Dial(_) => {
            let errors = DialErrors::of(error).map(|errors| errors.0.as_slice()).unwrap_or_default();
            errors.iter().any(|(_, error)| is_untrusted(error)).then(|| trust_advice(url, check)).or_else(
                || Some("`skywave doctor`, with the same address, tells what is in the way".to_owned()),
            )
        }
        ConnectError::Refused { code, .. } => refusal_advice(*code, has_token).map(str::to_owned),
        _ => None,
    }
}

/// What helps against a node's close code.
pub(crate) fn refusal_advice(code: u16, has_token: bool) -> Option<&'static str> {
    match (CloseCode::from_code(code)?, has_token) {
        (CloseCode::Unauthenticated, false) => Some(
            "the node wants a token: give it in SKYWAVE_TOKEN or by --token-file FILE (`skywave token` makes one)",
        ),
        (CloseCode::Unauthenticated, true) => Some("the node does not accept this token: its log says why"),
        (CloseCode::TokenExpired, _) => Some("make a new token, for example by `skywave token`"),
        _ => None,
    }
}

/// Whether the other side's certificate is what a connection failed on.
pub(crate) fn is_untrusted(error: &DialError) -> bool {
    match error {
        DialError::Handshake(error) => error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_))),
        // Here the library keeps no more of rustls's error than its words.
        DialError::WebTransport(error) => error.to_string().contains("invalid peer certificate"),
        _ => false,
    }
}

/// Which flags help against a certificate that is not trusted.
pub(crate) fn trust_advice(url: &NodeUrl, check: &CertificateCheck) -> String {
    match check {
        CertificateCheck::Sha256(_) => {
            "the certificate is none of those given by --certificate-sha256, or not one \
             that can be trusted so: ECDSA on P-256, valid now, and for 14 days at most"
                .to_owned()
        }
        _ => {
            let pin =
                "--certificate-sha256 HEX trusts this certificate alone (`skywave doctor` shows its SHA-256)";
            let insecure = "--insecure leaves the certificate unchecked, since the node is on this machine";
            if url.is_loopback() { format!("{pin}; {insecure}") } else { pin.to_owned() }
        }
    }
}

/// The runtime that a client runs on: on threads of its own, so that a blocked stdout delays no heartbeat.
///
/// What the client warns of, such as an event that the node refused, goes to stderr; `RUST_LOG` asks for more.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let filter = variable("RUST_LOG")?.unwrap_or_else(|| "skywave_client=warn".to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| usage(format!("RUST_LOG: {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Where stderr cannot be written, that cannot be told there.
    let log = log.log_internal_errors(false);
    log.without_time().with_target(false).with_ansi(false).init();
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

pub(crate) fn parse_channel(text: &str) -> Result<Channel, String> {
    Channel::new(text).map_err(|error| error.to_string())
}

/// An idempotency key or a slot: 1 … 64 bytes.
pub(crate) fn parse_name(text: &str) -> Result<Text<64>, String> {
    if text.is_empty() {
        return Err("expected 1 … 64 bytes".to_owned());
    }
    Text::new(text).map_err(|error| error.to_string())
}

/// An error of something that was asked of the node, or the end of the session that it was asked in.
pub(crate) fn fail<T>(what: &str, code: Option<u16>, reason: &str, message: &str) -> anyhow::Result<T> {
    let reason = named(code, reason);
    let subject = if code.is_some_and(|code| code >= 3000) { "the session has ended" } else { what };
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    bail!(one_line(&format!("{subject}: {reason}{message}")))
}
