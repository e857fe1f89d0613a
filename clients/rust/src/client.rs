//! The handle that an application holds.

use crate::{
    engine::{self, Path},
    error::{ConnectError, RequestError},
    options::ClientOptions,
    orders::{Command, Ended, Handle},
    readers::EventQueue,
    subscription::Subscription,
    transport::TransportKind,
};
use skywave_client_session::{Connected, Status, SubscriptionId};
use skywave_protocol::{
    Channel, ClientFrame, ErrorCode, Payload, Position, RequestId, ServerFrame, Text,
    frame::{
        self, Call, History, HistoryRequest, Key, MAX_HISTORY_LIMIT, Network, Presence, PresenceRequest,
        Publication, Published, Slot, SubscribeOptions,
    },
    position::MAX_ORIGINS,
};
use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};

/// A session with a node, kept up over breaks, transports and nodes. Cheap to clone; the session ends
/// with [`Client::close`], or when all clones and subscriptions are dropped.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    status: watch::Receiver<Status>,
    path: watch::Receiver<Option<Path>>,
    settings: Arc<Settings>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Settings {
    request_timeout: Duration,
    subscription_queue: usize,
    /// Before the counter in idempotency keys; unique for this client.
    key_prefix: String,
    keys: AtomicU64,
    subscriptions: AtomicU64,
}

impl Client {
    /// Opens a session. Every URL is tried once; after that the client keeps the session up by itself.
    ///
    /// # Errors
    /// `ConnectError` when no URL gave a session.
    pub async fn connect(options: ClientOptions) -> Result<Self, ConnectError> {
        let settings = Settings {
            request_timeout: options.request_timeout,
            subscription_queue: options.subscription_queue.min(Semaphore::MAX_PERMITS),
            key_prefix: format!("{:032x}", rand::random::<u128>()),
            keys: AtomicU64::new(0),
            subscriptions: AtomicU64::new(0),
        };
        let (handle, status, path, first) = engine::start(options)?;
        first.await.unwrap_or(Err(ConnectError::Closed))?;
        Ok(Self { handle: Arc::new(handle), status, path, settings: Arc::new(settings) })
    }

