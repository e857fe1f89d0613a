//! The session: one connection or, during a move, two; reconnects, moves, tokens.

use crate::{
    Chance, ConnectError, ConnectionId, Lane, Output, Reader, RequestError, Route, RouteOptions, Ticket,
    Time, TokenError, TokenSchedule, Traffic, TrafficOptions, Waiter,
    carrier::{Carrier, Ending},
    living::Finding,
    opening::{Opening, Purpose, Stage},
    url::NodeUrl,
};
use skywave_protocol::{
    ClientFrame, CloseCode,
    frame::{ClientInfo, Network, Refresh, SessionId},
};
use std::{borrow::Cow, sync::Arc, time::Duration};

/// The limit on frames until a node has told its own.
const USUAL_FRAME_LIMIT: u64 = 65_536;

/// Where tokens come from.
#[derive(Debug, Clone)]
pub enum Tokens {
    /// There are none: an anonymous session.
    None,
    /// Always this one, until the application brings another.
    Fixed(Arc<str>),
    /// Asked for at each connect and ahead of the token's expiry.
    Fetched,
}

/// What a session can be told.
#[derive(Debug)]
pub struct SessionOptions {
    pub route: RouteOptions,
    pub traffic: TrafficOptions,
    /// How long one attempt to connect may take, up to the node's `connected`.
    pub connect_timeout: Duration,
    pub tokens: Tokens,
    /// The application, for the node's logs.
    pub client: Option<ClientInfo>,
    /// What is known of the network, for the heartbeat.
    pub network: Network,
}

/// What a session asks the world around it.
pub struct Surroundings {
    pub chance: Chance,
    /// How long it has been since 1970 by the machine's calendar, which may be wrong.
    pub today: Box<dyn Fn() -> Duration + Send>,
    /// Whether the application lets its token go to an address of that kind.
    pub permits: Box<dyn Fn(&NodeUrl) -> bool + Send>,
}

/// A move that is due; while a connection is on its way, once that has failed.
pub(crate) struct Move {
    pub at: Time,
    pub url: Option<NodeUrl>,
    pub purpose: Purpose,
}

/// A client's session, kept up over breaks, transports and nodes.
pub struct Session<R> {
    pub(crate) traffic: Traffic<R>,
    pub(crate) route: Route,
    pub(crate) options: SessionOptions,
    pub(crate) today: Box<dyn Fn() -> Duration + Send>,
    permits: Box<dyn Fn(&NodeUrl) -> bool + Send>,
    /// Whether somebody waits for the first session, and is told where it cannot be had.
    pub(crate) is_first: bool,
    pub(crate) is_over: bool,
    pub(crate) resume: Option<Arc<str>>,
    /// The last one's public id.
    pub(crate) session: Option<SessionId>,
    pub(crate) live: Option<Carrier>,
    pub(crate) retiring: Option<(Carrier, Time)>,
    pub(crate) opening: Option<Opening>,
    pub(crate) reconnect_at: Option<Time>,
    /// Whether a node has named that time: it is not to be sooner.
    pub(crate) is_told_when: bool,
    pub(crate) next_move: Option<Move>,
    pub(crate) tokens: TokenSchedule,
    /// The last one that a node took, for when it refuses a newer one.
    pub(crate) taken: Option<Arc<str>>,
    /// Failures in a row, for the backoff.
    pub(crate) failures: u32,
    /// Attempts since the last success.
    pub(crate) attempts: u32,
    pub(crate) connects: u64,
    pub(crate) last_connection: u64,
    /// Counts every `connect` that was sent: nodes tell by it which transport is the session's newest.
    pub(crate) last_attempt: u64,
    /// The node's limit on frames in bytes; 0: none.
    pub(crate) frame_limit: u64,
}

