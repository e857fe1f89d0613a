//! A session's subscriptions: admission, recovery, and their end.

use super::{Session, filling::fill};
use crate::{
    auth::{
        Grant,
        rights::{Right, Rights},
    },
    broadcast::encode_frame,
    broker::{BrokerError, Chunk, From},
    config::NamespaceConfig,
    hub::{Membership, outbox::Outbox},
    node::Node,
    presence::Stay,
    session::connection::Connection,
};
use futures_util::{StreamExt, stream};
use skywave_protocol::{
    Channel, ErrorCode, Json, ServerFrame,
    frame::{
        self, MAX_HISTORY_LIMIT, Members, RequestId, SessionId, SubscribeOptions, Subscribed, Unsubscribed,
    },
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The most channels of a `connect` that are read at a time.
const MAX_READS: usize = 32;

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
    let joining = join(subscriber, subscribed_already, channel, options)?;
    Ok(answer(subscriber, id, joining.read(subscriber).await?))
}

/// Subscribes to all of `wanted` that the session may have. They are read together and answered in their order.
pub async fn subscribe_all(
    subscriber: &Subscriber<'_>,
    wanted: BTreeMap<Channel, SubscribeOptions>,
) -> HashMap<Channel, Subscription> {
    // Those that are joined: each counts, unless it cannot be read.
    let places = AtomicUsize::new(0);
    let reading = wanted.into_iter().map(|(channel, options)| {
        let joining = join(subscriber, places.load(Ordering::Relaxed), channel.clone(), options);
        if joining.is_ok() {
            places.fetch_add(1, Ordering::Relaxed);
        }
        let places = &places;
        async move {
            let read = match joining {
                Ok(joining) => joining.read(subscriber).await.map_err(|error| {
                    places.fetch_sub(1, Ordering::Relaxed);
                    error.into()
                }),
                Err(refusal) => Err(refusal),
            };
            (channel, read)
        }
    });
    let mut reads = std::pin::pin!(stream::iter(reading).buffered(MAX_READS));
    let mut all = HashMap::new();
    while let Some((channel, read)) = reads.next().await {
        match read {
            Ok(joined) => {
                all.insert(channel, answer(subscriber, None, joined));
            }
            Err(refusal) => {
                let outbox = subscriber.outbox;
                outbox.control(encode_frame(&ended(channel, refusal.code), outbox.encoding()));
            }
        }
    }
    all
}

/// Tells that a channel is not subscribed to, without having been asked.
fn ended(channel: Channel, code: ErrorCode) -> ServerFrame {
    let (code, reason) = (Some(code.code()), Some(code.reason().into()));
    ServerFrame::Unsubscribed(Unsubscribed { id: None, channel, code, reason })
}

/// A channel that is joined: what is published from then on gathers behind the history that is to be read.
struct Joining {
    membership: Membership,
    options: SubscribeOptions,
}

/// A channel of which the first part of the history was read.
struct Joined {
    membership: Membership,
    stay: Option<Stay>,
    /// Who is there, if the session asked for it.
    presence: Option<Members>,
    resumes: bool,
    chunk: Chunk,
}

fn join(
    subscriber: &Subscriber<'_>,
    subscribed_already: usize,
    channel: Channel,
    options: SubscribeOptions,
) -> Result<Joining, Refusal> {
    admit(subscriber, subscribed_already, &channel, &options)?;
    let membership = subscriber.node.hub.join(channel, subscriber.outbox, options.presence);
    Ok(Joining { membership, options })
}

impl Joining {
    async fn read(self, subscriber: &Subscriber<'_>) -> Result<Joined, BrokerError> {
        let Self { membership, options: SubscribeOptions { position, history, presence } } = self;
        let Subscriber { node, session, grant, .. } = *subscriber;
        let channel = membership.channel();
        let resumes = position.is_some();
        let from = match (position, history) {
            (Some(position), _) => From::Position(position),
            (None, Some(count)) => From::Latest(count as usize),
            (None, None) => From::Head,
        };
        let chunk = node.broker.read(channel, from).await?;
        let data = grant.info.as_ref().and_then(|info| String::from_utf8(info.to_vec()).ok());
        let data = data.and_then(|info| Json::parse(info).ok());
        let stay = node.presence.arrive(channel, session, grant.user.clone(), data);
        let presence = match presence {
            true => Some(node.presence.members(channel).await?),
            false => None,
        };
        Ok(Joined { membership, stay, presence, resumes, chunk })
    }
}

fn answer(subscriber: &Subscriber<'_>, id: Option<RequestId>, joined: Joined) -> Subscription {
    let Subscriber { node, outbox, .. } = *subscriber;
    let Joined { membership, stay, presence, resumes, chunk } = joined;
    let subscription = Subscription { presence: presence.is_some(), membership, stay };
    let subscribed = Subscribed {
        id,
        channel: subscription.membership.channel().clone(),
        subscription: Some(subscription.membership.number()),
        position: chunk.start.clone(),
        recovered: resumes.then_some(chunk.loss().is_none()),
        reason: chunk.loss(),
        recovers: None,
        presence,
    };
    outbox.control(encode_frame(&ServerFrame::Subscribed(subscribed), outbox.encoding()));
    outbox.set_position(subscription.membership.lane(), chunk.start.clone());
    fill(outbox, &subscription.membership, chunk);
    node.metrics.subscriptions.inc();
    subscription
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

impl<C: Connection> Session<C> {
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
        self.send(&ended(channel.clone(), code));
    }

    fn leave(&self, mut subscription: Subscription) {
        if let Some(stay) = subscription.stay.take() {
            stay.leave();
        }
        drop(subscription);
        self.node.metrics.subscriptions.dec();
    }
}
