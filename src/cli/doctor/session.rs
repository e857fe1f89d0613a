//! The doctor's sessions: one over each transport, timed.

use crate::cli::terminal::milliseconds;
use serde::Serialize;
use skywave::config::Secret;
use skywave_client::{
    TransportKind,
    transport::{Closed, Connection, DialError, Dialer, Lane, Sender},
    url::NodeUrl,
};
use skywave_protocol::{
    Channel, ClientFrame, RequestId, ServerFrame, Text,
    frame::{ClientInfo, Connect, Connected, Heartbeat, Limits, Region, Unsubscribe},
};
use std::{borrow::Cow, fmt, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// How long a connection, and then a session on it, may take to open.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// How many requests are timed, and how long the answer to each may take.
const SAMPLES: u32 = 5;
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Nobody is subscribed to it: to leave it is a request that any session may make, and that changes nothing.
const NO_CHANNEL: &str = "doctor:none";

/// A connection that a node answered on.
pub(crate) struct Opened {
    pub times: Times,
    pub answer: Answer,
    /// What WebTransport showed, in DER.
    pub certificate: Option<Vec<u8>>,
}

/// How fast a transport is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Times {
    /// From nothing to an open connection.
    #[serde(rename = "connect_ms", serialize_with = "as_milliseconds")]
    pub connect: Duration,
    /// From nothing to the node's answer to `connect`.
    #[serde(rename = "session_ms", serialize_with = "as_milliseconds")]
    pub session: Duration,
    /// From request to reply, sorted.
    #[serde(rename = "round_trips_ms", serialize_with = "all_as_milliseconds")]
    pub round_trips: Vec<Duration>,
}

fn as_milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(duration))
}

fn all_as_milliseconds<S: serde::Serializer>(
    durations: &[Duration],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(durations.iter().map(rounded))
}

/// Milliseconds, to the microsecond.
fn rounded(duration: &Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "connected in {}, session in {}",
            milliseconds(self.connect),
            milliseconds(self.session)
        )?;
        if let (Some(least), Some(median), Some(most)) = (
            self.round_trips.first(),
            self.round_trips.get(self.round_trips.len() / 2),
            self.round_trips.last(),
        ) {
            write!(
                formatter,
                ", round trip {} ({} … {} of {})",
                milliseconds(*median),
                milliseconds(*least),
                milliseconds(*most),
                self.round_trips.len()
            )?;
        }
        Ok(())
    }
}

/// The node's answer to `connect`.
pub(crate) enum Answer {
    Connected(Box<NodeSays>),
    Refused { code: u16, reason: String, message: Option<String> },
}

/// What a node says of itself and of the session. The session's secret is left out.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NodeSays {
    pub node: Arc<str>,
    pub region: Text<32>,
    pub user: Option<Arc<str>>,
    pub heartbeat: Heartbeat,
    pub limits: Limits,
    pub regions: Vec<Region>,
    pub prefer_url: Option<Arc<str>>,
}

impl From<Connected> for NodeSays {
    fn from(connected: Connected) -> Self {
        let Connected { node, region, user, heartbeat, limits, regions, prefer_url, .. } = connected;
        Self { node, region, user, heartbeat, limits, regions, prefer_url }
    }
}

impl fmt::Display for NodeSays {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { frame_bytes, channels_per_session, requests_per_second, publishes_per_second, .. } =
            self.limits;
        let limit = |limit: u64| if limit == 0 { "any number of".to_owned() } else { limit.to_string() };
        write!(formatter, "{} in region {}", self.node, self.region)?;
        match &self.user {
            Some(user) => write!(formatter, ", lets you in as {user}")?,
            None => formatter.write_str(", lets you in without a name")?,
        }
        write!(
            formatter,
            "; takes frames of {} bytes, {} channels, {} requests and {} publishes per second",
            limit(frame_bytes),
            limit(channels_per_session),
            limit(requests_per_second),
            limit(publishes_per_second)
        )?;
        for region in &self.regions {
            write!(formatter, "; knows region {} at {}", region.name, region.url)?;
        }
        match &self.prefer_url {
            Some(url) => write!(formatter, "; prefers you at {url}"),
            None => Ok(()),
        }
    }
}

/// Why a node did not answer over a transport.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("connected, but the session is not answered: {0}")]
    Silent(String),
}

