//! `serve` and `check`: a node, and its configuration.

use super::{UsageError, complete, log::Log, terminal::print_line, usage};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use skywave::{
    auth::Authenticator,
    certificate,
    config::{Addresses, Config},
    redis::{Address, Endpoint},
    scripts,
    server::Failed,
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Debug, Args)]
pub(crate) struct ConfigArguments {
    /// The configuration (TOML); any key can be set by SKYWAVE_<SECTION>__<KEY> instead
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Fill what the configuration leaves out for a node on this machine alone, open to anyone on it
    #[arg(long)]
    dev: bool,
}

/// Reads the configuration with the environment over it.
pub(crate) fn load(path: Option<&Path>, dev: bool) -> Result<Config, UsageError> {
    Config::load(path, dev, std::env::vars_os()).map_err(usage)
}

pub(crate) fn serve(arguments: &ConfigArguments) -> anyhow::Result<ExitCode> {
    let config = load_with_files(arguments)?;
    let log = Log::start(&config.log)?;
    take_open_files(config.limits.sessions);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = complete(runtime, skywave::server::run(config));
    log.end();
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // The log says it.
        Err(error) if error.is::<Failed>() => Ok(ExitCode::FAILURE),
        Err(error) => Err(error),
    }
}

/// Takes as many open files as the process may have: a session over WebSocket needs one. Service managers begin with
/// 1,024, for the sake of programs that cannot deal with more.
fn take_open_files(sessions: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        tracing::debug!(open_files = current, "all are taken that there may be");
    } else if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, open_files = current, "the limit of open files cannot be raised");
    }
    if maximum.is_some_and(|maximum| maximum < sessions as u64) {
        tracing::info!(
            open_files = maximum,
            sessions,
            "fewer open files are allowed than sessions, of which each over WebSocket needs one"
        );
    }
}

pub(crate) fn check(arguments: &ConfigArguments) -> anyhow::Result<()> {
    load_with_files(arguments)?;
    print_line("OK")
}

/// Reads the configuration, and looks into the files that it names.
fn load_with_files(arguments: &ConfigArguments) -> Result<Config, UsageError> {
    let config = load(arguments.config.as_deref(), arguments.dev)?;
    let keys = Authenticator::new(&config.auth).err().map(|error| error.to_string());
    let certificate = config.tls.as_ref().and_then(|tls| certificate::load(tls).err());
    let problems = keys.into_iter().chain(certificate.map(|error| error.to_string()));
    let problems: Vec<String> = problems.chain(redis_problems(&config)).collect();
    if problems.is_empty() { Ok(config) } else { Err(UsageError(problems.join("\n"))) }
}

/// What is wrong with the files that are needed to reach Redis.
fn redis_problems(config: &Config) -> Vec<String> {
    let problem = |address: &Address| Endpoint::check(address).err().map(|error| error.to_string());
    match Addresses::of(config, scripts::ALL) {
        Ok(addresses) => addresses.iter().filter_map(problem).collect(),
        Err(error) => vec![error.to_string()],
    }
}
