//! Counts what a case costs: two runs of this program under cachegrind, one of which does more rounds.

use anyhow::{Context, anyhow, ensure};
use skywave_hot_path::cases;
use std::{
    env,
    process::{self, Command, ExitCode},
};

/// The shorter run; the other one does twice as many. What comes before the rounds is the same in both.
const ROUNDS: usize = 200;

/// The instructions of one round.
///
/// # Errors
/// When valgrind is not there, or does not say how many there were.
pub fn per_round(case: &str) -> anyhow::Result<u64> {
    let [some, more] = [ROUNDS, 2 * ROUNDS].map(|rounds| count(case, rounds));
    let rounds = more?.checked_sub(some?).context("more rounds took fewer instructions")?;
    Ok(rounds / ROUNDS as u64)
}

fn count(case: &str, rounds: usize) -> anyhow::Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    command.arg(env::current_exe()?).args(["run", case]);
    command.args([2 * ROUNDS, rounds].map(|number| number.to_string()));
    let output = command.output().context("valgrind cannot be run; Debian's package is `valgrind`")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{case}` failed under valgrind:\n{told}");
    total(&told).ok_or_else(|| anyhow!("valgrind told no count for `{case}`:\n{told}"))
}

/// From cachegrind's line `==123== I   refs:      1,234,567`.
fn total(told: &str) -> Option<u64> {
    let (_, count) = told.lines().find_map(|line| line.split_once("refs:"))?;
    count.trim().replace(',', "").parse().ok()
}

/// Does some of the rounds that were prepared, and ends: what is left over is not cleared away.
///
/// # Errors
/// When there is no such case.
pub fn run(name: &str, prepared: usize, rounds: usize) -> anyhow::Result<ExitCode> {
    let cases = cases();
    let case = cases.iter().find(|case| case.name == name).context("no such case")?;
    case.begin(prepared)(rounds);
    process::exit(0);
}
