//! The `skywave-regions` binary: faults over several regions, and what regions cost.

use clap::{Parser, Subcommand, ValueEnum};
use skywave_regions::{
    cost,
    faults::{Fault, Settings},
    latency,
    report::Report,
    traffic::Load,
    wan::{Carriage, Conditions},
};
use std::{fs, path::PathBuf, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// Runs regions of its own, nodes and Redis, on this machine, and measures what becomes of their clients.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Breaks one thing after the other; exit code 1 when something acknowledged is lost, repeated or out of order
    Faults(FaultsArguments),
    /// How long a publication takes to each region beyond what the network needs, and how fast a link catches up
    Latency(MeasureArguments),
    /// What a publication costs each region's Redis, as nodes and regions grow
    Cost(MeasureArguments),
}

#[derive(Debug, clap::Args)]
struct MeasureArguments {
    /// The node's binary
    #[arg(long, default_value = "target/release/skywave")]
    node: PathBuf,
    /// At most so many
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    regions: u8,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long the links are cut, in seconds
    #[arg(long, default_value_t = 30)]
    cut_seconds: u64,
    #[command(flatten)]
    wan: Conditions,
}

#[derive(Debug, clap::Args)]
struct FaultsArguments {
    /// The node's binary
    #[arg(long, default_value = "target/release/skywave")]
    node: PathBuf,
    /// Which faults; all when absent
    #[arg(long)]
    fault: Vec<Fault>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Shorter cuts and pauses
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    regions: u8,
    /// Clients on each node and transport
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Between two publishes of a client, on average, in milliseconds
    #[arg(long, default_value_t = 500)]
    pause_ms: u64,
    #[command(flatten)]
    wan: Conditions,
    /// Where the reports go as JSON
    #[arg(long, default_value = "target/faults.json")]
    json: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut terminated = signal(SignalKind::terminate())?;
    // Nodes, Redis and networks end with the future that owns them.
    tokio::select! {
        exit = run(Arguments::parse().command) => exit,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted")
        }
        _ = terminated.recv() => anyhow::bail!("terminated"),
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Faults(arguments) => return faults(arguments).await,
        Command::Latency(MeasureArguments { node, regions, seconds, cut_seconds, wan }) => {
            let (time, cut) = (Duration::from_secs(seconds), Duration::from_secs(cut_seconds));
            latency::run(&node, regions.into(), wan, time, cut).await?;
        }
        Command::Cost(MeasureArguments { node, regions, seconds, wan, .. }) => {
            cost::run(&node, regions.into(), wan, Duration::from_secs(seconds)).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn faults(arguments: FaultsArguments) -> anyhow::Result<ExitCode> {
    let regions = usize::from(arguments.regions);
    let settings = Settings {
        binary: arguments.node,
        regions,
        wan: arguments.wan,
        load: Load {
            clients: arguments.clients,
            channels: 6,
            pause: Duration::from_millis(arguments.pause_ms),
        },
        seed: arguments.seed,
        quick: arguments.quick,
    };
    let wanted =
        if arguments.fault.is_empty() { Fault::value_variants() } else { arguments.fault.as_slice() };
    let mut reports: Vec<Report> = Vec::new();
    println!("{}", Report::HEADER);
    for fault in wanted {
        if let Some(hindrance) = fault.hindrance(&settings) {
            eprintln!("{}: skipped: {hindrance}", fault.name());
            continue;
        }
        eprintln!("{}: seed {} …", fault.name(), settings.seed);
        let report = fault.run(&settings).await?;
        let Carriage { carried, lost, retransmitted } = report.wan;
        eprintln!(
            "{}: {:.0} s, {}; between regions {carried} packets, {lost} lost, {retransmitted} segments sent again",
            report.fault,
            report.seconds,
            kept(&report)
        );
        println!("{report}");
        reports.push(report);
        fs::write(&arguments.json, serde_json::to_vec_pretty(&reports)?)?;
    }
    let kept = reports.iter().all(Report::is_kept);
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn kept(report: &Report) -> String {
    if report.is_kept() { "all kept".to_owned() } else { format!("BROKEN: {}", report.faults.join("; ")) }
}
