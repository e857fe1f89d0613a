//! `token`: a token for a user, made by hand.

use super::{UsageError, node::load, terminal::print_line, usage};
use anyhow::bail;
use clap::Args;
use jsonwebtoken::Algorithm;
use serde_json::value::RawValue;
use skywave::{
    auth::{
        mint::{Claims, Minter},
        pattern::Pattern,
    },
    config,
    rights::{Right, Rights},
};
use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// A token minted by hand is valid for a year at most.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
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

pub(crate) fn make(arguments: TokenArguments) -> anyhow::Result<()> {
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
    if !(Duration::from_secs(1)..=MAX_LIFETIME).contains(&lifetime) {
        return Err("expected 1s … 365d".to_owned());
    }
    Ok(lifetime)
}

fn parse_info(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected JSON: {error}"))
}
