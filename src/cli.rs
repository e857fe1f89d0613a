//! The command line: what a person or a service manager asks of the binary.

mod certificate;
mod connection;
mod doctor;
mod drain;
mod log;
mod node;
mod publish;
mod subscribe;
mod terminal;
mod token;

use clap::{Parser, Subcommand};
use std::{fmt, process::ExitCode};
use tokio::runtime::Runtime;

/// The exit code of wrong usage and of a wrong configuration; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// A realtime edge node: channels, presence and history over WebTransport, with WebSocket as the fallback.
///
/// Exit codes: 0 done (a node: drained), 1 failed, 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "skywave", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM or SIGINT, which drain it; a second one closes what is left
    ///
    /// The first line on stdout says that it serves, and where; logs go to stderr.
    Serve(node::ConfigArguments),
    /// Check the configuration and the files that it names, and say everything that is wrong
    Check(node::ConfigArguments),
    /// Make a token (JWT) for a user, signed with auth.hmac_secret or with a private key
    Token(token::TokenArguments),
    /// Make a certificate for development: ECDSA P-256, 13 days, signed by itself
    ///
    /// Writes certificate.pem and key.pem, and prints the SHA-256 that a browser takes in serverCertificateHashes.
    Cert(certificate::CertificateArguments),
    /// Print what is published on a channel, until Ctrl-C
    ///
    /// Publications, events and presence go to stdout, one line each; what happens to the session goes to stderr.
    Sub(subscribe::SubscribeArguments),
    /// Publish on a channel, and print the position that the publication got
    Pub(publish::PublishArguments),
    /// Find out how a node can be reached from here: UDP, transports, certificate, times, clock
    ///
    /// Exit codes: 0 both transports work, 1 only one does (mostly the fallback), 2 none does.
    Doctor(doctor::DoctorArguments),
    /// Move sessions off a node to others: all of them, or some; at once, or so many a second
    ///
    /// Exit codes: 0 ordered (with --wait: moved), 1 not, 2 wrong usage.
    Drain(drain::DrainArguments),
}

/// Does a command's work to its end. A thread that still blocks then is not waited for: looking up a name may take half
/// a minute.
fn complete<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
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
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let outcome = match arguments.command {
        Command::Serve(arguments) => node::serve(&arguments),
        Command::Check(arguments) => node::check(&arguments).map(done),
        Command::Token(arguments) => token::make(arguments).map(done),
        Command::Cert(arguments) => certificate::make(&arguments).map(done),
        Command::Sub(arguments) => subscribe::run(&arguments).map(done),
        Command::Pub(arguments) => publish::run(arguments).map(done),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Drain(arguments) => drain::run(&arguments).map(done),
    };
    outcome.unwrap_or_else(|error| {
        terminal::tell(&told(&error));
        if error.is::<UsageError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
    })
}

/// An error with its causes, each once: many tell theirs themselves.
fn told(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.ends_with(&cause) {
            told.push_str(": ");
            told.push_str(&cause);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("the disk is full");
        let within = anyhow::Error::new(skywave::server::StartError::Listen(
            skywave::transport::sockets::ListenError { address: ([127, 0, 0, 1], 1).into(), source: cause },
        ));
        assert_eq!(told(&within), "cannot listen on 127.0.0.1:1: the disk is full");
        let without = anyhow::Error::new(std::io::Error::other("the disk is full")).context("cannot write");
        assert_eq!(told(&without), "cannot write: the disk is full");
    }

    #[test]
    fn a_command_ends_though_something_blocks_a_thread() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            complete(runtime, async { drop(tokio::task::spawn_blocking(move || released.recv())) });
            let _ = tell.send(());
        });
        told.recv_timeout(std::time::Duration::from_secs(20)).expect("it waits for the thread");
        drop(release);
    }
}