    /// Subscribes to a channel, and waits until the node has answered. One client has one
    /// subscription per channel.
    ///
    /// # Errors
    /// `bad_request` for a name or options out of bounds; `already_subscribed`; what the node answers; `timeout`.
    pub async fn subscribe(
        &self,
        channel: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription, RequestError> {
        let channel = parse(channel)?;
        check(&options)?;
        let id = SubscriptionId(self.settings.subscriptions.fetch_add(1, Ordering::Relaxed));
        let (events, receiver) = mpsc::channel(self.settings.subscription_queue);
        let ended = Arc::new(OnceLock::new());
        let (reply, answer) = oneshot::channel();
        // Dropped on every way out but success, so that nothing stays subscribed unseen.
        let subscription = Subscription {
            channel: channel.clone(),
            id,
            events: receiver,
            ended: ended.clone(),
            done: false,
            handle: self.handle.clone(),
        };
        let reader = EventQueue { events, ended };
        self.send(Command::Subscribe { channel, id, options, reader, reply }).await?;
        self.answer(answer).await?;
        Ok(subscription)
    }

    /// Publishes, and waits for the position that the publication got. It has an idempotency key: it
    /// is sent again, with the same one, after a break or a transient error, until it is answered; so
    /// its effect is one. Dropping the future does not take it back.
    ///
    /// # Errors
    /// What the node answers, when that is not transient; `limit_reached` when too many publishes wait;
    /// `outcome_unknown` when there was no answer for as long as the node remembers the key, so that it cannot be sent
    /// again without the danger of publishing twice; `another_user` when the session came to have one.
    pub async fn publish(&self, channel: &str, data: impl Into<Payload>) -> Result<Published, RequestError> {
        let count = self.settings.keys.fetch_add(1, Ordering::Relaxed);
        let key = format!("{}-{count}", self.settings.key_prefix);
        self.publish_with_key(channel, data, &key).await
    }

    /// [`Client::publish`] with the caller's own idempotency key, at most 64 bytes.
    ///
    /// # Errors
    /// As for [`Client::publish`].
    pub async fn publish_with_key(
        &self,
        channel: &str,
        data: impl Into<Payload>,
        key: &str,
    ) -> Result<Published, RequestError> {
        let (reply, answer) = oneshot::channel();
        let channel = parse(channel)?;
        let key: Key = text("key", key)?;
        self.send(Command::Publish { channel, data: data.into(), key, reply }).await?;
        match answer.await.unwrap_or_else(|_| Err(RequestError::closed()))? {
            ServerFrame::Published(published) => Ok(published),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends an event to whoever is on the channel now. It may be lost; of those with the same `slot`
    /// only the latest matters.
    ///
    /// # Errors
    /// `unavailable` without a connection.
    pub async fn emit(
        &self,
        channel: &str,
        data: impl Into<Payload>,
        slot: Option<&str>,
    ) -> Result<(), RequestError> {
        let slot: Option<Slot> = slot.map(|slot| text("slot", slot)).transpose()?;
        if self.status.borrow().connected().is_none() {
            return Err(RequestError::not_connected());
        }
        self.send(Command::Emit(frame::Emit { channel: parse(channel)?, data: data.into(), slot })).await
    }

    /// Reads retained publications: `limit` (1 … 1,000) of them, oldest first, or as many as there are. A node's answers
    /// are bounded in bytes; the client asks on until it has all. Where there is no connection it waits for one, and where
    /// one breaks it asks again on the next.
    ///
    /// # Errors
    /// What the node answers, `bad_request` for the cursor of another region; `timeout`.
    pub async fn history(&self, channel: &str, range: HistoryRange) -> Result<History, RequestError> {
        let channel = parse(channel)?;
        let limit = range.limit.clamp(1, MAX_HISTORY_LIMIT);
        let before = range.before.map(|cursor| text("before", &cursor)).transpose()?;
        let first = self.page(&channel, limit, range.after.clone(), before.clone()).await?;
        match self.read_on(&channel, limit, range.after.clone(), first).await {
            // The session went to another region meanwhile, which takes no cursor of the one before.
            Err(error) if error.code == ErrorCode::BadRequest.code() => {
                let first = self.page(&channel, limit, range.after.clone(), before).await?;
                self.read_on(&channel, limit, range.after, first).await
            }
            read => read,
        }
    }

    /// Reads what is missing of `limit` publications after the first page.
    async fn read_on(
        &self,
        channel: &Channel,
        limit: u32,
        mut after: Option<Position>,
        mut read: History,
    ) -> Result<History, RequestError> {
        if let Some(position) = &mut after {
            pass(position, &read.publications);
        }
        loop {
            let left = limit.saturating_sub(u32::try_from(read.publications.len()).unwrap_or(u32::MAX));
            let before = read.cursor.clone().filter(|_| after.is_none());
            if left == 0 || !read.more || (after.is_none() && before.is_none()) {
                return Ok(read);
            }
            let mut page = self.page(channel, left, after.clone(), before).await?;
            read.more = page.more && !page.publications.is_empty();
            match &mut after {
                Some(position) => {
                    pass(position, &page.publications);
                    read.publications.append(&mut page.publications);
                }
                None => {
                    read.cursor = page.cursor;
                    page.publications.append(&mut read.publications);
                    read.publications = page.publications;
                }
            }
        }
    }

    async fn page(
        &self,
        channel: &Channel,
        limit: u32,
        after: Option<Position>,
        before: Option<Text<128>>,
    ) -> Result<History, RequestError> {
        let channel = channel.clone();
        let frame = move |id| ClientFrame::History(HistoryRequest { id, channel, limit, after, before });
        match self.request(frame).await? {
            ServerFrame::History(history) => Ok(history),
            other => Err(unexpected(&other)),
        }
    }

    /// Who is on the channel. It waits for a connection as [`Client::history`] does.
    ///
    /// # Errors
    /// What the node answers; `timeout`.
    pub async fn presence(&self, channel: &str) -> Result<Presence, RequestError> {
        let channel = parse(channel)?;
        match self.request(move |id| ClientFrame::Presence(PresenceRequest { id, channel })).await? {
            ServerFrame::Presence(presence) => Ok(presence),
            other => Err(unexpected(&other)),
        }
    }

    /// Calls a method of the application behind the node. It is waited for until `deadline`, which the node is told,
    /// however long other requests may take; without it as long as any other request. Where there is no connection it waits for
    /// one; it is sent once, as the application alone knows whether it may be made twice.
    ///
    /// # Errors
    /// What the node answers; `unavailable` when the connection breaks before the reply; `timeout`.
    pub async fn call(
        &self,
        method: &str,
        data: impl Into<Payload>,
        deadline: Option<Duration>,
    ) -> Result<Payload, RequestError> {
        let method: Text<128> = text("method", method)?;
        let data = data.into();
        let deadline_ms = deadline.map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
        let frame = move |id| ClientFrame::Call(Call { id, method, data, deadline_ms });
        match self.request_within(deadline.unwrap_or(self.settings.request_timeout), frame).await? {
            ServerFrame::Result(result) => Ok(result.data),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives the node a newer token for the same user; a fixed token is replaced by it, unless the node refuses it.
    /// Returns when it expires, in milliseconds since 1970.
    ///
    /// # Errors
    /// What the node answers; `unavailable` without a connection; `timeout`.
    pub async fn refresh(&self, token: impl Into<Arc<str>>) -> Result<u64, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Refresh { token: token.into(), reply }).await?;
        match self.answer(answer).await? {
            ServerFrame::Refreshed(refreshed) => Ok(refreshed.expires_at_ms),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells the node about the network and the application's visibility, now and at each connect.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn network(&self, hint: Network) -> Result<(), RequestError> {
        self.send(Command::Network(hint)).await
    }

    /// Asks the node for a sign of life at once; where none comes within two seconds, or longer on a slow path, the session
    /// goes on elsewhere. For whoever knows that the network changed or that the process was suspended. A client that waits
    /// for its next attempt to connect begins it, unless a node has said when.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn check(&self) -> Result<(), RequestError> {
        self.send(Command::Check).await
    }

    /// What the client is doing, and its changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The session and its connection, if there is one now.
    pub fn connected(&self) -> Option<Arc<Connected>> {
        self.status.borrow().connected().cloned()
    }

    /// The round-trip time to the node: QUIC's own on WebTransport, the smoothed time from request to reply on
    /// WebSocket, or where that is shorter, since QUIC does not know when this process was suspended. `None` without a
    /// connection or a sample.
    pub fn rtt(&self) -> Option<Duration> {
        self.path.borrow().as_ref()?.rtt()
    }

    /// Makes the connection vanish without a word to the node, as when the network is gone; the client
    /// then reconnects as it would. For tests and demonstrations.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn cut(&self) -> Result<(), RequestError> {
        self.send(Command::Cut).await
    }

    /// Moves the session to another transport: opens that first, resumes there and closes the old one.
    ///
    /// # Errors
    /// `Busy` when there is no session or another connection is being opened already, for a move or beside one that is
    /// silent; else why it could not be opened. The session then goes on as before.
    pub async fn switch(&self, kind: TransportKind) -> Result<(), ConnectError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Switch { kind, reply };
        self.handle.command(command).await.map_err(|Ended| ConnectError::Closed)?;
        answer.await.unwrap_or(Err(ConnectError::Closed))
    }

    /// Ends the session. Publishes that are not answered yet fail; await them first.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.handle.command(Command::Close(reply)).await.is_ok() {
            // An error says that the session ended on its own meanwhile.
            let _ = answer.await;
        }
    }

    async fn send(&self, command: Command) -> Result<(), RequestError> {
        self.handle.command(command).await.map_err(|Ended| RequestError::closed())
    }

    async fn request(
        &self,
        frame: impl FnOnce(RequestId) -> ClientFrame + Send + 'static,
    ) -> Result<ServerFrame, RequestError> {
        self.request_within(self.settings.request_timeout, frame).await
    }

    async fn request_within(
        &self,
        patience: Duration,
        frame: impl FnOnce(RequestId) -> ClientFrame + Send + 'static,
    ) -> Result<ServerFrame, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Request { frame: Box::new(frame), patience, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(RequestError::closed()))
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, RequestError>>) -> Result<T, RequestError> {
        match timeout(self.settings.request_timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RequestError::closed()),
            Err(_) => Err(RequestError::timed_out()),
        }
    }
}

