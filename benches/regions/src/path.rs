//! A command at one end of a path of real packets, which is told how to start programs at the other end.

use crate::{
    packets::{self, Packets},
    relay::Way,
    site::Site,
    wan::{self, Congestion},
};
use anyhow::Context;
use std::{ffi::OsString, process::ExitStatus, time::Duration};
use tokio::process::{Child, Command};

const NEAR: u8 = 1;
const FAR: u8 = 2;
/// What starts a program in another network namespace (package `util-linux`).
const ENTER: &str = "nsenter";

/// What the path does to packets, the same both ways.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Conditions {
    /// The time there and back, in milliseconds
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub rtt_ms: u64,
    /// How many of 100 packets are lost, each way
    #[arg(long, default_value_t = 2.0, value_parser = wan::percent)]
    pub loss_percent: f64,
    /// The most that chance adds to each way, in milliseconds
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub jitter_ms: u64,
    /// Of TCP
    #[arg(long, value_enum, default_value_t = Congestion::Cubic)]
    pub congestion: Congestion,
    /// Decides which packets are lost
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Conditions {
    fn way(self) -> Way {
        Way {
            open: true,
            delay: Duration::from_millis(self.rtt_ms) / 2,
            jitter: Duration::from_millis(self.jitter_ms),
            loss: self.loss_percent / 100.0,
        }
    }
}

/// Runs `program` at the near end until it ends. These variables tell it where it is:
///
/// - `SKYWAVE_PATH_ADDRESS`: the IPv4 address of the near end, to which the far end has a route;
/// - `SKYWAVE_PATH_ENTER`: a command that starts what is appended to it at the far end;
/// - `SKYWAVE_PATH_CONDITIONS`: what the path does, in words.
///
/// # Errors
/// When this process may not make such a path, or the program cannot be started.
pub async fn run(conditions: Conditions, program: Vec<OsString>) -> anyhow::Result<ExitStatus> {
    let near = Site::apart("near", packets::address(NEAR)).await?;
    let far = Site::apart("far", packets::address(FAR)).await?;
    let sites = [near.clone(), far.clone()];
    let congestion = conditions.congestion.name();
    let packets = Packets::join(&sites, |_, _| conditions.way(), congestion, conditions.seed).await?;
    let (name, arguments) = program.split_first().context("no command")?;
    let mut command = Command::new(name);
    command.args(arguments);
    command.env("SKYWAVE_PATH_ADDRESS", near.address().to_string());
    command.env("SKYWAVE_PATH_ENTER", format!("{ENTER} --net={} --", far.namespace().await?.display()));
    command.env("SKYWAVE_PATH_CONDITIONS", words(conditions));
    // A child is in the network of the thread that makes it.
    let child = near.run(async move { command.spawn() }).await?;
    let mut running = Running(child.with_context(|| format!("cannot start {}", name.display()))?);
    let status = running.0.wait().await?;
    let (carried, lost) = packets.carriage();
    eprintln!("the path carried {carried} packets and lost {lost}");
    Ok(status)
}

fn words(conditions: Conditions) -> String {
    let Conditions { rtt_ms, loss_percent, jitter_ms, congestion, .. } = conditions;
    let jitter =
        if jitter_ms == 0 { String::new() } else { format!(", up to {jitter_ms} ms of jitter each way") };
    format!(
        "{rtt_ms} ms RTT, {loss_percent} % loss each way{jitter}, TCP with {}",
        congestion.name().to_uppercase()
    )
}

/// Asked to end when dropped, so that it can end what it has started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(id) = self.0.id() {
            // One that ended meanwhile needs no signal.
            let _ = std::process::Command::new("kill").arg(id.to_string()).status();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_what_the_path_does() {
        let conditions = Conditions {
            rtt_ms: 80,
            loss_percent: 2.0,
            jitter_ms: 0,
            congestion: Congestion::Cubic,
            seed: 1,
        };
        assert_eq!(words(conditions), "80 ms RTT, 2 % loss each way, TCP with CUBIC");
        let conditions = Conditions { jitter_ms: 5, congestion: Congestion::Bbr, ..conditions };
        assert_eq!(
            words(conditions),
            "80 ms RTT, 2 % loss each way, up to 5 ms of jitter each way, TCP with BBR"
        );
    }
}
