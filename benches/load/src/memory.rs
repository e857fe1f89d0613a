//! Memory per idle session: the node's resident size with and without them.

use crate::{hold, node::Node};
use skywave_client::TransportKind;
use std::{path::PathBuf, time::Duration};

/// How long a node is left alone before it is measured.
const SETTLE: Duration = Duration::from_secs(5);
/// Sessions opened first, so that what a node allocates once is not counted.
const WARM_UP: usize = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The node's binary
    #[arg(long, default_value = "target/release/skywave")]
    node: PathBuf,
    /// Sessions on each transport; on WebSocket each needs a file descriptor at the node
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
}

struct Case {
    name: &'static str,
    kind: TransportKind,
    tls: bool,
}

const CASES: [Case; 3] = [
    Case { name: "WebTransport", kind: TransportKind::WebTransport, tls: true },
    Case { name: "WebSocket", kind: TransportKind::WebSocket, tls: false },
    Case { name: "WebSocket over TLS", kind: TransportKind::WebSocket, tls: true },
];

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    println!("| transport | sessions | node before | node after | per session |");
    println!("|---|--:|--:|--:|--:|");
    for case in CASES {
        measure(&arguments, &case).await?;
    }
    Ok(())
}

async fn measure(arguments: &Arguments, case: &Case) -> anyhow::Result<()> {
    let node = Node::start(&arguments.node).await?;
    let url = if case.tls { format!("https://{}", node.public) } else { format!("ws://{}", node.plain) };
    let warm = hold::open(&url, case.kind, WARM_UP).await?;
    tokio::time::sleep(SETTLE).await;
    let before = node.memory()?;
    let sessions = hold::open(&url, case.kind, arguments.sessions).await?;
    tokio::time::sleep(SETTLE).await;
    let after = node.memory()?;
    let per_session = after.saturating_sub(before) / arguments.sessions as u64;
    println!(
        "| {} | {} | {:.1} MB | {:.1} MB | {:.1} KB |",
        case.name,
        arguments.sessions,
        before as f64 / 1e6,
        after as f64 / 1e6,
        per_session as f64 / 1e3,
    );
    drop((warm, sessions));
    node.stop().await
}
