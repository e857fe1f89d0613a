//! The `skywave` binary.

mod cli;

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    cli::run(cli::Arguments::parse())
}
