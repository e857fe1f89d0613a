//! A session's subscriptions: admission, recovery, and filling a lane from history.

use super::Session;
use crate::{
    auth::{
        Grant,
        rights::{Right, Rights},
    },
    broadcast::encode_frame,
    broker::{BrokerError, Chunk, From},
    config::NamespaceConfig,
    hub::{
        Membership,
        outbox::{Item, LaneId, Outbox},
    },
    node::Node,
    presence::Stay,
    session::connection::Connection,
};
use skywave_protocol::{
    Channel, ErrorCode, Json, Position, ServerFrame,
    frame::{self, Gap, MAX_HISTORY_LIMIT, RequestId, SessionId, SubscribeOptions, Subscribed, Unsubscribed},
};
use std::sync::Arc;

/// A subscription of a session; dropping it ends it, and its presence after the grace period.
pub struct Subscription {
    pub membership: Membership,
    pub stay: Option<Stay>,
    /// It is told who comes and goes.
    pub presence: bool,
}

/// Why something is not done, for an `error` or an `unsubscribed`.
#[derive(Debug)]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl std::convert::From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Who subscribes.
pub struct Subscriber<'a> {
    pub node: &'a Arc<Node>,
    pub outbox: &'a Arc<Outbox>,
    pub session: &'a SessionId,
    pub grant: &'a Grant,
}

/// The channel's namespace and what the session may do there.
pub fn rights_on<'a>(
    node: &'a Node,
    grant: &Grant,
    channel: &Channel,
) -> Result<(&'a NamespaceConfig, Rights), Refusal> {
    let name = channel.namespace();
    let Some(namespace) = node.config.namespace(name) else {
        return Err(Refusal::new(ErrorCode::UnknownNamespace, format!("no namespace `{name}`")));
    };
    Ok((namespace, grant.rights(namespace.allow, channel)))
}

/// The namespace, if the session has `right` on the channel.
pub fn require<'a>(
    node: &'a Node,
    grant: &Grant,
    channel: &Channel,
    right: Right,
) -> Result<&'a NamespaceConfig, Refusal> {
    let (namespace, rights) = rights_on(node, grant, channel)?;
    if rights.contains(right) {
        Ok(namespace)
    } else {
        Err(Refusal::new(ErrorCode::Forbidden, format!("no right to {right} on this channel")))
    }
}

/// As [`require`] for presence, which the namespace must have.
pub fn require_presence(node: &Node, grant: &Grant, channel: &Channel) -> Result<(), Refusal> {
    if require(node, grant, channel, Right::Presence)?.presence {
        Ok(())
    } else {
        Err(Refusal::new(ErrorCode::NotAvailable, "this namespace has no presence"))
    }
}

/// Subscribes and answers `subscribed`; what is to be recovered follows it.
pub async fn subscribe(
    subscriber: &Subscriber<'_>,
    subscribed_already: usize,
    id: Option<RequestId>,
    channel: Channel,
    options: SubscribeOptions,
) -> Result<Subscription, Refusal> {
    let Subscriber { node, outbox, session, grant } = *subscriber;
    admit(subscriber, subscribed_already, &channel, &options)?;
    // First join, then read: what is published meanwhile gathers behind the history.
    let membership = node.hub.join(channel.clone(), outbox, options.presence);
    let resumes = options.position.is_some();
    let from = match (options.position, options.history) {
        (Some(position), _) => From::Position(position),
        (None, Some(count)) => From::Latest(count as usize),
        (None, None) => From::Head,
    };
    let chunk = node.broker.read(&channel, from).await?;
    let data = grant.info.as_ref().and_then(|info| String::from_utf8(info.to_vec()).ok());
    let data = data.and_then(|info| Json::parse(info).ok());
    let stay = node.presence.arrive(&channel, session, grant.user.clone(), data);
    let presence = match options.presence {
        true => Some(node.presence.members(&channel).await?),
        false => None,
    };
    let subscribed = Subscribed {
        id,
        channel: channel.clone(),
        position: chunk.start.clone(),
        recovered: resumes.then_some(chunk.loss().is_none()),
        reason: chunk.loss(),
        presence,
    };
    outbox.control(encode_frame(&ServerFrame::Subscribed(subscribed), outbox.encoding()));
    outbox.set_position(membership.lane(), chunk.start.clone());
    fill(outbox, &membership, chunk);
    node.metrics.subscriptions.inc();
    Ok(Subscription { membership, stay, presence: options.presence })
}

