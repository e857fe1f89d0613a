//! What a client may ask for once its session is open.

use super::{
    Done, Session,
    connection::Connection,
    opening::milliseconds,
    subscriptions::{self, Refusal, require},
};
use crate::{
    auth::{AuthError, rights::Right},
    broadcast::Broadcast,
    broker::{Accepted, Page, PageLimit, PageOf, Publish},
};
use skywave_protocol::{
    Channel, ClientFrame, CloseCode, ErrorCode, ServerFrame,
    frame::{
        self, Error, Event, History, HistoryRequest, MAX_HISTORY_LIMIT, Members, Network, Presence,
        Published, Refreshed, RequestId,
    },
    heartbeat::Activity,
};
use std::time::Duration;
use tokio::time::Instant;

impl<C: Connection> Session<C> {
    pub(super) async fn request(&mut self, frame: ClientFrame) -> Result<(), CloseCode> {
        let id = request_id(&frame);
        if let Err(wait) = self.admit(&frame) {
            self.fail(rate_limited(id, wait));
            return Ok(());
        }
        let done = match frame {
            ClientFrame::Connect(_) => {
                return self.bad_request(id, "the session is connected already".to_owned());
            }
            ClientFrame::Subscribe(request) => Box::pin(self.subscribe(request)).await,
            ClientFrame::Unsubscribe(request) => self.unsubscribe(request),
            ClientFrame::Publish(request) => self.publish(request),
            ClientFrame::Emit(request) => self.emit(request).await,
            ClientFrame::History(request) => self.history(request),
            ClientFrame::Presence(request) => self.presence(request),
            ClientFrame::Call(_) => {
                Err(Refusal::new(ErrorCode::NotAvailable, "no application answers calls on this node"))
            }
            ClientFrame::Refresh(request) => Box::pin(self.refresh(request)).await,
            ClientFrame::Network(network) => {
                self.network(&network);
                Ok(())
            }
            ClientFrame::Pong(_) => Ok(()),
        };
        match done {
            Ok(()) => Ok(()),
            Err(refusal) if refusal.code == ErrorCode::BadRequest => self.bad_request(id, refusal.message),
            Err(refusal) => {
                self.fail(Error::new(id, refusal.code, refusal.message));
                Ok(())
            }
        }
    }

    fn admit(&mut self, frame: &ClientFrame) -> Result<(), Duration> {
        let now = Instant::now().into_std();
        match frame {
            ClientFrame::Publish(_) => self.publishes.take(now),
            ClientFrame::Network(_) | ClientFrame::Pong(_) => Ok(()),
            _ => self.requests.take(now),
        }
    }

    fn publish(&mut self, request: frame::Publish) -> Result<(), Refusal> {
        require(&self.node, &self.grant, &request.channel, Right::Publish)?;
        let frame::Publish { id, channel, key, data } = request;
        let user = self.grant.user.clone();
        let accepting = self.node.publish(Publish { channel: channel.clone(), data, key, user });
        self.pending.push(Box::pin(async move {
            Done::Reply(match accepting.await {
                Ok(Accepted { origin, epoch, offset, .. }) => {
                    ServerFrame::Published(Published { id, channel, origin, epoch, offset })
                }
                Err(error) => refuse(id, error.into()),
            })
        }));
        Ok(())
    }

    async fn emit(&mut self, request: frame::Emit) -> Result<(), Refusal> {
        require(&self.node, &self.grant, &request.channel, Right::Emit)?;
        let event = Broadcast::new(Event {
            channel: request.channel,
            session: self.id.clone(),
            user: self.grant.user.clone(),
            slot: request.slot,
            data: request.data,
        });
        self.node.metrics.events.inc();
        Ok(self.node.broker.emit(event).await?)
    }

    fn history(&mut self, request: HistoryRequest) -> Result<(), Refusal> {
        require(&self.node, &self.grant, &request.channel, Right::History)?;
        let HistoryRequest { id, channel, limit, after, before } = request;
        if !(1..=MAX_HISTORY_LIMIT).contains(&limit) {
            let message = format!("`limit` is 1 to {MAX_HISTORY_LIMIT}");
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        let page = match (after, before) {
            (Some(_), Some(_)) => {
                return Err(Refusal::new(ErrorCode::BadRequest, "`after` and `before` exclude each other"));
            }
            (Some(position), None) => PageOf::After(position),
            (None, Some(cursor)) => PageOf::Before(cursor),
            (None, None) => PageOf::Last,
        };
        let limit = PageLimit { publications: limit as usize, bytes: self.outbox.max_bytes() / 4 };
        let read = self.node.broker.history(&channel, page, limit);
        self.pending.push(Box::pin(async move {
            Done::Reply(match read.await {
                Ok(page) => ServerFrame::History(history(id, channel, page)),
                Err(error) => refuse(id, error.into()),
            })
        }));
        Ok(())
    }

    fn presence(&mut self, request: frame::PresenceRequest) -> Result<(), Refusal> {
        subscriptions::require_presence(&self.node, &self.grant, &request.channel)?;
        let frame::PresenceRequest { id, channel } = request;
        let asked = self.node.presence.members(&channel);
        self.pending.push(Box::pin(async move {
            Done::Reply(match asked.await {
                Ok(Members { count, members }) => {
                    ServerFrame::Presence(Presence { id, channel, count, members })
                }
                Err(error) => refuse(id, error.into()),
            })
        }));
        Ok(())
    }

    async fn refresh(&mut self, request: frame::Refresh) -> Result<(), Refusal> {
        let grant = self.node.authenticator.verify(&request.token).await.map_err(|error| match error {
            AuthError::Expired => Refusal::new(ErrorCode::TokenExpired, "the token has expired"),
            AuthError::Invalid(reason) => Refusal::new(ErrorCode::Unauthenticated, reason),
            AuthError::Unavailable => Refusal::new(ErrorCode::Unavailable, error.to_string()),
        })?;
        if grant.user != self.grant.user {
            return Err(Refusal::new(ErrorCode::Forbidden, "the token is another user's"));
        }
        self.grant = grant;
        self.end_forbidden_subscriptions();
        let expires_at_ms = self.grant.expires_at.map_or(0, milliseconds);
        self.send(&ServerFrame::Refreshed(Refreshed { id: request.id, expires_at_ms }));
        Ok(())
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

fn request_id(frame: &ClientFrame) -> Option<RequestId> {
    match frame {
        ClientFrame::Connect(request) => Some(request.id),
        ClientFrame::Subscribe(request) => Some(request.id),
        ClientFrame::Unsubscribe(request) => Some(request.id),
        ClientFrame::Publish(request) => Some(request.id),
        ClientFrame::History(request) => Some(request.id),
        ClientFrame::Presence(request) => Some(request.id),
        ClientFrame::Call(request) => Some(request.id),
        ClientFrame::Refresh(request) => Some(request.id),
        ClientFrame::Emit(_) | ClientFrame::Network(_) | ClientFrame::Pong(_) => None,
    }
}

fn rate_limited(id: Option<RequestId>, wait: Duration) -> Error {
    let mut error = Error::new(id, ErrorCode::RateLimited, "too many requests");
    error.retry_after_ms = Some(wait.as_millis() as u64 + 1);
    error
}

fn refuse(id: RequestId, refusal: Refusal) -> ServerFrame {
    ServerFrame::Error(Error::new(Some(id), refusal.code, refusal.message))
}

fn history(id: RequestId, channel: Channel, page: Page) -> History {
    let publications = page.publications.iter().map(|publication| publication.frame().clone()).collect();
    History { id, channel, publications, cursor: page.cursor, more: false }
}