/// Which retained publications to read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryRange {
    /// 1 … 1,000; anything else is brought into these bounds.
    pub limit: u32,
    /// Those after this position.
    pub after: Option<Position>,
    /// Those before the cursor of an earlier answer, which leads on in the region that gave it: another one, where
    /// publications stand in another order, answers `bad_request`.
    pub before: Option<String>,
}

impl HistoryRange {
    /// The last `limit` publications.
    pub fn last(limit: u32) -> Self {
        Self { limit, ..Self::default() }
    }
}

/// A node refuses a whole `connect` for what is out of bounds in one of its subscriptions.
fn check(options: &SubscribeOptions) -> Result<(), RequestError> {
    let out_of_bounds = |message| Err(RequestError::local(ErrorCode::BadRequest, message));
    if options.history.is_some_and(|history| !(1..=MAX_HISTORY_LIMIT).contains(&history)) {
        return out_of_bounds("a subscription begins with the last 1 … 1,000 publications");
    }
    if options.position.as_ref().is_some_and(|position| position.len() > MAX_ORIGINS) {
        return out_of_bounds("a position names at most 64 origins");
    }
    Ok(())
}

/// Moves `position` behind what was read.
fn pass(position: &mut Position, publications: &[Publication]) {
    for Publication { origin, epoch, offset, .. } in publications {
        position.advance(origin, epoch, *offset);
    }
}

fn parse(channel: &str) -> Result<Channel, RequestError> {
    Channel::new(channel).map_err(|error| RequestError::local(ErrorCode::BadRequest, error.to_string()))
}

fn text<const MAX: usize>(field: &str, value: &str) -> Result<Text<MAX>, RequestError> {
    Text::new(value).map_err(|error| RequestError::local(ErrorCode::BadRequest, format!("{field}: {error}")))
}

fn unexpected(_frame: &ServerFrame) -> RequestError {
    RequestError::local(ErrorCode::Internal, Cow::Borrowed("the node answered with another kind of reply"))
}
