//! A node as a process: until it is told to end, or cannot go on.

use super::{Failed, Server};
use crate::{config::Config, node::Node};
use std::{
    io::{self, Write},
    net::SocketAddr,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Runs a node until it is told to end. SIGTERM or SIGINT drains it, a second one closes what is left, a third one
/// stops it at once. One that is still starting ends at once.
///
/// # Errors
/// When it cannot start, or a part of it fails without which it does not serve.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut signalled = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    if !config.dev {
        tokio::spawn(take_hangups(signal(SignalKind::hangup())?));
    }
    let server = tokio::select! {
        started = Server::start(config) => started?,
        () = signalled() => return Ok(()),
    };
    announce(&server);
    Ok(serve(server, signalled).await?)
}

/// Serves until it is told to end, as often as that is told, or cannot go on.
async fn serve(mut server: Server, mut told: impl AsyncFnMut()) -> Result<(), Failed> {
    let node = server.node().clone();
    let outcome = tokio::select! {
        () = told() => Ok(()),
        () = moved_off(&node) => Ok(()),
        failed = server.failed() => Err(failed),
    };
    if let Err(failed) = &outcome {
        tracing::error!(%failed, "the node ends; sessions go on elsewhere, or here once it is started again");
    }
    let (hurry, hurried) = oneshot::channel::<()>();
    let is_failed = outcome.is_err();
    let told_again = async move {
        if !is_failed {
            told().await;
        }
        drop(hurry);
        told().await;
    };
    let (drained, at_once) = tokio::select! {
        drained = server.drain_until(async { drop(hurried.await) }) => (drained, false),
        () = told_again => (Ok(()), true),
    };
    if at_once {
        tracing::warn!("stopped at once");
    }
    outcome.and(drained)
}

/// A service manager's reload, or the hook that has renewed a certificate, is no order to end. With `--dev` it is:
/// there it is the terminal that closes.
async fn take_hangups(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::info!(
            "SIGHUP: certificates are read anew whenever their files change; the rest of the configuration counts from the \
             next start"
        );
    }
}

/// Waits for an order to move all sessions and to end then, and for its end.
async fn moved_off(node: &Node) {
    node.cluster.moving.exit.notified().await;
    node.sessions.served.empty().await;
}

/// Prints the one line on stdout that says that the node serves, and where. It serves as well where that cannot be
/// written, as on a disk that is full.
fn announce(server: &Server) {
    let [public, plain, admin] =
        [&server.public, &server.plain, &server.admin].map(|listener| place(listener));
    let line = format!("ready public={public} plain={plain} admin={admin}");
    if let Err(error) = print(&line) {
        tracing::warn!(%error, line, "stdout does not take the line that says that the node serves");
    }
}

fn print(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// What the line says of a listener.
fn place(addresses: &[SocketAddr]) -> String {
    match addresses {
        [] => "none".to_owned(),
        [address] => address.to_string(),
        // Both loopback addresses, with one port.
        [address, ..] => format!("localhost:{}", address.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::{future::pending, time::Duration};
    use tokio::time::timeout;

    /// A node on free ports, for tests of this machine.
    async fn node() -> Server {
        let listen = ["PUBLIC", "PLAIN", "ADMIN"]
            .map(|name| (format!("SKYWAVE_LISTEN__{name}"), "127.0.0.1:0".to_owned()));
        Server::start(Config::load(None, true, listen).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_node_whose_part_has_failed_closes_its_sessions_and_ends() {
        let mut server = node().await;
        server.tasks.spawn(async { panic!("a fault") });
        let node = server.node().clone();
        let serving = serve(server, async || pending().await);
        let failed = timeout(Duration::from_secs(30), serving).await.unwrap().unwrap_err();
        assert!(failed.to_string().contains("a fault"), "{failed}");
        assert!(node.cluster.is_draining() && node.ends().now_or_never().is_some());
        let mut server = self::node().await;
        server.listeners.spawn(async {});
        assert!(serve(server, async || pending().await).await.is_err());
    }

    #[tokio::test]
    async fn a_node_that_is_told_to_end_has_not_failed() {
        let server = node().await;
        let mut left = 1;
        let told = async || {
            if left == 0 {
                pending::<()>().await;
            }
            left -= 1;
        };
        assert!(serve(server, told).await.is_ok());
    }

    #[test]
    fn a_node_says_all_addresses_that_it_listens_on() {
        let said = |addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            place(&addresses)
        };
        assert_eq!(said(&[]), "none");
        assert_eq!(said(&["[::]:4433"]), "[::]:4433");
        assert_eq!(said(&["127.0.0.1:8080", "[::1]:8080"]), "localhost:8080");
    }
}