impl<R: Reader> Session<R> {
    pub fn new(options: SessionOptions, surroundings: Surroundings) -> Self {
        let Surroundings { chance, today, permits } = surroundings;
        Self {
            traffic: Traffic::new(options.traffic, chance),
            route: Route::new(options.route.clone()),
            options,
            today,
            permits,
            is_first: true,
            is_over: false,
            resume: None,
            session: None,
            live: None,
            retiring: None,
            opening: None,
            reconnect_at: None,
            is_told_when: false,
            next_move: None,
            tokens: TokenSchedule::default(),
            taken: None,
            failures: 0,
            attempts: 0,
            connects: 0,
            last_connection: 0,
            last_attempt: 0,
            frame_limit: USUAL_FRAME_LIMIT,
        }
    }

    /// Opens the first connection.
    pub fn begin(&mut self, now: Time) {
        self.open(Purpose::Connect, None, None, now);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.traffic.outputs.pop_front()
    }

    pub(crate) fn put_out(&mut self, output: Output) {
        self.traffic.outputs.push_back(output);
    }

    /// What goes over the connections, and what waits for one.
    pub fn traffic(&mut self) -> &mut Traffic<R> {
        &mut self.traffic
    }

    /// The connection that carries the session.
    pub fn live(&self) -> Option<ConnectionId> {
        self.live.as_ref().map(Carrier::id)
    }

    /// Since when it owes an answer and says nothing.
    pub fn silent_since(&self) -> Option<Time> {
        self.traffic.silent_since()
    }

    // ---- time

    /// When [`Self::tick`] is to be called: perhaps a moment ago already. Sooner does no harm.
    pub fn deadline(&self) -> Option<Time> {
        if self.is_over {
            return None;
        }
        let opening = match &self.opening {
            Some(Opening { stage: Stage::Greeting(greeting), .. }) => Some(greeting.by),
            Some(_) => None,
            None => self.reconnect_at.or(self.next_move.as_ref().map(|next| next.at)),
        };
        let retiring = self.retiring.as_ref().map(|(_, until)| *until);
        let deadlines = [opening, retiring, self.tokens.refresh_at(), self.traffic.deadline()];
        deadlines.into_iter().flatten().min()
    }

