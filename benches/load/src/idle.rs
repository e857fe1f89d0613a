//! Sessions that subscribe to a channel and then only answer pings.

use anyhow::{Context, bail};
use skywave_client::{
    CertificateCheck, Channel, Encoding, SubscribeOptions, TransportKind,
    transport::{Connection, DialOptions, Dialer, Lane},
    url::NodeUrl,
};
use skywave_protocol::{
    ClientFrame, RequestId, ServerFrame,
    frame::{Connect, Pong},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet};

/// Handshakes under way at once.
const CONCURRENT_HANDSHAKES: usize = 64;
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens `count` sessions, each on a channel of its own, and keeps them for as long as the set lives.
pub(crate) async fn open(
    url: &str,
    kind: TransportKind,
    encoding: Encoding,
    count: usize,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let options = DialOptions { encoding, certificate: CertificateCheck::Insecure, ..DialOptions::default() };
    let dialer = Arc::new(Dialer::new(options)?);
    let url: Arc<NodeUrl> = Arc::new(url.parse()?);
    let turns = Arc::new(Semaphore::new(CONCURRENT_HANDSHAKES));
    let (opened, mut ready) = tokio::sync::mpsc::channel(count.max(1));
    let mut sessions = JoinSet::new();
    for number in 0..count {
        let (dialer, url, turns, opened) = (dialer.clone(), url.clone(), turns.clone(), opened.clone());
        sessions.spawn(async move {
            let turn = turns.acquire_owned().await?;
            let opening = open_one(&dialer, &url, kind, number);
            let connection = tokio::time::timeout(OPEN_TIMEOUT, opening).await.context("timed out")??;
            drop(turn);
            opened.send(()).await?;
            drop(opened);
            answer_pings(connection).await
        });
    }
    drop(opened);
    for done in 0..count {
        tokio::select! {
            Some(()) = ready.recv() => {}
            Some(ended) = sessions.join_next() => {
                let error = ended?.err().context("a session ended")?;
                return Err(error.context(format!("after {done} of {count} sessions")));
            }
        }
    }
    Ok(sessions)
}

async fn open_one(
    dialer: &Dialer,
    url: &NodeUrl,
    kind: TransportKind,
    number: usize,
) -> anyhow::Result<Connection> {
    let mut connection = dialer.dial(url, kind).await?;
    let channel = Channel::new(&format!("chat:idle-{number}"))?;
    let connect = ClientFrame::Connect(Connect {
        id: RequestId::MIN,
        token: None,
        resume: None,
        attempt: None,
        subscriptions: [(channel, SubscribeOptions::default())].into_iter().collect(),
        client: None,
        network: None,
    });
    connection.sender.send(&connection.encoding.encode(&connect)?, Lane::Reliable).await?;
    loop {
        let received = connection.receiver.receive().await?;
        match connection.encoding.decode_server(&received.frame)? {
            ServerFrame::Subscribed(_) => return Ok(connection),
            ServerFrame::Connected(_) | ServerFrame::Ping(_) => {}
            other => bail!("the node answered {other:?}"),
        }
    }
}

async fn answer_pings(mut connection: Connection) -> anyhow::Result<()> {
    loop {
        let received = connection.receiver.receive().await?;
        if let ServerFrame::Ping(ping) = connection.encoding.decode_server(&received.frame)? {
            let pong = ClientFrame::Pong(Pong { seq: ping.seq });
            connection.sender.send(&connection.encoding.encode(&pong)?, Lane::Datagram).await?;
        }
    }
}
