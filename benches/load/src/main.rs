//! The `skywave-load` binary: what many sessions cost a node.

#![warn(unreachable_pub)]

mod hold;
mod idle;
mod memory;
mod node;

use clap::{Parser, Subcommand};

/// Opens many sessions on a node of its own and reports what they cost. Everything stays on this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The node's memory per idle session with one subscription, on each transport
    Memory(memory::Arguments),
    /// Idle sessions on a node that runs already, until stdin is closed
    Hold(hold::Arguments),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Memory(arguments) => memory::run(arguments).await,
        Command::Hold(arguments) => hold::run(arguments).await,
    }
}
