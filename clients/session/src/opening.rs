//! Opening a connection: a handshake, `connect`, `connected`.

use crate::{
    Arrival, ConnectError, ConnectionId, Dial, Held, Lane, Output, Reader, Session, Status, Target, Time,
    Tokens, TransportKind, Wanted, Wish, carrier::Ending, url::NodeUrl,
};
use skywave_protocol::{
    Channel, ClientFrame, DecodeError, Encoding, RequestId, ServerFrame,
    frame::{Connect, Network, SubscribeOptions},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long `connected` may take after the handshake when there are other nodes.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a connection is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// There is none, or it may be dead.
    Connect,
    /// The node drains.
    Drain,
    /// The node knows of a better one.
    Prefer,
    /// The application wants another transport.
    Switch,
}

impl Purpose {
    /// Whether the session cannot stay where it is.
    pub(crate) fn is_needed(self) -> bool {
        matches!(self, Self::Connect | Self::Drain)
    }
}

/// A connection on its way.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) connection: ConnectionId,
    /// Who is tried; once there is a connection, the one that it leads to.
    pub(crate) targets: Vec<Target>,
    pub(crate) purpose: Purpose,
    /// The token that `connect` has, as far as it is known.
    pub(crate) token: Option<Arc<str>>,
    pub(crate) stage: Stage,
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Handshakes are under way.
    Dialing,
    /// A node was sent `connect`.
    Greeting(Box<Greeting>),
}

/// What is known of a connection on which `connected` is awaited.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) kind: TransportKind,
    pub(crate) encoding: Encoding,
    /// The id of its `connect`.
    id: RequestId,
    /// Until when `connected` has to be there.
    pub(crate) by: Time,
    /// The channels that `connect` asks for.
    pub(crate) wanted: Wanted,
    /// What `connect` tells of the network.
    pub(crate) network: Network,
    /// What came before `connected`, in order.
    pub(crate) early: Held,
}

/// A handshake that completed.
#[derive(Debug)]
pub struct Dialed {
    /// Which of the targets it is.
    pub index: usize,
    pub kind: TransportKind,
    pub encoding: Encoding,
    /// How long it took; unknown to one that did not run all the while.
    pub took: Option<Duration>,
    /// The targets that failed before.
    pub failed: Vec<usize>,
    /// The one that was to be had first.
    pub token: Option<Arc<str>>,
}

impl<R: Reader> Session<R> {
    /// Begins to open a connection: to `named` first, where a node or the application names one.
    pub(crate) fn open(
        &mut self,
        purpose: Purpose,
        named: Option<NodeUrl>,
        forced: Option<TransportKind>,
        now: Time,
    ) {
        let leaving = self.live.as_ref().map(|live| &live.url);
        let is_doubted = purpose == Purpose::Connect && leaving.is_some();
        let wish =
            Wish { named: named.as_ref(), is_alone: !purpose.is_needed(), forced, leaving, is_doubted };
        let targets = self.route.targets(&wish, now);
        let head_start = self.route.head_start(targets.first(), named.is_some());
        self.reconnect_at = None;
        self.attempts = self.attempts.saturating_add(1);
        self.last_connection += 1;
        if self.live.is_none() {
            self.put_out(Output::Status(Status::Connecting { attempt: self.attempts }));
        }
        let connection = ConnectionId(self.last_connection);
        let token = match &self.options.tokens {
            Tokens::Fixed(token) => Some(token.clone()),
            Tokens::None | Tokens::Fetched => None,
        };
        self.put_out(Output::Dial(Dial {
            connection,
            targets: targets.clone(),
            head_start,
            timeout: self.options.connect_timeout,
            needs_token: matches!(self.options.tokens, Tokens::Fetched),
        }));
        self.opening = Some(Opening { connection, targets, purpose, token, stage: Stage::Dialing });
    }

