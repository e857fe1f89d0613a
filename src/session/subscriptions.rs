//! A session's subscriptions: what it may subscribe to, and how they end.

use super::Session;
use crate::{
    auth::Grant,
    hub::Membership,
    namespace::NamespaceConfig,
    node::Node,
    presence::Stay,
    rights::{Right, Rights},
    session::{connection::Connection, refusal::Refusal},
};
use skywave_protocol::{
    Channel, ErrorCode, ServerFrame,
    frame::{Unsubscribe, Unsubscribed},
};

/// A subscription of a session; dropping it ends it, and its presence after the grace period.
pub(crate) struct Subscription {
    pub membership: Membership,
    pub stay: Option<Stay>,
    /// It is told who comes and goes.
    pub presence: bool,
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
