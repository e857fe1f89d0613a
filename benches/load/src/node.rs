//! A node in a process of its own, measured from outside.

use anyhow::{Context, bail};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A running node; killed when dropped.
pub(crate) struct Node {
    process: Child,
    pub public: String,
    pub plain: String,
}

impl Node {
    /// Starts `binary` with the development defaults, free ports and no limits in the way.
    pub(crate) async fn start(binary: &Path) -> anyhow::Result<Self> {
        let settings = [
            ("LISTEN__PUBLIC", "127.0.0.1:0"),
            ("LISTEN__PLAIN", "127.0.0.1:0"),
            ("LISTEN__ADMIN", "127.0.0.1:0"),
            ("LIMITS__SESSIONS_PER_ADDRESS", "100000"),
            ("LIMITS__HANDSHAKES_PER_SECOND", "10000"),
            ("DRAIN__DEADLINE", "1s"),
            ("LOG__LEVEL", "warn"),
        ];
        let mut process = Command::new(binary)
            .args(["serve", "--dev"])
            .envs(settings.map(|(key, value)| (format!("SKYWAVE_{key}"), value)))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stdout = process.stdout.take().context("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = tokio::time::timeout(Duration::from_secs(10), lines.next_line())
            .await
            .context("the node does not get ready")??
            .context("the node ended at once")?;
        let place =
            |name: &str| ready.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
        match (place("public="), place("plain=")) {
            (Some(public), Some(plain)) => Ok(Self { process, public, plain }),
            _ => bail!("the node said {ready:?}"),
        }
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let id = self.process.id().context("the node is gone")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024)
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("cannot stop the node")
    }
}
