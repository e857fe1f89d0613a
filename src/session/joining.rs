//! Subscribing: a channel is joined at once and read while the session goes on; then `subscribed` is answered.

use super::{
    Session,
    connection::Connection,
    pending::{Done, Load, RETRY_AFTER},
    refusal::Refusal,
    subscriptions::{Subscription, ended, require, require_presence},
};
use crate::{
    broker::{BrokerError, Chunk, ReadFrom},
    hub::Membership,
    presence::Stay,
    rights::Right,
};
use skywave_protocol::{
    Channel, CloseCode, ErrorCode, Json, Position, ServerFrame,
    form::NoChannel,
    frame::{
        Error, MAX_HISTORY_LIMIT, Members, RequestId, Subscribe, SubscribeOptions, Subscribed, Unsubscribe,
    },
    salvage::Refused,
};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// What of one session is read at a time to subscribe to channels: so many histories, or fewer lists of who is there.
const MAX_READS: usize = 16;
/// A list stands whole in `subscribed`, so few of them may be under way when the peer stops reading.
const LIST_READS: usize = 4;
/// The most requests on one channel that wait until it is subscribed to.
const MAX_NEXT: usize = 16;

/// A channel that is joined: what is published from then on gathers behind the history that is being read.
pub(crate) struct Joining {
    membership: Membership,
    stay: Option<Stay>,
    /// Of the `subscribe`; a channel of `connect` has none.
    id: Option<RequestId>,
    wish: Wish,
    resumes: bool,
    /// What reading it takes of [`MAX_READS`]; nothing where no turn is waited for.
    reads: usize,
    /// What the client asked of the channel since: in turn to leave and to subscribe.
    next: VecDeque<Next>,
}

/// What of a subscription needs a right of its own.
#[derive(Debug, Clone, Copy)]
struct Wish {
    history: bool,
    presence: bool,
}

impl Wish {
    fn of(options: &SubscribeOptions) -> Self {
        // Whoever has seen nothing has missed nothing: from the beginning means history.
        let from_the_beginning = options.position.as_ref().is_some_and(Position::is_empty);
        Self { history: options.history.is_some() || from_the_beginning, presence: options.presence }
    }
}

enum Next {
    Unsubscribe(Unsubscribe),
    Subscribe(Subscribe),
}

/// What was read of a channel.
pub(crate) struct Joined {
    channel: Channel,
    outcome: Result<(Chunk, Option<Members>), BrokerError>,
}

impl Joining {
    /// Whether the client will have left when all is done that it asked for.
    fn is_left(&self) -> bool {
        matches!(self.next.back(), Some(Next::Unsubscribe(_)))
    }
}

impl<C: Connection> Session<C> {
    /// Begins to subscribe to a channel.
    pub(super) fn subscribe(&mut self, request: Subscribe) -> Result<(), Refusal> {
        let already =
            || Err(Refusal::new(ErrorCode::AlreadySubscribed, "already subscribed to this channel"));
        if let Some(joining) = self.joining.get_mut(&request.channel) {
            if !joining.is_left() {
                return already();
            }
            if joining.next.len() >= MAX_NEXT {
                return Err(Refusal::later(RETRY_AFTER));
            }
            joining.next.push_back(Next::Subscribe(request));
            return Ok(());
        }
        if self.subscriptions.contains_key(&request.channel) {
            return already();
        }
        let (id, channel) = (request.id, request.channel.clone());
        self.join(Some(id), channel, request.into_options())
    }

    /// Answers what of `connect` makes no sense.
    pub(super) fn refuse_all(&self, refused: Vec<Refused>) {
        for Refused { name, message } in refused {
            match name {
                Some(channel) => self.outbox.control(NoChannel::new(&channel)),
                // Nobody could tell which one is meant.
                None => self.fail(Error::new(None, ErrorCode::BadRequest, message)),
            }
        }
    }

    /// Begins to subscribe to the channels of `connect`.
    pub(super) fn join_all(&mut self, wanted: BTreeMap<Channel, SubscribeOptions>) {
        for (channel, options) in wanted {
            if let Err(refusal) = self.join(None, channel.clone(), options) {
                self.refuse_joining(None, channel, refusal);
            }
        }
    }

