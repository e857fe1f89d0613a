//! Opening a connection: token, transport, `connect`, `connected`.

use crate::{
    error::ConnectError,
    options::TokenSource,
    race::{self, Plan},
    transport::{Closed, Connection, Dialer, Lane},
    url::NodeUrl,
};
use futures_util::future::BoxFuture;
use skywave_protocol::{
    Channel, ClientFrame, DecodeError, ServerFrame,
    frame::{Connect, Connected},
};
use std::sync::Arc;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// Frames that may come before `connected`.
const MAX_EARLY_FRAMES: usize = 8192;

/// Why a connection is opened.
#[derive(Debug)]
pub(super) enum Purpose {
    /// There is none.
    Connect,
    /// The node drains.
    Drain,
    /// The node knows of a better one.
    Prefer,
    /// The application wants another transport.
    Switch(oneshot::Sender<Result<(), ConnectError>>),
}

/// A connection on its way.
pub(super) struct Opening {
    pub url: NodeUrl,
    pub plan: Plan,
    pub purpose: Purpose,
    pub deadline: Instant,
    /// The channels that `connect` asks for, with the ids of their subscriptions.
    pub channels: Vec<(Channel, u64)>,
    pub step: BoxFuture<'static, Step>,
}

/// What has been reached.
pub(super) enum Step {
    Dialed(Result<Dialed, ConnectError>),
    Established(Result<Box<Established>, ConnectError>),
}

pub(super) struct Dialed {
    pub connection: Connection,
    pub token: Option<Arc<str>>,
}

pub(super) struct Established {
    pub connection: Connection,
    pub connected: Connected,
    /// What came before `connected`, in order.
    pub early: Vec<ServerFrame>,
}

/// Gets a token and a connection.
pub(super) fn dial(
    dialer: Dialer,
    url: NodeUrl,
    plan: Plan,
    tokens: TokenSource,
    deadline: Instant,
) -> BoxFuture<'static, Step> {
    Box::pin(async move {
        let work = async {
            let token = tokens.token().await?;
            let connection = race::connect(&dialer, &url, plan).await.map_err(Arc::new)?;
            Ok(Dialed { connection, token })
        };
        Step::Dialed(timeout_at(deadline, work).await.unwrap_or(Err(ConnectError::TimedOut)))
    })
}

/// Sends `connect` and waits for `connected`.
pub(super) fn greet(connection: Connection, connect: Connect, deadline: Instant) -> BoxFuture<'static, Step> {
    Box::pin(async move {
        let work = timeout_at(deadline, exchange(connection, connect)).await;
        Step::Established(work.unwrap_or(Err(ConnectError::TimedOut)).map(Box::new))
    })
}

async fn exchange(mut connection: Connection, connect: Connect) -> Result<Established, ConnectError> {
    let id = connect.id;
    let frame = connection
        .encoding
        .encode(&ClientFrame::Connect(connect))
        .map_err(|error| ConnectError::Protocol(error.to_string()))?;
    // A node that refuses at once may close before it has read: its close code says more.
    if let Err(error) = connection.sender.send(&frame, Lane::Reliable).await {
        tracing::debug!(%error, "cannot write `connect`");
    }
    let mut early = Vec::new();
    loop {
        let received = connection.receiver.receive().await.map_err(refused)?;
        match connection.encoding.decode_server(&received.frame) {
            Ok(ServerFrame::Connected(connected)) if connected.id == id => {
                return Ok(Established { connection, connected, early });
            }
            Ok(ServerFrame::Disconnect(disconnect)) => {
                return Err(ConnectError::Refused {
                    code: disconnect.code,
                    reason: disconnect.reason,
                    reconnect: disconnect.reconnect,
                });
            }
            Ok(ServerFrame::Error(error)) if error.id == Some(id) => {
                return Err(ConnectError::Refused {
                    code: error.code,
                    reason: error.reason,
                    reconnect: error.transient,
                });
            }
            Ok(_) if early.len() >= MAX_EARLY_FRAMES => {
                return Err(ConnectError::Protocol("too much before `connected`".to_owned()));
            }
            Ok(frame) => early.push(frame),
            Err(DecodeError::Unknown { name, .. }) => tracing::debug!(name, "unknown frame"),
            Err(error) => return Err(ConnectError::Protocol(error.to_string())),
        }
    }
}

fn refused(closed: Closed) -> ConnectError {
    match closed.code {
        Some(code) if (3000..4000).contains(&code) => {
            ConnectError::Refused { code, reconnect: closed.reconnect(), reason: closed.reason.into() }
        }
        _ => ConnectError::Lost(closed.reason),
    }
}