    pub fn tick(&mut self, now: Time) {
        if self.is_over {
            return;
        }
        if self.retiring.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.retire(now);
        }
        if self.tokens.take_due(now) {
            self.put_out(Output::FetchToken);
        }
        self.tick_opening(now);
        self.traffic.tick(now);
        match self.traffic.tick_life(now) {
            Some(Finding::Dead) => self.lost(Ending::lost(CloseCode::HeartbeatTimeout.reason()), now),
            Some(Finding::Doubted) => self.doubt(now),
            None => {}
        }
    }

    fn tick_opening(&mut self, now: Time) {
        match &self.opening {
            Some(Opening { stage: Stage::Greeting(greeting), .. }) => {
                if greeting.by <= now {
                    self.give_up(ConnectError::TimedOut, now);
                }
            }
            Some(_) => {}
            None if self.reconnect_at.is_some_and(|at| at <= now) => {
                self.open(Purpose::Connect, None, None, now);
            }
            None => {
                if let Some(due) = self.next_move.take_if(|next| next.at <= now) {
                    self.open(due.purpose, due.url, None, now);
                }
            }
        }
    }

    // ---- from the application

    /// Takes a newer token, and brings it to the node.
    pub fn bring(&mut self, ticket: Ticket, token: Arc<str>, now: Time) {
        if let Tokens::Fixed(fixed) = &mut self.options.tokens {
            *fixed = token.clone();
        }
        self.traffic.bring(ticket, token, now);
    }

    /// Something has changed of what is known of the network.
    pub fn network(&mut self, hint: Network) {
        self.options.network = hint;
        self.tell_network();
    }

    pub(crate) fn tell_network(&mut self) {
        let hint = ClientFrame::Network(self.options.network.clone());
        if let Err(error) = self.traffic.say(&hint, Lane::Reliable) {
            tracing::warn!(%error, "a frame was not sent");
        }
    }

    /// Something may have happened to the connection: looks at once.
    pub fn check(&mut self, now: Time) {
        self.traffic.check(now);
        self.come_back_now(now);
    }

    /// The machine slept: the connection may be gone without a word.
    pub fn woke(&mut self, now: Time) {
        self.traffic.woke(now);
        self.come_back_now(now);
    }

    /// Whoever waits for the next attempt begins it now, unless a node has named the time.
    fn come_back_now(&mut self, now: Time) {
        if let Some(at) = &mut self.reconnect_at
            && !self.is_told_when
        {
            *at = now;
            self.route.begin_round();
        }
    }

    /// Ends the session for good.
    pub fn close(&mut self, reason: &'static str) {
        self.end(None, reason.into());
    }

    pub(crate) fn end(&mut self, code: Option<u16>, reason: Cow<'static, str>) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        let error = RequestError { reason: reason.clone(), ..RequestError::closed() };
        let error = RequestError { code: code.unwrap_or(error.code), ..error };
        self.traffic.end_all(code, &error);
        self.put_out(Output::Carry(None));
        if let Some(opening) = self.opening.take() {
            self.put_out(Output::Close { connection: opening.connection });
            if matches!(opening.purpose, Purpose::Switch) {
                self.put_out(Output::Switched(Err(ConnectError::Closed)));
            }
        }
        let carriers = self.live.take().into_iter().chain(self.retiring.take().map(|(old, _)| old));
        for connection in carriers.map(|carrier| carrier.id()).collect::<Vec<_>>() {
            self.put_out(Output::Close { connection });
        }
        self.put_out(Output::End { code, reason });
    }

    // ---- tokens

    /// A token has been had that was to replace the one that ends, or not.
    pub fn fetched(&mut self, token: Result<Option<Arc<str>>, TokenError>, now: Time) {
        if self.live.is_none() {
            return;
        }
        match token {
            Ok(Some(token)) => self.refresh(token, now),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "no new token ahead of expiry");
                self.tokens.failed(now);
            }
        }
    }

    /// Brings a token to the node by itself.
    fn refresh(&mut self, token: Arc<str>, now: Time) {
        let waiter = Waiter::Refresh(token.clone(), None);
        let make = |id| ClientFrame::Refresh(Refresh { id, token });
        if let Err(error) = self.traffic.request(waiter, make, now) {
            tracing::warn!(%error, "a request was not sent");
        }
    }

    /// The application has brought a token while this connection was opened with the one before.
    pub(crate) fn renew_token(&mut self, now: Time) {
        if let Tokens::Fixed(fixed) = &self.options.tokens
            && self.has_other_token(self.taken.as_ref())
        {
            self.refresh(fixed.clone(), now);
        }
    }

    /// Whether there is another token to be had than one that is not good any more.
    pub(crate) fn has_other_token(&self, than: Option<&Arc<str>>) -> bool {
        match &self.options.tokens {
            Tokens::None => false,
            Tokens::Fixed(fixed) => than != Some(fixed),
            Tokens::Fetched => true,
        }
    }

    /// A node does not take a token: goes back to the one that was taken last, unless another one has been brought since.
    pub(crate) fn token_refused(&mut self, token: Option<&Arc<str>>) {
        if let (Tokens::Fixed(fixed), Some(taken)) = (&mut self.options.tokens, &self.taken)
            && token == Some(fixed)
        {
            *fixed = taken.clone();
        }
    }

    /// The node has taken a token: plans when the next one is fetched.
    pub(crate) fn token_taken(&mut self, token: Option<Arc<str>>, expires_at_ms: Option<u64>, now: Time) {
        self.taken = token;
        self.put_out(Output::Expires(expires_at_ms));
        self.tokens.stop();
        let (Some(expires_at_ms), Tokens::Fetched) = (expires_at_ms, &self.options.tokens) else { return };
        let expiry = Duration::from_millis(expires_at_ms);
        self.tokens.taken(self.taken.as_deref(), expiry, (self.today)(), now);
    }

    /// An address that a node gave: the token goes there, so it may not be less protected than here.
    pub(crate) fn trusted(&self, url: &str) -> Option<NodeUrl> {
        let url: NodeUrl = url.parse().ok()?;
        (self.route.trusts(&url) && (self.permits)(&url)).then_some(url)
    }
}