    /// Joins a channel to which the session is not subscribed, and has it read.
    pub(super) fn join(
        &mut self,
        id: Option<RequestId>,
        channel: Channel,
        options: SubscribeOptions,
    ) -> Result<(), Refusal> {
        let wish = Wish::of(&options);
        self.require_all(&channel, wish)?;
        let SubscribeOptions { position, history, presence } = options;
        if history.is_some_and(|count| !(1..=MAX_HISTORY_LIMIT).contains(&count)) {
            let message = format!("`history` is 1 to {MAX_HISTORY_LIMIT}");
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        if self.subscriptions.len() + self.joining.len() >= self.node.config.limits.channels_per_session {
            return Err(Refusal::new(ErrorCode::LimitReached, "too many channels in this session"));
        }
        let resumes = position.is_some();
        let from = match (position, history) {
            (Some(position), _) => ReadFrom::Position(position),
            (None, Some(count)) => ReadFrom::Latest(count as usize),
            (None, None) => ReadFrom::Head,
        };
        let reads = match from {
            _ if presence => LIST_READS,
            ReadFrom::Head => 0,
            ReadFrom::Latest(_) | ReadFrom::Position(_) => 1,
        };
        let membership = self.node.hub.join(channel.clone(), &self.outbox, presence);
        let stay = self.arrive(&channel);
        let next = VecDeque::new();
        let joining = Joining { membership, stay, id, wish, resumes, reads, next };
        self.joining.insert(channel.clone(), joining);
        if reads > 0 {
            self.unread.push_back((channel, from));
            self.read_in_turn();
        } else {
            self.read(channel, from, presence);
        }
        Ok(())
    }

    /// Whether a channel waits whose turn it is.
    pub(super) fn is_read_due(&self) -> bool {
        self.reads < MAX_READS && !self.unread.is_empty()
    }

    /// Begins to read channels whose turn it is, while the peer reads what it is answered.
    pub(super) fn read_in_turn(&mut self) {
        while self.reads < MAX_READS
            && !self.outbox.is_clogged()
            && let Some((channel, from)) = self.unread.pop_front()
        {
            let Some(Joining { reads, wish, .. }) = self.joining.get(&channel) else { continue };
            let presence = wish.presence;
            self.reads += reads;
            self.read(channel, from, presence);
        }
        if self.unread.is_empty() {
            self.unread = VecDeque::new();
        }
    }

    fn read(&mut self, channel: Channel, from: ReadFrom, presence: bool) {
        let read = self.node.broker.read(&channel, from);
        let listed = presence.then(|| self.node.presence.members(&channel));
        self.pending.begin(Load::Reading, async move {
            let outcome = async {
                let chunk = read.await?;
                let members = match listed {
                    Some(listed) => Some(listed.await?),
                    None => None,
                };
                Ok((chunk, members))
            };
            let outcome = outcome.await;
            Done::Joined(Joined { channel, outcome })
        });
    }

    /// The session may subscribe to the channel like this.
    fn require_all(&self, channel: &Channel, wish: Wish) -> Result<(), Refusal> {
        let (node, grant) = (&self.node, &self.grant);
        require(node, grant, channel, Right::Subscribe)?;
        if wish.history {
            require(node, grant, channel, Right::History)?;
        }
        if wish.presence {
            require_presence(node, grant, channel)?;
        }
        Ok(())
    }

    fn arrive(&self, channel: &Channel) -> Option<Stay> {
        let info = self.grant.info.as_ref().and_then(|info| String::from_utf8(info.to_vec()).ok());
        let data = info.and_then(|info| Json::parse(info).ok());
        self.node.presence.arrive(channel, (&self.id, self.claim), self.grant.user.clone(), data)
    }

    /// Answers `subscribed`, behind which come the publications; then does what the client asked of the channel
    /// meanwhile.
    pub(super) fn finish_joining(&mut self, joined: Joined) -> Result<(), CloseCode> {
        let Joined { channel, outcome } = joined;
        let Some(joining) = self.joining.remove(&channel) else { return Ok(()) };
        if self.joining.is_empty() {
            // An idle session keeps no room for it.
            self.joining = HashMap::new();
        }
        let Joining { membership, stay, id, wish, resumes, reads, next } = joining;
        self.reads -= reads;
        // A token that came meanwhile may grant less.
        let may = self.require_all(&channel, wish);
        match (may, outcome) {
            (Ok(()), Ok((chunk, presence))) => {
                self.outbox.set_position(membership.lane(), chunk.start.clone());
                // What came live meanwhile may make up for what history lost. Answers overtake what lanes have.
                let loss = self.outbox.fill(membership.lane(), &chunk);
                let subscribed = Subscribed {
                    id,
                    channel: channel.clone(),
                    subscription: Some(membership.number()),
                    position: chunk.start,
                    recovered: resumes.then_some(loss.is_none()),
                    reason: loss,
                    recovers: chunk.follows.filter(|_| resumes),
                    presence,
                };
                self.send(&ServerFrame::Subscribed(subscribed));
                self.node.metrics.subscriptions.inc();
                let subscription = Subscription { membership, stay, presence: wish.presence };
                self.subscriptions.insert(channel, subscription);
            }
            (Ok(()), Err(error)) => self.refuse_joining(id, channel, error.into()),
            (Err(refusal), _) => {
                if let Some(stay) = stay {
                    stay.leave();
                }
                self.refuse_joining(id, channel, refusal);
            }
        }
        for next in next {
            let (id, done) = match next {
                Next::Unsubscribe(request) => (request.id, self.unsubscribe(request)),
                Next::Subscribe(request) => (request.id, self.subscribe(request)),
            };
            self.settle(Some(id), done)?;
        }
        Ok(())
    }

    /// Tells that a channel cannot be subscribed to, or not now.
    pub(super) fn refuse_joining(&self, id: Option<RequestId>, channel: Channel, refusal: Refusal) {
        match id {
            Some(id) => self.fail(refusal.to_error(Some(id))),
            None => self.send(&ended(channel, refusal.code)),
        }
    }

    /// Leaves a channel, once it is subscribed to.
    pub(super) fn leave_joining(&mut self, request: Unsubscribe) -> Result<(), Unsubscribe> {
        match self.joining.get_mut(&request.channel) {
            Some(joining) if !joining.is_left() => {
                joining.next.push_back(Next::Unsubscribe(request));
                Ok(())
            }
            _ => Err(request),
        }
    }
}
