//! Where to go: which nodes to try, in which order, over which transport first.

use crate::{
    Plan, Time, TransportChoice, TransportKind, candidates::Candidates, race_memory::RaceMemory, url::NodeUrl,
};
use skywave_protocol::position::Origin;
use std::time::Duration;

/// The time between the begins of attempts at two nodes.
pub const STAGGER: Duration = Duration::from_millis(200);
/// By how much a node to which another one has sent this client is ahead of those it knows.
const NAMED_HEAD_START: Duration = Duration::from_secs(1);
/// The least time between two moves to a node that another one prefers.
const PREFERENCE_INTERVAL: Duration = Duration::from_secs(60);

/// What a route can be told.
#[derive(Debug, Clone)]
pub struct RouteOptions {
    /// At least one.
    pub urls: Vec<NodeUrl>,
    pub transport: TransportChoice,
    /// By how much WebTransport is ahead of WebSocket.
    pub head_start: Duration,
}

/// A node to try.
#[derive(Debug, Clone)]
pub struct Target {
    pub url: NodeUrl,
    pub plan: Plan,
}

/// Whom a connection is to be opened to.
#[derive(Debug, Default)]
pub(crate) struct Wish<'a> {
    /// Where a node or the application names one: that first.
    pub(crate) named: Option<&'a NodeUrl>,
    /// That one alone.
    pub(crate) is_alone: bool,
    /// Over this transport, whatever is usual.
    pub(crate) forced: Option<TransportKind>,
    /// Where the session is: whoever names another one wants to be left.
    pub(crate) leaving: Option<&'a NodeUrl>,
    /// Whether that may be gone: others are tried before it.
    pub(crate) is_doubted: bool,
}

#[derive(Debug)]
pub(crate) struct Route {
    transport: TransportChoice,
    head_start: Duration,
    candidates: Candidates,
    memory: RaceMemory,
    /// The node that is gone has named the current candidate.
    is_sent_on: bool,
    prefer_again_at: Time,
}

impl Route {
    pub(crate) fn new(options: RouteOptions) -> Self {
        Self {
            transport: options.transport,
            head_start: options.head_start,
            candidates: Candidates::new(options.urls),
            memory: RaceMemory::default(),
            is_sent_on: false,
            prefer_again_at: Time::BEGIN,
        }
    }

    /// Whether nobody is left to be tried in this round.
    pub(crate) fn is_exhausted(&self, now: Time) -> bool {
        self.candidates.is_exhausted(now)
    }

    /// From here on everybody may be tried again.
    pub(crate) fn begin_round(&mut self) {
        self.candidates.begin_round();
    }

    /// Whom to try, in this order: those that are left of this round, or of a new one.
    pub(crate) fn targets(&mut self, wish: &Wish<'_>, now: Time) -> Vec<Target> {
        let choice = wish.forced.map_or(self.transport, TransportChoice::from);
        let target = |memory: &RaceMemory, url: NodeUrl| {
            let plan = memory.plan(&url, choice, self.head_start, now);
            Target { url, plan }
        };
        if let Some(named) = wish.named.filter(|_| wish.is_alone) {
            return vec![target(&self.memory, named.clone())];
        }
        if self.candidates.is_exhausted(now) {
            self.candidates.begin_round();
        }
        let mut urls = self.candidates.order(now);
        if let Some(named) = wish.named {
            urls.retain(|url| url != named && Some(url) != wish.leaving);
            urls.insert(0, named.clone());
        } else if wish.is_doubted {
            urls.sort_by_key(|url| Some(url) == wish.leaving);
        }
        urls.into_iter().map(|url| target(&self.memory, url)).collect()
    }

    /// How long the first one is tried alone: one that is slow by nature, or to which a node has sent this client, is not
    /// left for the sake of a few milliseconds.
    pub(crate) fn head_start(&self, first: Option<&Target>, is_named: bool) -> Duration {
        if is_named || self.is_sent_on {
            return NAMED_HEAD_START;
        }
        let usual = first.and_then(|target| self.candidates.handshake(&target.url)).unwrap_or_default();
        (usual * 3 / 2).clamp(STAGGER, NAMED_HEAD_START)
    }

    /// A handshake completed, and took so long.
    pub(crate) fn dialed(&mut self, target: &Target, kind: TransportKind, took: Duration, now: Time) {
        self.candidates.measured(&target.url, took);
        self.memory.remember(&target.url, &target.plan, kind, now);
    }

    /// It is not to be tried again in this round, nor sooner than it has said.
    pub(crate) fn failed(&mut self, url: &NodeUrl, rests_until: Option<Time>) {
        self.candidates.failed(url, rests_until);
    }

    /// An attempt failed: whoever was named is one like the others.
    pub(crate) fn forget_named(&mut self) {
        self.is_sent_on = false;
    }

    /// When somebody wants to be asked again; none when somebody does now.
    pub(crate) fn rests_until(&self, now: Time) -> Option<Time> {
        self.candidates.all_rest_until(now)
    }

    /// The session is there, in this region; `others`: where else it could go.
    pub(crate) fn arrived(&mut self, url: &NodeUrl, region: Origin, others: Vec<(Origin, NodeUrl)>) {
        self.is_sent_on = false;
        self.candidates.succeeded(url, region);
        self.candidates.learn(others.into_iter());
    }

    /// A node that is gone had named this one.
    pub(crate) fn send_on(&mut self, url: &NodeUrl) {
        self.candidates.go(url);
        self.is_sent_on = true;
    }

    /// Whether an address that a node gave may be gone to: the token goes there, so it may not be less protected than here.
    pub(crate) fn trusts(&self, url: &NodeUrl) -> bool {
        url.is_tls() || !self.candidates.current().is_tls()
    }

    /// Whether to follow a node that knows of a better one now.
    pub(crate) fn may_prefer(&mut self, now: Time) -> bool {
        let may = now >= self.prefer_again_at;
        if may {
            self.prefer_again_at = now + PREFERENCE_INTERVAL;
        }
        may
    }
}
