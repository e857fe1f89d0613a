//! A session's subscriptions: what it may subscribe to, and how they end.

use super::Session;
use crate::{
    auth::Grant,
    broker::BrokerError,
    hub::Membership,
    namespace::NamespaceConfig,
    node::Node,
    presence::Stay,
    rights::{Right, Rights},
    session::connection::Connection,
};
use skywave_protocol::{
    Channel, ErrorCode, ServerFrame,
    frame::{Error, RequestId, Unsubscribe, Unsubscribed},
};
use std::time::Duration;

/// A subscription of a session; dropping it ends it, and its presence after the grace period.
pub(crate) struct Subscription {
    pub membership: Membership,
    pub stay: Option<Stay>,
    /// It is told who comes and goes.
    pub presence: bool,
}

/// Keys are forgotten one by one.
const KEYS_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why something is not done, for an `error` or an `unsubscribed`.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub code: ErrorCode,
    pub message: String,
    /// The same may be asked again after this.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// There is too much to do for now.
    pub(crate) fn later(retry_after: Duration) -> Self {
        let refusal = Self::new(ErrorCode::RateLimited, "too many requests");
        Self { retry_after: Some(retry_after), ..refusal }
    }

    /// The answer to a request that waited.
    pub(crate) fn into_reply(self, id: RequestId) -> ServerFrame {
        ServerFrame::Error(self.to_error(Some(id)))
    }

    /// The answer to a request.
    pub(crate) fn to_error(&self, id: Option<RequestId>) -> Error {
        let mut error = Error::new(id, self.code, self.message.clone());
        // Not earlier, by whole milliseconds.
        error.retry_after_ms = self.retry_after.map(|wait| wait.as_millis() as u64 + 1);
        error
    }
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        let retry_after = (error == BrokerError::TooManyKeys).then_some(KEYS_RETRY_AFTER);
        Self { retry_after, ..Self::new(error.code(), error.to_string()) }
    }
}

/// The channel's namespace and what the session may do there.
pub(crate) fn rights_on<'a>(
    node: &'a Node,
    grant: &Grant,
    channel: &Channel,
) -> Result<(&'a NamespaceConfig, Rights), Refusal> {
    let Some(namespace) = node.config.channels.of(channel) else {
        let message = format!("no namespace `{}`", channel.namespace());
        return Err(Refusal::new(ErrorCode::UnknownNamespace, message));
    };
    Ok((namespace, grant.rights(namespace.allow, channel)))
}

/// The namespace, if the session has `right` on the channel.
pub(crate) fn require<'a>(
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
pub(crate) fn require_presence(node: &Node, grant: &Grant, channel: &Channel) -> Result<(), Refusal> {
    if require(node, grant, channel, Right::Presence)?.presence {
        Ok(())
    } else {
        Err(Refusal::new(ErrorCode::NotAvailable, "this namespace has no presence"))
    }
}

/// Tells that a channel is not subscribed to, without having been asked.
pub(crate) fn ended(channel: Channel, code: ErrorCode) -> ServerFrame {
    let (code, reason) = (Some(code.code()), Some(code.reason().into()));
    ServerFrame::Unsubscribed(Unsubscribed { id: None, channel, code, reason })
}

impl<C: Connection> Session<C> {
    pub(super) fn unsubscribe(&mut self, request: Unsubscribe) -> Result<(), Refusal> {
        let Err(request) = self.leave_joining(request) else { return Ok(()) };
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
