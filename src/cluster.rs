//! This node as one of its region: who is there, who has which session, who can serve, where sessions go.

mod balance;
pub mod directory;
pub mod fencing;
mod inbox;
mod keys;
pub mod moving;
pub mod outlook;
pub mod questions;
mod rendezvous;
pub mod scripts;
pub mod standing;

use crate::{
    broker::Broker,
    config::{DrainConfig, FailoverConfig},
    host::Host,
    hub::Hub,
    metrics::ClusterMetrics,
    redis::{ConnectError, Redis},
    region::Sharing,
    registry::Registry,
};
use directory::{Directory, NodeState, Record};
use fencing::Fencing;
use inbox::Inbox;
use moving::{Moving, destinations::Destinations, leaving, rebalancing};
use outlook::Outlook;
use questions::Questions;
use skywave_protocol::{frame::Region, position::Origin};
use standing::Standing;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{sync::watch, task::JoinSet};

/// What a [`Cluster`] is made of.
pub struct Parts {
    pub host: Host,
    pub id: Arc<str>,
    /// Where clients reach this node; `None`: nobody is sent here.
    pub url: Option<Arc<str>>,
    pub region: Origin,
    /// The other regions, as clients are told.
    pub regions: Vec<Region>,
    pub sharing: Sharing,
    pub sessions: Arc<Registry>,
    pub hub: Arc<Hub>,
    pub broker: Arc<dyn Broker>,
    pub options: Options,
    pub metrics: ClusterMetrics,
}

/// What an operator can set.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most sessions that this node takes.
    pub limit: usize,
    pub drain: DrainConfig,
    pub failover: FailoverConfig,
}

/// This node among those of its region.
pub struct Cluster {
    host: Host,
    pub id: Arc<str>,
    url: Option<Arc<str>>,
    pub region: Origin,
    /// The other regions, as clients are told.
    pub regions: Vec<Region>,
    pub sharing: Sharing,
    sessions: Arc<Registry>,
    hub: Arc<Hub>,
    broker: Arc<dyn Broker>,
    pub directory: Directory,
    pub fencing: Fencing,
    /// The other regions, as the links tell of them.
    pub outlook: Outlook,
    standing: watch::Sender<Standing>,
    pub moving: Moving,
    questions: Questions,
    options: Options,
    metrics: ClusterMetrics,
    draining: AtomicBool,
    started_ms: u64,
}

/// All that a node listens to.
fn inbox(redis: &Redis) -> Inbox {
    let mut inbox = Inbox::default();
    directory::listen(&mut inbox, redis);
    fencing::listen(&mut inbox);
    questions::listen(&mut inbox);
    inbox
}

impl Cluster {
    pub fn new(parts: Parts) -> Arc<Self> {
        let redis = parts.sharing.redis().cloned();
        let remotes = parts.sharing.remotes().iter().map(|remote| remote.redis.clone());
        Arc::new(Self {
            directory: Directory::new(parts.id.clone(), redis.clone()),
            fencing: Fencing::new(parts.id.clone(), redis, remotes),
            outlook: Outlook::default(),
            standing: watch::Sender::default(),
            moving: Moving::default(),
            questions: Questions::new(&parts.host.chance),
            id: parts.id,
            url: parts.url,
            region: parts.region,
            regions: parts.regions,
            sharing: parts.sharing,
            sessions: parts.sessions,
            hub: parts.hub,
            broker: parts.broker,
            options: parts.options,
            metrics: parts.metrics,
            draining: AtomicBool::new(false),
            started_ms: parts.host.clock.now_ms(),
            host: parts.host,
        })
    }

    /// From now on the other nodes of the region know of this one, until the tasks end.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn join(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<(), ConnectError> {
        let Sharing::WithRegion { regions, links } = &self.sharing else { return Ok(()) };
        tasks.spawn(inbox(&regions.local).open(self.clone(), &regions.local).await?);
        let cluster = self.clone();
        tasks.spawn(async move { cluster.directory.run(|| cluster.record()).await });
        let cluster = self.clone();
        tasks.spawn(async move { cluster.fencing.run(&cluster.sessions).await });
        tasks.spawn(Outlook::watch(self.clone(), links.states()));
        tasks.spawn(standing::watch(self.clone()));
        tasks.spawn(leaving::run(self.clone()));
        if self.options.drain.rebalance {
            tasks.spawn(rebalancing::run(self.clone()));
        }
        Ok(())
    }

    fn state(&self) -> NodeState {
        if self.is_draining() {
            NodeState::Draining
        } else if self.is_away() {
            NodeState::Away
        } else {
            NodeState::Ready
        }
    }

    /// Whether this node can serve.
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// Whether it cannot serve now.
    fn is_away(&self) -> bool {
        self.standing() != Standing::Well
    }

    /// Why sessions should not be sent here now; none when they may be.
    pub fn unready(&self) -> Option<&'static str> {
        if self.is_draining() {
            return Some("draining");
        }
        let trouble = match self.standing() {
            Standing::Well | Standing::Returning if !self.broker.is_available() => Standing::BrokerAway,
            Standing::Well | Standing::Returning if !self.broker.deaf_for().is_zero() => Standing::Deaf,
            standing => standing,
        };
        trouble.word()
    }

    /// Whether new sessions are refused: they are moved off, or the node cannot serve and somebody else can.
    pub(crate) fn turns_away(&self) -> bool {
        self.is_draining() || (self.is_away() && !Destinations::new(self, None).is_empty())
    }

    /// What the other nodes of the region are told of this one.
    pub fn record(&self) -> Record {
        Record {
            url: self.url.clone(),
            region: self.region.shared(),
            state: self.state(),
            sessions: self.sessions.len(),
            limit: self.options.limit,
            version: env!("CARGO_PKG_VERSION").into(),
            started_ms: self.started_ms,
        }
    }

    /// Where a session can go on when this node is gone: other nodes of the region first, then other regions, the
    /// nearest first.
    pub(crate) fn alternatives(&self, session: &str) -> Vec<Region> {
        let mut alternatives = self.directory.alternatives(session, self.url.as_deref(), &self.region);
        alternatives.extend(self.outlook.nearest_first(&self.regions));
        alternatives
    }

    /// The address of a node that suits this user better.
    pub(crate) fn preferred_url(&self, user: &str) -> Option<Arc<str>> {
        self.directory.preferred(user, self.url.as_deref(), self.sessions.len())
    }

    /// Whether sessions are being moved off; no new ones are taken then.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.metrics.draining.set(1);
    }
}
