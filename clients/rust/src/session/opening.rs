//! Opening a connection: token, transport, `connect`, `connected`.

use crate::{
    error::ConnectError,
    options::TokenSource,
    race,
    staggered::{self, Pace, Winner},
    transport::{Closed, Connection, Dialer, Lane, Received, Via},
};
use futures_util::future::BoxFuture;
use skywave_client_session::{Arrival, Held, Target, Wanted};
use skywave_protocol::{
    ClientFrame, DecodeError, ServerFrame,
    frame::{Connect, Connected, Network},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};

/// Why a connection is opened.
#[derive(Debug)]
pub(super) enum Purpose {
    /// There is none, or it may be dead.
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
    /// Who is tried; once there is a connection, the one that it leads to.
    pub targets: Vec<Target>,
    pub purpose: Purpose,
    /// The channels that `connect` asks for.
    pub wanted: Wanted,
    /// What `connect` tells of the network.
    pub network: Network,
    /// The token that `connect` has.
    pub token: Option<Arc<str>>,
    /// Whether a node has been sent `connect`.
    pub is_greeting: bool,
    pub step: BoxFuture<'static, Step>,
}

/// What has been reached.
pub(super) enum Step {
    Dialed(Result<Winner<Connection>, ConnectError>, Option<Arc<str>>),
    Established(Result<Box<Established>, ConnectError>),
}

pub(super) struct Established {
    pub connection: Connection,
    pub connected: Connected,
    /// What came before `connected`, in order.
    pub early: Held,
}

/// Gets a token and a connection to the first of `targets` whose handshake completes.
pub(super) fn dial(
    dialer: Dialer,
    targets: Vec<Target>,
    tokens: TokenSource,
    pace: Pace,
) -> BoxFuture<'static, Step> {
    Box::pin(async move {
        let token = match tokens.token_within(pace.timeout).await {
            Ok(token) => token,
            Err(error) => return Step::Dialed(Err(error.into()), None),
        };
        let attempt = |index: usize| {
            let (dialer, target): (&Dialer, &Target) = (&dialer, &targets[index]);
            async move { Ok(race::connect(dialer, &target.url, target.plan).await.map_err(Arc::new)?) }
        };
        let winner = staggered::first(targets.len(), pace, attempt, || ConnectError::TimedOut).await;
        Step::Dialed(winner, token)
    })
}

/// Sends `connect` and waits for `connected`.
pub(super) fn greet(
    connection: Connection,
    connect: Connect,
    patience: Duration,
) -> BoxFuture<'static, Step> {
    Box::pin(async move {
        let work = timeout(patience, exchange(connection, connect)).await;
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
    let mut early = Held::default();
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
                    message: disconnect.message,
                    reconnect: disconnect.reconnect,
                    retry_after: disconnect.retry_after_ms.map(Duration::from_millis),
                });
            }
            Ok(ServerFrame::Error(error)) if error.id == Some(id) => {
                return Err(ConnectError::Refused {
                    code: error.code,
                    reason: error.reason,
                    message: Some(error.message),
                    reconnect: error.transient,
                    retry_after: error.retry_after_ms.map(Duration::from_millis),
                });
            }
            Ok(frame) => {
                if !early.hold(frame, arrival_of(&received)) {
                    return Err(ConnectError::Protocol("too much before `connected`".to_owned()));
                }
            }
            Err(DecodeError::Unknown { name, .. }) => tracing::debug!(name, "unknown frame"),
            Err(error @ DecodeError::Invalid { .. }) if error.id() != Some(id) => {
                tracing::warn!(%error, "a frame cannot be understood");
            }
            Err(error) => return Err(ConnectError::Protocol(error.to_string())),
        }
    }
}

/// How a frame came, as far as that says whose it is.
pub(super) fn arrival_of(received: &Received) -> Arrival {
    let stream = match received.via {
        Via::Stream(id) => Some(id),
        Via::Control | Via::Datagram | Via::WebSocket => None,
    };
    Arrival { stream, bytes: received.frame.len() }
}

fn refused(closed: Closed) -> ConnectError {
    match closed.code {
        Some(code) if (3000..4000).contains(&code) => ConnectError::Refused {
            code,
            reconnect: closed.reconnect(),
            reason: closed.reason.into(),
            message: None,
            retry_after: None,
        },
        _ => ConnectError::Lost(closed.reason),
    }
}
