//! The `skywave-regions` binary: faults over several regions, and what regions cost.

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use skywave_regions::{
    browsers, cost,
    faults::{Fault, Settings},
    latency,
    report::Report,
    traffic::Load,
    wan::{Carriage, Conditions},
    world::{PARTITIONS, Plan},
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
    /// Runs a command at one end of a path that delays and loses packets, and tells it how to start programs at the
    /// other
    #[cfg(all(target_os = "linux", feature = "packets"))]
    Path(PathArguments),
}

#[cfg(all(target_os = "linux", feature = "packets"))]
#[derive(Debug, clap::Args)]
struct PathArguments {
    #[command(flatten)]
    conditions: skywave_regions::path::Conditions,
    /// The command; it finds the variables `SKYWAVE_PATH_ADDRESS`, `SKYWAVE_PATH_ENTER` and `SKYWAVE_PATH_CONDITIONS`
    #[arg(last = true, required = true)]
    program: Vec<std::ffi::OsString>,
}

#[derive(Debug, clap::Args)]
struct MeasureArguments {
    /// The node's binary
    #[arg(long, default_value = "target/release/skywave")]
    node: PathBuf,
    /// At most so many
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    regions: u8,
    /// Of each region's log
    #[arg(long, default_value_t = PARTITIONS, value_parser = clap::value_parser!(u16).range(1..=1024))]
    partitions: u16,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long the links are cut, in seconds
    #[arg(long, default_value_t = 30)]
    cut_seconds: u64,
    #[command(flatten)]
    wan: Conditions,
}

impl MeasureArguments {
    fn plan(&self) -> Plan {
        Plan::quiet(self.node.clone(), self.regions.into(), self.partitions, self.wan)
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[derive(Debug, clap::Args)]
struct FaultsArguments {
    /// The node's binary
    #[arg(long, default_value = "target/release/skywave")]
    node: PathBuf,
    /// Which faults; all when absent
    #[arg(long)]
    fault: Vec<Fault>,
    /// Of the first round; each further one has the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each fault is shown
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Shorter cuts and pauses
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    regions: u8,
    /// Rust clients on each node and transport
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Clients in Chromium on each node and transport; with 0 no Chromium is needed
    #[arg(long, default_value_t = 2)]
    browsers: usize,
    /// Where the TypeScript client is built, for those in Chromium
    #[arg(long, default_value = "clients/typescript")]
    package: PathBuf,
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
        Command::Latency(arguments) => {
            latency::run(&arguments.plan(), arguments.time(), Duration::from_secs(arguments.cut_seconds))
                .await?;
        }
        Command::Cost(arguments) => cost::run(&arguments.plan(), arguments.time()).await?,
        #[cfg(all(target_os = "linux", feature = "packets"))]
        Command::Path(PathArguments { conditions, program }) => {
            let status = skywave_regions::path::run(conditions, program).await?;
            // A command that a signal ended has none.
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn faults(arguments: FaultsArguments) -> anyhow::Result<ExitCode> {
    let regions = usize::from(arguments.regions);
    if arguments.browsers > 0 && browsers::script(&arguments.package).is_none() {
        anyhow::bail!("the TypeScript client is not built: use `make faults`, or --browsers 0");
    }
    let settings = Settings {
        binary: arguments.node,
        regions,
        wan: arguments.wan,
        load: Load {
            clients: arguments.clients,
            browsers: arguments.browsers,
            package: arguments.package,
            channels: 6,
            pause: Duration::from_millis(arguments.pause_ms),
        },
        seed: arguments.seed,
        quick: arguments.quick,
    };
    let wanted =
        if arguments.fault.is_empty() { Fault::value_variants() } else { arguments.fault.as_slice() };
    let (mut reports, mut kept): (Vec<Report>, bool) = (Vec::new(), true);
    println!("{}", Report::HEADER);
    for fault in wanted {
        if let Some(hindrance) = fault.hindrance(&settings) {
            eprintln!("{}: skipped: {hindrance}", fault.name());
            continue;
        }
        let seeds = (0..u64::from(arguments.rounds)).map(|round| arguments.seed.wrapping_add(round));
        match rounds(*fault, &settings, seeds).await {
            Ok(report) => {
                println!("{report}");
                kept &= report.is_kept();
                reports.push(report);
            }
            Err(error) => {
                eprintln!("{}: not shown: {error:#}", fault.name());
                kept = false;
            }
        }
        if let Some(directory) = arguments.json.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&arguments.json, serde_json::to_vec_pretty(&reports)?)?;
    }
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn rounds(
    fault: Fault,
    settings: &Settings,
    seeds: impl Iterator<Item = u64>,
) -> anyhow::Result<Report> {
    let mut sum: Option<Report> = None;
    for seed in seeds {
        eprintln!("{}: seed {seed} …", fault.name());
        let report = fault.run(&Settings { seed, ..settings.clone() }).await?;
        let Carriage { carried, lost, retransmitted } = report.wan;
        eprintln!(
            "{}: {:.0} s, {}; between regions {carried} packets, {lost} lost, {retransmitted} segments sent again",
            report.fault,
            report.seconds,
            outcome(&report)
        );
        match &mut sum {
            Some(sum) => sum.add(report),
            None => sum = Some(report),
        }
    }
    sum.context("no rounds")
}

fn outcome(report: &Report) -> String {
    if report.is_kept() { "all kept".to_owned() } else { format!("BROKEN: {}", report.faults.join("; ")) }
}
