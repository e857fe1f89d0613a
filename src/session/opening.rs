//! The first frame of a transport: who comes, on which session, with which subscriptions.

use super::{
    End, MAX_BAD_REQUESTS,
    connection::{Connection, Incoming},
};
use crate::{
    auth::{AuthError, Grant},
    broker::IDEMPOTENCY,
    claim::Claim,
    host::{Chance, milliseconds},
    hub::outbox::Outbox,
    limits::{Counted, Limit},
    node::Node,
    refusals::Refusal,
    registry::{self, Attached, quotas::Places},
};
use skywave_protocol::{
    Channel, ClientFrame, CloseCode, DecodeError, ErrorCode, ServerFrame, Text,
    codec::Unreadable,
    frame::{self, Connected, Error, Limits, SessionId, SubscribeOptions},
    heartbeat::{Activity, Heartbeat, PathKind},
    salvage::{Refused, Salvaged},
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The highest number of an attempt: Redis' scripts compare them as doubles.
const MAX_ATTEMPT: u64 = (1 << 53) - 1;

/// What is known of a session once it is open.
pub(crate) struct Opened {
    pub id: SessionId,
    pub claim: Claim,
    pub grant: Grant,
    /// What it is to be subscribed to.
    pub wanted: BTreeMap<Channel, SubscribeOptions>,
    /// What it asked to be subscribed to that makes no sense.
    pub refused: Vec<Refused>,
    pub heartbeat: Heartbeat,
    pub(crate) network_kind: Option<Text<32>>,
    pub places: Places,
    /// Counts it among the transports that a drain waits for.
    pub served: Counted,
}

/// Waits for `connect`, within `limits.connect_timeout`, checks it and answers it. Who has not said yet who comes is
/// not waited for when the node ends.
pub(crate) async fn open<C: Connection>(
    node: &Arc<Node>,
    connection: &mut C,
    outbox: &Arc<Outbox>,
) -> Result<Opened, End> {
    let wait = node.config.limits.connect_timeout;
    // An HTTP/2 connection brings many, and what bounds sessions bounds none of them yet.
    let address = connection.address().ip();
    let _place = node.sessions.quotas.newcomer(address).map_err(|limit| {
        node.refused(Refusal::Limit(limit));
        End::Closed(CloseCode::Overloaded)
    })?;
    let connect = tokio::select! {
        biased;
        connect = tokio::time::timeout(wait, first_frame(connection, outbox)) => connect,
        () = node.ends() => Ok(Err(End::Closed(CloseCode::Drain))),
    };
    let connect = connect.unwrap_or(Err(End::Closed(CloseCode::ConnectTimeout)))?;
    let peer = Peer {
        transport: connection.transport(),
        path: connection.path(),
        address: connection.address(),
        rtt: connection.rtt(),
        idle_timeout: connection.idle_timeout(),
    };
    // Not within the time limit: what it has begun, it has to finish or undo.
    welcome(node, peer, outbox, connect).await
}

async fn first_frame<C: Connection>(connection: &mut C, outbox: &Outbox) -> Result<Salvaged, End> {
    let mut bad_requests = 0;
    loop {
        match connection.drive(outbox).await {
            Incoming::Frame(ClientFrame::Connect(connect)) => {
                return Ok(Salvaged { connect, refused: Vec::new() });
            }
            Incoming::Unreadable(Unreadable { salvaged: Some(salvaged), .. }) => return Ok(*salvaged),
            Incoming::Unreadable(Unreadable { error, .. }) => match error {
                DecodeError::Invalid { name, id, message, .. } if name == "connect" => {
                    outbox.control(&ServerFrame::Error(Error::new(id, ErrorCode::BadRequest, message)));
                    bad_requests += 1;
                    if bad_requests >= MAX_BAD_REQUESTS {
                        return Err(End::Closed(CloseCode::BadFrame));
                    }
                }
                _ => return Err(End::Closed(CloseCode::BadFrame)),
            },
            Incoming::Frame(_) => return Err(End::Closed(CloseCode::BadFrame)),
            Incoming::Alive | Incoming::Moved(_) => {}
            Incoming::Broken(code) => return Err(End::Closed(code)),
            Incoming::Gone => return Err(End::Gone),
            Incoming::Cut => return Err(End::Cut),
        }
    }
}

/// Where a session comes from.
struct Peer {
    transport: &'static str,
    path: PathKind,
    address: SocketAddr,
    /// What the transport has measured so far, if it does.
    rtt: Option<Duration>,
    idle_timeout: Option<Duration>,
}

async fn welcome(node: &Arc<Node>, peer: Peer, outbox: &Arc<Outbox>, first: Salvaged) -> Result<Opened, End> {
    let Salvaged { connect, refused } = first;
    if node.cluster.turns_away() {
        return Err(End::Closed(CloseCode::Drain));
    }
    let grant = authenticate(node, connect.token.as_deref()).await.map_err(End::Refused)?;
    let resumed = resumed_session(node, connect.resume.as_deref(), &grant)
        .inspect_err(|error| node.refused(Refusal::Token(*error)))
        .map_err(End::Refused)?;
    let (id, turn) = resumed.unwrap_or_else(|| (random_session_id(&node.host.chance), 0));
    let resumed = turn > 0;
    let places = places(node, &id, resumed, peer.address, &grant).map_err(End::Closed)?;
    outbox.identify(id.clone());
    // Before it is attached: a drain that begins now waits for it or turns it away.
    let served = node.sessions.served.enter();
    let attached = Attached {
        outbox: outbox.clone(),
        user: grant.user.clone(),
        transport: peer.transport,
        address: peer.address,
        connected_at_ms: node.host.clock.now_ms(),
        claim: node.sessions.claim(connect.attempt.unwrap_or(0).min(MAX_ATTEMPT), turn),
        asked_at: None,
    };
    node.sessions
        .attach(id.clone(), attached.clone())
        .map_err(|registry::Outdated| End::Closed(CloseCode::Replaced))?;
    if node.cluster.turns_away() {
        // It began meanwhile, and may have passed this session over.
        node.sessions.detach(&id, outbox);
        return Err(End::Closed(CloseCode::Drain));
    }
    node.cluster.fencing.claim(&id, &attached);
    let opened = &node.metrics;
    let counter = if resumed { &opened.sessions_resumed } else { &opened.sessions_opened };
    counter.with_label_values(&[peer.transport]).inc();

    let network = connect.network.unwrap_or_default();
    let activity = Activity::from_hint(network.kind.as_deref(), network.background);
    let now = Instant::now().into_std();
    let mut heartbeat = Heartbeat::new(&node.config.heartbeat, peer.path, activity, now);
    if resumed && let Some(memory) = node.sessions.path_memories.take(&id, peer.transport) {
        heartbeat.remember(memory);
    }
    if let Some(idle_timeout) = peer.idle_timeout {
        heartbeat.respect_idle_timeout(idle_timeout);
    }
    if let Some(rtt) = peer.rtt {
        heartbeat.begin_with_rtt(rtt);
    }
    let connected = connected(node, &grant, &id, connect.id, turn, &heartbeat);
    outbox.control(&ServerFrame::Connected(connected));
    let wanted = connect.subscriptions;
    let claim = attached.claim;
    Ok(Opened { id, claim, grant, wanted, refused, heartbeat, network_kind: network.kind, places, served })
}

async fn authenticate(node: &Node, token: Option<&str>) -> Result<Grant, AuthError> {
    match token {
        Some(token) => node.verify(token).await,
        None => {
            let anonymous = node.authenticator.anonymous().ok_or(AuthError::Missing);
            anonymous.inspect_err(|error| node.refused(Refusal::Token(*error)))
        }
    }
}

/// The session that the resume secret proves, and which of its transports this is. A broken or expired secret means a
/// fresh session; one of another user is refused.
fn resumed_session(
    node: &Node,
    secret: Option<&str>,
    grant: &Grant,
) -> Result<Option<(SessionId, u64)>, AuthError> {
    let verified = secret.map(|secret| node.resume_key.verify(secret, node.host.clock.now()));
    let verified = verified.transpose().inspect_err(|error| node.refused(Refusal::Resume(*error)));
    let Ok(Some(resume)) = verified else { return Ok(None) };
    if resume.user.as_deref() != grant.user.as_deref() {
        return Err(AuthError::OtherUser);
    }
    Ok(Text::new(&resume.session).ok().map(|id| (id, resume.turn)))
}

fn places(
    node: &Node,
    id: &SessionId,
    resumed: bool,
    address: SocketAddr,
    grant: &Grant,
) -> Result<Places, CloseCode> {
    let (quotas, address, user) = (&node.sessions.quotas, address.ip(), grant.user.clone());
    if node.sessions.contains(id) {
        return Ok(quotas.take_over(address, user));
    }
    quotas.take(address, user).map_err(|limit| {
        node.refused(Refusal::Limit(limit));
        match limit {
            // The limit is each node's own. A session that was within that of another one has to find a place, and does
            // not end.
            Limit::User if !resumed => CloseCode::TooManySessions,
            Limit::User | Limit::Node | Limit::Address(_) | Limit::Newcomers(_) => CloseCode::Overloaded,
        }
    })
}

fn connected(
    node: &Node,
    grant: &Grant,
    id: &SessionId,
    request: frame::RequestId,
    turn: u64,
    heartbeat: &Heartbeat,
) -> Connected {
    let limits = &node.config.limits;
    let schedule = heartbeat.schedule();
    let resumed = turn > 0;
    let secret =
        node.resume_key.issue(id, grant.user.as_deref(), turn.saturating_add(1), node.host.clock.now());
    Connected {
        id: request,
        session: id.clone(),
        resume: secret.into(),
        node: node.cluster.id.clone(),
        region: node.cluster.region.clone(),
        user: grant.user.clone(),
        expires_at_ms: grant.expires_at.map(milliseconds),
        resumed,
        heartbeat: frame::Heartbeat {
            interval_ms: schedule.interval.as_millis() as u64,
            timeout_ms: schedule.timeout.as_millis() as u64,
        },
        limits: Limits {
            frame_bytes: limits.frame_bytes as u64,
            channels_per_session: limits.channels_per_session as u64,
            requests_per_second: u64::from(limits.requests_per_second),
            publishes_per_second: u64::from(limits.publishes_per_second),
            idempotency_ms: IDEMPOTENCY.as_millis() as u64,
        },
        regions: node.cluster.alternatives(id),
        // A session that goes on may just have been moved off that node.
        prefer_url: grant
            .user
            .as_deref()
            .filter(|_| !resumed)
            .and_then(|user| node.cluster.preferred_url(user)),
    }
}

fn random_session_id(chance: &Chance) -> SessionId {
    let id = format!("{:024x}", chance.any::<u128>() >> 32);
    Text::new(id).unwrap_or_else(|error| unreachable!("24 bytes fit: {error}"))
}