fn admit(
    subscriber: &Subscriber<'_>,
    subscribed_already: usize,
    channel: &Channel,
    options: &SubscribeOptions,
) -> Result<(), Refusal> {
    let Subscriber { node, grant, .. } = *subscriber;
    require(node, grant, channel, Right::Subscribe)?;
    if subscribed_already >= node.config.limits.channels_per_session {
        return Err(Refusal::new(ErrorCode::LimitReached, "too many channels in this session"));
    }
    if let Some(count) = options.history {
        if !(1..=MAX_HISTORY_LIMIT).contains(&count) {
            let message = format!("`history` is 1 to {MAX_HISTORY_LIMIT}");
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        require(node, grant, channel, Right::History)?;
    }
    if options.presence {
        require_presence(node, grant, channel)?;
    }
    Ok(())
}

/// Queues a part of the history, as much as there is room for; the rest is read when that is out.
fn fill(outbox: &Outbox, membership: &Membership, chunk: Chunk) {
    let mut items = Vec::with_capacity(chunk.lost.len() + chunk.publications.len());
    for lost in chunk.lost {
        let gap = Gap {
            channel: membership.channel().clone(),
            origin: lost.origin.clone(),
            reason: lost.reason,
            epoch: lost.point.epoch.clone(),
            offset: lost.point.offset,
        };
        let frame = encode_frame(&ServerFrame::Gap(gap), outbox.encoding());
        let position: Position = [(lost.origin, lost.point)].into_iter().collect();
        items.push(Item::Gap { frame, position });
    }
    items.extend(chunk.publications.into_iter().map(Item::Publication));
    outbox.fill(membership.lane(), items, chunk.complete);
}

impl<C: Connection> Session<C> {
    /// Reads the next part of a lane's history, from where its peer stands.
    pub(super) async fn fill(&mut self, lane: LaneId) {
        let Some(subscription) = self.subscriptions.values().find(|one| one.membership.lane() == lane) else {
            return;
        };
        let Some(position) = self.outbox.position(lane) else { return };
        let channel = subscription.membership.channel().clone();
        match self.node.broker.read(&channel, From::Position(position)).await {
            Ok(chunk) => fill(&self.outbox, &subscription.membership, chunk),
            // The client comes back to the channel with its position when the broker does.
            Err(error) => self.end_subscription(&channel, Refusal::from(error).code),
        }
    }

    pub(super) async fn subscribe(&mut self, request: frame::Subscribe) -> Result<(), Refusal> {
        let frame::Subscribe { id, channel, position, history, presence } = request;
        if self.subscriptions.contains_key(&channel) {
            return Err(Refusal::new(ErrorCode::AlreadySubscribed, "already subscribed to this channel"));
        }
        let subscriber =
            Subscriber { node: &self.node, outbox: &self.outbox, session: &self.id, grant: &self.grant };
        let options = SubscribeOptions { position, history, presence };
        let count = self.subscriptions.len();
        let subscription = subscribe(&subscriber, count, Some(id), channel.clone(), options).await?;
        self.subscriptions.insert(channel, subscription);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, request: frame::Unsubscribe) -> Result<(), Refusal> {
        let Some(subscription) = self.subscriptions.remove(&request.channel) else {
            return Err(Refusal::new(ErrorCode::NotSubscribed, "not subscribed to this channel"));
        };
        self.leave(subscription);
        self.send(&ServerFrame::Unsubscribed(Unsubscribed {
            id: Some(request.id),
            channel: request.channel,
            code: None,
            reason: None,
        }));
        Ok(())
    }

    /// Ends a subscription from the node's side.
    pub(super) fn end_subscription(&mut self, channel: &Channel, code: ErrorCode) {
        let Some(subscription) = self.subscriptions.remove(channel) else { return };
        self.leave(subscription);
        self.send(&ServerFrame::Unsubscribed(Unsubscribed {
            id: None,
            channel: channel.clone(),
            code: Some(code.code()),
            reason: Some(code.reason().into()),
        }));
    }

    fn leave(&self, mut subscription: Subscription) {
        if let Some(stay) = subscription.stay.take() {
            stay.leave();
        }
        drop(subscription);
        self.node.metrics.subscriptions.dec();
    }
}
