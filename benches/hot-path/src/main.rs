//! Counts the instructions of the hot path, which a busy machine does not change, and compares them with the last release's.

mod counting;
mod release;

use clap::{Parser, Subcommand};
use release::Release;
use skywave_hot_path::cases;
use std::{collections::BTreeMap, process::ExitCode};

/// More than the last release's is a failure from here on.
const MOST: f64 = 1.02;

/// Counts the instructions of what is done once per publication, frame or beat, under valgrind's cachegrind, and
/// compares them with those of the last release.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keeps what is counted now as the figures to compare with: done with each release, or where more is worth it
    Keep,
    /// Some rounds of one case, and nothing else: what is counted
    #[command(hide = true)]
    Run { case: String, prepared: usize, rounds: usize },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Some(Command::Run { case, prepared, rounds }) => counting::run(&case, prepared, rounds),
        Some(Command::Keep) => {
            Release::new(counted()?)?.write()?;
            Ok(ExitCode::SUCCESS)
        }
        None => compare(&Release::read()?),
    }
}

/// Instructions per round, by the cases' names.
fn counted() -> anyhow::Result<BTreeMap<String, u64>> {
    cases().iter().map(|case| Ok((case.name.to_owned(), counting::per_round(case.name)?))).collect()
}

fn compare(release: &Release) -> anyhow::Result<ExitCode> {
    let comparable = release.is_comparable()?;
    let mut worse = Vec::new();
    println!("{:55} {:>12} {:>12} {:>6}", "instructions per round", "release", "now", "ratio");
    for (name, now) in counted()? {
        let Some(before) = release.instructions.get(&name) else {
            println!("{name:55} {:>12} {now:>12}", "-");
            continue;
        };
        let ratio = now as f64 / *before as f64;
        println!("{name:55} {before:>12} {now:>12} {ratio:>6.3}");
        if ratio > MOST {
            worse.push(name);
        }
    }
    if !comparable {
        println!("The release was counted with {}: these ratios say nothing.", release.tools);
        return Ok(ExitCode::SUCCESS);
    }
    if worse.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("More than {MOST} times the release's instructions: {}.", worse.join("; "));
    eprintln!("Where that is worth it: `make instructions KEEP=1`, and say why in the commit.");
    Ok(ExitCode::FAILURE)
}
