//! A child process: its output in a file, signals, an end in any case.

use crate::site::Site;
use anyhow::{Context, bail};
use std::{
    fs::File,
    path::Path,
    process::{Command as Signal, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Killed when dropped.
pub struct Process {
    child: Child,
    pub name: String,
}

impl Process {
    /// Starts it at `site`; its standard error goes to the end of `log`, and its standard output unless that and its
    /// standard input are `piped`.
    pub async fn start(
        site: &Site,
        name: &str,
        mut command: Command,
        log: &Path,
        piped: bool,
    ) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let (input, out) = match piped {
            true => (Stdio::piped(), Stdio::piped()),
            false => (Stdio::null(), log.try_clone()?.into()),
        };
        command.stdin(input).stdout(out).stderr(log).kill_on_drop(true);
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        // A child is in the network of the thread that makes it.
        let child = site.run(async move { command.spawn() }).await?;
        Ok(Self { child: child.with_context(|| format!("cannot start {program}"))?, name: name.to_owned() })
    }

    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it without a farewell, also when it is stopped.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Sends `TERM`, `STOP`, `CONT`, …
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        let status = Signal::new("kill").args([&format!("-{signal}"), &id.to_string()]).status()?;
        if !status.success() {
            bail!("cannot send {signal} to {}", self.name);
        }
        Ok(())
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        timeout(END_TIMEOUT, self.child.wait())
            .await
            .with_context(|| format!("{} does not end", self.name))??;
        Ok(())
    }
}
