//! What a client may ask for once its session is open.

use super::{
    Session,
    connection::Connection,
    pending::{Done, Load, RETRY_AFTER},
    questions::Question,
    refusal::Refusal,
    subscriptions::require,
};
use crate::{
    auth::{AuthError, Grant},
    broadcast::Broadcast,
    broker::{Accepted, Publish},
    host::milliseconds,
    rights::Right,
};
use skywave_protocol::{
    Channel, ClientFrame, CloseCode, ErrorCode, ServerFrame,
    frame::{self, Event, Network, Published, Refreshed, RequestId},
    heartbeat::Activity,
};
use tokio::time::Instant;

impl<C: Connection> Session<C> {
    pub(super) fn request(&mut self, frame: ClientFrame) -> Result<(), CloseCode> {
        let id = frame.id();
        if let Err(refusal) = self.admit(&frame) {
            return self.settle(id, Err(refusal));
        }
        let done = match frame {
            ClientFrame::Connect(_) => {
                return self.bad_request(id, "the session is connected already".to_owned());
            }
            ClientFrame::Subscribe(request) => self.subscribe(request),
            ClientFrame::Unsubscribe(request) => self.unsubscribe(request),
            ClientFrame::Publish(request) => self.publish(request),
            ClientFrame::Emit(request) => self.emit(request),
            ClientFrame::History(request) => self.ask(Question::History(request)),
            ClientFrame::Presence(request) => self.ask(Question::Presence(request)),
            ClientFrame::Call(_) => {
                Err(Refusal::new(ErrorCode::NotAvailable, "no application answers calls on this node"))
            }
            ClientFrame::Refresh(request) => {
                self.refresh(request);
                Ok(())
            }
            ClientFrame::Network(network) => {
                self.network(&network);
                Ok(())
            }
            ClientFrame::Pong(_) => Ok(()),
        };
        self.settle(id, done)
    }

    /// Answers a request that is refused.
    pub(super) fn settle(
        &mut self,
        id: Option<RequestId>,
        done: Result<(), Refusal>,
    ) -> Result<(), CloseCode> {
        match done {
            Ok(()) => Ok(()),
            Err(refusal) if refusal.code == ErrorCode::BadRequest => self.bad_request(id, refusal.message),
            Err(refusal) => {
                self.fail(refusal.to_error(id));
                Ok(())
            }
        }
    }

    /// Takes a request that is within the session's rates, and for which there is room.
    fn admit(&mut self, frame: &ClientFrame) -> Result<(), Refusal> {
        let now = Instant::now();
        let (rate, load) = match frame {
            // Leaving is never refused: a client that could not leave would keep what it has given up. It
            // costs no more than a refusal, since what is left was subscribed to.
            ClientFrame::Unsubscribe(_) | ClientFrame::Network(_) | ClientFrame::Pong(_) => return Ok(()),
            ClientFrame::Publish(publish) => (&mut self.publishes, Some(Load::Publish(publish.data.size()))),
            ClientFrame::Refresh(_) => (&mut self.requests, Some(Load::Refresh)),
            _ => (&mut self.requests, None),
        };
        if load.is_some_and(|load| !self.pending.has_room(load)) {
            return Err(Refusal::later(RETRY_AFTER));
        }
        rate.take(now).map_err(Refusal::later)
    }

    fn publish(&mut self, request: frame::Publish) -> Result<(), Refusal> {
        require(&self.node, &self.grant, &request.channel, Right::Publish)?;
        let frame::Publish { id, channel, key, data } = request;
        let user = self.grant.user.clone();
        let load = Load::Publish(data.size());
        let accepting = self.node.publish(Publish { channel: channel.clone(), data, key, user });
        self.pending.begin(load, async move {
            Done::Reply(match accepting.await {
                Ok(Accepted { origin, epoch, offset, .. }) => {
                    ServerFrame::Published(Published { id, channel, origin, epoch, offset })
                }
                Err(error) => Refusal::from(error).into_reply(id),
            })
        });
        Ok(())
    }

    fn emit(&mut self, request: frame::Emit) -> Result<(), Refusal> {
        require(&self.node, &self.grant, &request.channel, Right::Emit)?;
        let event = Broadcast::new(Event {
            channel: request.channel,
            session: self.id.clone(),
            user: self.grant.user.clone(),
            slot: request.slot,
            data: request.data,
        });
        self.node.metrics.events.inc();
        Ok(self.node.broker.emit(event)?)
    }

    fn refresh(&mut self, request: frame::Refresh) {
        let node = self.node.clone();
        self.pending.begin(Load::Refresh, async move {
            Done::Refreshed(request.id, node.verify(&request.token).await)
        });
    }

    pub(super) fn finish_refresh(&mut self, id: RequestId, verified: Result<Grant, AuthError>) {
        match verified.map_err(refused_token).and_then(|grant| self.take_grant(grant)) {
            Ok(expires_at_ms) => self.send(&ServerFrame::Refreshed(Refreshed { id, expires_at_ms })),
            Err(refusal) => self.fail(refusal.to_error(Some(id))),
        }
    }

    /// The session has the rights of another token from now on. Answers when that ends.
    fn take_grant(&mut self, grant: Grant) -> Result<u64, Refusal> {
        if grant.user != self.grant.user {
            return Err(Refusal::new(ErrorCode::Forbidden, "the token is another user's"));
        }
        self.grant = grant;
        self.end_forbidden_subscriptions();
        Ok(self.grant.expires_at.map_or(0, milliseconds))
    }

    /// A new token may grant less than the one before, presence included.
    fn end_forbidden_subscriptions(&mut self) {
        let is_forbidden = |channel: &Channel, presence: bool| {
            require(&self.node, &self.grant, channel, Right::Subscribe).is_err()
                || presence && require(&self.node, &self.grant, channel, Right::Presence).is_err()
        };
        let subscriptions = self.subscriptions.iter();
        let forbidden: Vec<_> = subscriptions
            .filter(|(channel, subscription)| is_forbidden(channel, subscription.presence))
            .map(|(channel, _)| channel.clone())
            .collect();
        for channel in forbidden {
            self.end_subscription(&channel, ErrorCode::Forbidden);
        }
    }

    fn network(&mut self, network: &Network) {
        let now = Instant::now().into_std();
        if network.kind.is_some() && network.kind != self.network_kind {
            self.network_kind = network.kind.clone();
            self.heartbeat.path_changed(now);
        }
        let activity = Activity::from_hint(network.kind.as_deref(), network.background);
        self.heartbeat.set_activity(activity, now);
    }
}

fn refused_token(error: AuthError) -> Refusal {
    match error {
        AuthError::Expired => Refusal::new(ErrorCode::TokenExpired, "the token has expired"),
        AuthError::Invalid(_) | AuthError::Missing | AuthError::OtherUser => {
            Refusal::new(ErrorCode::Unauthenticated, error.cause())
        }
        AuthError::Unavailable => Refusal::new(ErrorCode::Unavailable, error.to_string()),
    }
}
