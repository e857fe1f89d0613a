//! Idle sessions in processes of their own: one process has too few file descriptors for all.

use crate::idle;
use anyhow::{Context, bail};
use skywave_client::{Encoding, TransportKind};
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
};

/// Sessions of one process; one over WebTransport takes two file descriptors.
const SESSIONS_PER_PROCESS: usize = 5_000;
const READY: &str = "ready";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    url: String,
    /// WebTransport rather than WebSocket
    #[arg(long)]
    webtransport: bool,
    #[arg(long)]
    sessions: usize,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let kind = if arguments.webtransport { TransportKind::WebTransport } else { TransportKind::WebSocket };
    let sessions = idle::open(&arguments.url, kind, Encoding::MessagePack, arguments.sessions).await?;
    println!("{READY}");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    drop(sessions);
    Ok(())
}

/// Opens sessions, for as long as the processes live; they are killed when dropped.
pub(crate) async fn open(url: &str, kind: TransportKind, mut sessions: usize) -> anyhow::Result<Vec<Child>> {
    let mut processes = Vec::new();
    while sessions > 0 {
        let count = sessions.min(SESSIONS_PER_PROCESS);
        sessions -= count;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["hold", "--url", url, "--sessions", &count.to_string()]);
        if kind == TransportKind::WebTransport {
            command.arg("--webtransport");
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = process.stdout.take().context("no stdout")?;
        match BufReader::new(stdout).lines().next_line().await? {
            Some(line) if line == READY => processes.push(process),
            other => bail!("a process with sessions said {other:?}"),
        }
    }
    Ok(processes)
}