/// Opens a session, times it and closes it again.
pub(crate) async fn open(
    dialer: &Dialer,
    url: &NodeUrl,
    kind: TransportKind,
    token: Option<&Secret>,
) -> Result<Opened, Failure> {
    let begin = Instant::now();
    let mut connection =
        timeout(TIMEOUT, dialer.dial(url, kind)).await.unwrap_or(Err(DialError::TimedOut))?;
    let connect = begin.elapsed();
    let certificate = shown(&connection.sender);
    let answer = timeout(TIMEOUT, greet(&mut connection, token))
        .await
        .unwrap_or_else(|_| Err(Failure::Silent("no answer in time".to_owned())))?;
    let session = begin.elapsed();
    let mut round_trips = Vec::new();
    if matches!(answer, Answer::Connected(_)) {
        round_trips = measure(&mut connection).await;
        round_trips.sort();
    }
    connection.sender.close(0, "").await;
    Ok(Opened { times: Times { connect, session, round_trips }, answer, certificate })
}

/// The certificate that WebTransport was shown.
fn shown(sender: &Sender) -> Option<Vec<u8>> {
    let Sender::WebTransport(sender) = sender else { return None };
    let chain = sender.connection().peer_identity()?;
    chain.as_slice().first().map(|certificate| certificate.der().to_vec())
}

/// Sends `connect` and waits for the answer.
async fn greet(connection: &mut Connection, token: Option<&Secret>) -> Result<Answer, Failure> {
    let named = |name: &str| Text::new(name).ok();
    let connect = ClientFrame::Connect(Connect {
        id: RequestId::MIN,
        token: token.map(|token| token.expose().into()),
        resume: None,
        attempt: None,
        subscriptions: Default::default(),
        client: named("skywave doctor")
            .map(|name| ClientInfo { name, version: named(env!("CARGO_PKG_VERSION")) }),
        network: None,
    });
    let frame = connection.encoding.encode(&connect).map_err(|error| Failure::Silent(error.to_string()))?;
    // A node that refuses at once may close before it has read: what it sent says why.
    let sent = connection.sender.send(&frame, Lane::Reliable).await;
    loop {
        let received = match connection.receiver.receive().await {
            Ok(received) => received,
            Err(Closed { code: Some(code), reason }) if code >= 3000 => {
                return Ok(Answer::Refused { code, reason, message: None });
            }
            Err(closed) => {
                let closed = sent.err().unwrap_or(closed);
                return Err(Failure::Silent(closed.to_string()));
            }
        };
        match connection.encoding.decode_server(&received.frame) {
            Ok(ServerFrame::Connected(connected)) => {
                return Ok(Answer::Connected(Box::new(connected.into())));
            }
            Ok(ServerFrame::Disconnect(last)) => {
                let message = last.message.map(Cow::into_owned);
                return Ok(Answer::Refused { code: last.code, reason: last.reason.into_owned(), message });
            }
            Ok(ServerFrame::Error(error)) => {
                let message = Some(error.message.into_owned());
                return Ok(Answer::Refused { code: error.code, reason: error.reason.into_owned(), message });
            }
            Ok(_) => {}
            Err(error) => return Err(Failure::Silent(format!("this is no Skywave node: {error}"))),
        }
    }
}

/// Times a few requests; stops at the first that has no answer.
async fn measure(connection: &mut Connection) -> Vec<Duration> {
    let mut round_trips = Vec::new();
    for number in 0..SAMPLES {
        let Some(id) = RequestId::new(2 + number) else { break };
        let begin = Instant::now();
        match timeout(SAMPLE_TIMEOUT, round_trip(connection, id)).await {
            Ok(Some(())) => round_trips.push(begin.elapsed()),
            _ => break,
        }
    }
    round_trips
}

/// Makes a request that changes nothing, and waits for its answer; `None` when the connection ends.
async fn round_trip(connection: &mut Connection, id: RequestId) -> Option<()> {
    let channel = Channel::new(NO_CHANNEL).ok()?;
    let request = ClientFrame::Unsubscribe(Unsubscribe { id, channel });
    let frame = connection.encoding.encode(&request).ok()?;
    connection.sender.send(&frame, Lane::Reliable).await.ok()?;
    loop {
        let received = connection.receiver.receive().await.ok()?;
        let answered = match connection.encoding.decode_server(&received.frame) {
            Ok(ServerFrame::Unsubscribed(unsubscribed)) => unsubscribed.id,
            Ok(ServerFrame::Error(error)) => error.id,
            _ => None,
        };
        if answered == Some(id) {
            return Some(());
        }
    }
}