    /// What came of the handshakes that [`Output::Dial`] asked for.
    pub fn dialed(&mut self, connection: ConnectionId, outcome: Result<Dialed, ConnectError>, now: Time) {
        let Some(mut opening) = self.opening.take_if(|one| one.connection == connection) else {
            // It was given up meanwhile.
            return self.put_out(Output::Close { connection });
        };
        let Dialed { index, kind, encoding, took, failed, token } = match outcome {
            Ok(dialed) => dialed,
            Err(error) => return self.failed(opening, error, now),
        };
        for index in failed {
            self.route.failed(&opening.targets[index].url, None);
        }
        // However long the handshake took: a node that is given up now may have taken the session already, and
        // the connection before would end for nothing.
        let is_alone = opening.targets.len() == 1;
        let target = opening.targets.swap_remove(index);
        if let Some(took) = took {
            self.route.dialed(&target, kind, took, now);
        }
        opening.targets = vec![target];
        opening.token = token.or(opening.token);
        let patience = self.options.connect_timeout;
        let patience = if is_alone { patience } else { patience.min(GREETING_TIMEOUT) };
        let mut wanted = self.traffic.wanted(self.frame_limit);
        let subscriptions = std::mem::take(&mut wanted.subscriptions);
        let connect = self.connect_frame(opening.token.clone(), subscriptions);
        let id = connect.id;
        opening.stage = Stage::Greeting(Box::new(Greeting {
            kind,
            encoding,
            id,
            by: now + patience,
            wanted,
            network: self.options.network.clone(),
            early: Held::default(),
        }));
        match encoding.encode(&ClientFrame::Connect(connect)) {
            Ok(frame) => {
                self.put_out(Output::Send { connection, frame, lane: Lane::Reliable });
                self.opening = Some(opening);
            }
            Err(error) => self.failed(opening, ConnectError::Protocol(error.to_string()), now),
        }
    }

    fn connect_frame(
        &mut self,
        token: Option<Arc<str>>,
        subscriptions: BTreeMap<Channel, SubscribeOptions>,
    ) -> Connect {
        self.last_attempt += 1;
        let network = Some(self.options.network.clone()).filter(|network| *network != Network::default());
        Connect {
            id: self.traffic.next_id(),
            token,
            resume: self.resume.clone(),
            attempt: Some(self.last_attempt),
            subscriptions,
            client: self.options.client.clone(),
            network,
        }
    }

    /// The connection that is on its way is given up.
    pub(crate) fn give_up(&mut self, error: ConnectError, now: Time) {
        if let Some(opening) = self.opening.take() {
            self.failed(opening, error, now);
        }
    }

    /// A frame came before `connected`, or this is it.
    pub(crate) fn greeted(&mut self, frame: &[u8], arrival: Arrival, now: Time) {
        let Some(Opening { stage: Stage::Greeting(greeting), .. }) = &mut self.opening else { return };
        let id = greeting.id;
        let error = match greeting.encoding.decode_server(frame) {
            Ok(ServerFrame::Connected(connected)) if connected.id == id => {
                return self.established(connected, now);
            }
            Ok(ServerFrame::Disconnect(disconnect)) => Ending::from(disconnect).refusal(),
            Ok(ServerFrame::Error(error)) if error.id == Some(id) => ConnectError::Refused {
                code: error.code,
                reason: error.reason,
                message: Some(error.message),
                reconnect: error.transient,
                retry_after: error.retry_after_ms.map(Duration::from_millis),
            },
            Ok(frame) => {
                if greeting.early.hold(frame, arrival) {
                    return;
                }
                ConnectError::Protocol("too much before `connected`".to_owned())
            }
            Err(DecodeError::Unknown { name, .. }) => return tracing::debug!(name, "unknown frame"),
            Err(error @ DecodeError::Invalid { .. }) if error.id() != Some(id) => {
                return tracing::warn!(%error, "a frame cannot be understood");
            }
            Err(error) => ConnectError::Protocol(error.to_string()),
        };
        self.give_up(error, now);
    }
}
