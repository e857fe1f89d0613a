//! What all sessions of a node share.

use crate::{
    auth::{
        AuthError, Authenticator, Grant,
        refusals::{Refusal, Refusals},
        resume::ResumeKey,
    },
    broker::{Accepted, Broker, BrokerError, Publish, wall_ms},
    cluster::{
        directory::{Directory, NodeState, Record},
        failover::{Failover, Standing},
        fencing::Fencing,
        questions::Questions,
    },
    config::Config,
    hub::Hub,
    limits::TokenBucket,
    metrics::Metrics,
    moving::{Moving, destinations::Destinations},
    presence::Presence,
    redis::Redis,
    region::{Regions, link::Links},
    registry::{Registry, quotas::Bounds},
};
use parking_lot::Mutex;
use skywave_protocol::{frame::Region, position::Origin};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

pub struct Node {
    pub config: Config,
    pub id: Arc<str>,
    pub region: Origin,
    /// The other regions, as clients are told.
    pub regions: Vec<Region>,
    pub hub: Arc<Hub>,
    pub broker: Arc<dyn Broker>,
    /// The region's Redis; `None` with a memory broker.
    pub redis: Option<Redis>,
    /// The other regions' Redis; `None` when there are none.
    pub other_regions: Option<Arc<Regions>>,
    /// What is known of the links to them; `None` when there are none.
    pub links: Option<Arc<Links>>,
    pub presence: Arc<Presence>,
    pub authenticator: Authenticator,
    pub resume_key: ResumeKey,
    pub sessions: Registry,
    pub directory: Directory,
    pub fencing: Fencing,
    pub failover: Failover,
    pub moving: Moving,
    pub questions: Questions,
    pub metrics: Metrics,
    handshakes: Mutex<TokenBucket>,
    refusals: Refusals,
    draining: AtomicBool,
    ending: watch::Sender<bool>,
    started_ms: u64,
}

/// The parts of a [`Node`] that its caller makes.
pub struct Parts {
    pub config: Config,
    pub region: Origin,
    pub regions: Vec<Region>,
    pub hub: Arc<Hub>,
    pub broker: Arc<dyn Broker>,
    /// The region's Redis; `None` with a memory broker.
    pub redis: Option<Redis>,
    /// The other regions' Redis; `None` when there are none.
    pub other_regions: Option<Arc<Regions>>,
    pub presence: Arc<Presence>,
    pub authenticator: Authenticator,
    pub metrics: Metrics,
}

impl Node {
    pub fn new(parts: Parts) -> Arc<Self> {
        let limits = &parts.config.limits;
        let bounds = Bounds {
            sessions: limits.sessions,
            sessions_per_address: limits.sessions_per_address,
            sessions_per_user: limits.sessions_per_user,
            newcomers_per_address: limits.transports_per_address(),
        };
        let id: Arc<str> = parts.config.node.id.as_str().into();
        let link_lag = parts.config.failover.link_lag;
        let links = parts.other_regions.clone().map(|regions| {
            Arc::new(Links::new(regions, id.clone(), parts.metrics.link_beats.clone(), link_lag))
        });
        let remotes = parts.other_regions.iter().flat_map(|regions| &regions.remotes);
        let remotes = remotes.map(|remote| remote.redis.clone());
        Arc::new(Self {
            directory: Directory::new(id.clone(), parts.redis.clone()),
            failover: Failover::default(),
            moving: Moving::default(),
            questions: Questions::default(),
            fencing: Fencing::new(id.clone(), parts.redis.clone(), remotes),
            id,
            region: parts.region,
            regions: parts.regions,
            hub: parts.hub,
            broker: parts.broker,
            redis: parts.redis,
            other_regions: parts.other_regions,
            links,
            presence: parts.presence,
            authenticator: parts.authenticator,
            resume_key: ResumeKey::new(&parts.config.auth.session_secret),
            sessions: Registry::new(bounds),
            metrics: parts.metrics,
            handshakes: Mutex::new(TokenBucket::new(limits.handshakes_per_second, Instant::now())),
            refusals: Refusals::default(),
            draining: AtomicBool::new(false),
            ending: watch::Sender::new(false),
            started_ms: wall_ms(),
            config: parts.config,
        })
    }

    /// Publishes, counts and times it. Publications take effect in the order of the calls.
    pub fn publish(
        self: &Arc<Self>,
        publish: Publish,
    ) -> impl Future<Output = Result<Accepted, BrokerError>> + Send + use<> {
        let timer = self.metrics.publish_duration.start_timer();
        let accepting = self.broker.publish(publish);
        let node = self.clone();
        async move {
            let accepted = accepting.await;
            timer.observe_duration();
            let accepted = accepted?;
            let metrics = &node.metrics;
            if accepted.duplicate { &metrics.publications_repeated } else { &metrics.publications }.inc();
            Ok(accepted)
        }
    }

    /// Checks a token; it may wait for keys to be fetched.
    pub async fn verify(&self, token: &str) -> Result<Grant, AuthError> {
        self.authenticator.verify(token).await.inspect_err(|error| self.refused(Refusal::Token(*error)))
    }

    /// Counts and logs what is not accepted of somebody who comes.
    pub fn refused(&self, refusal: Refusal<'_>) {
        self.metrics.refusals.with_label_values(&[refusal.cause()]).inc();
        self.refusals.log(refusal);
    }

    /// Whether a page of this origin may connect; a refusal is counted and logged.
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        let is_allowed = self.config.auth.allows_origin(origin);
        if let Some(origin) = origin.filter(|_| !is_allowed) {
            self.refused(Refusal::Origin(origin));
        }
        is_allowed
    }

    /// Takes a handshake from this second's.
    ///
    /// # Errors
    /// The time until there will be one.
    pub fn take_handshake(&self) -> Result<(), Duration> {
        self.handshakes.lock().take(Instant::now())
    }

    /// Waits for a handshake's turn and takes it; may be dropped and called again.
    pub async fn handshake_turn(&self) {
        while let Err(wait) = self.take_handshake() {
            tokio::time::sleep(wait).await;
        }
    }

    fn state(&self) -> NodeState {
        if self.is_draining() {
            NodeState::Draining
        } else if self.failover.is_away() {
            NodeState::Away
        } else {
            NodeState::Ready
        }
    }

    /// Why sessions should not be sent here now; none when they may be.
    pub fn unready(&self) -> Option<&'static str> {
        if self.is_draining() {
            return Some("draining");
        }
        let trouble = match self.failover.standing() {
            Standing::Well | Standing::Returning if !self.broker.is_available() => Standing::BrokerAway,
            Standing::Well | Standing::Returning if !self.broker.deaf_for().is_zero() => Standing::Deaf,
            standing => standing,
        };
        trouble.word()
    }

    /// Whether new sessions are refused: they are moved off, or the node cannot serve and somebody else can.
    pub fn turns_away(&self) -> bool {
        self.is_draining() || (self.failover.is_away() && !Destinations::new(self, None).is_empty())
    }

    /// What the other nodes of the region are told of this one.
    pub fn record(&self) -> Record {
        Record {
            url: self.config.node.url.as_deref().map(Arc::from),
            region: self.region.shared(),
            state: self.state(),
            sessions: self.sessions.len(),
            limit: self.config.limits.sessions,
            version: env!("CARGO_PKG_VERSION").into(),
            started_ms: self.started_ms,
        }
    }

    /// Where a session can go on when this node is gone: other nodes of the region first, then other regions, the
    /// nearest first.
    pub fn alternatives(&self, session: &str) -> Vec<Region> {
        let mut alternatives =
            self.directory.alternatives(session, self.config.node.url.as_deref(), &self.region);
        alternatives.extend(self.failover.nearest_first(&self.regions));
        alternatives
    }

    /// The address of a node that suits this user better.
    pub fn preferred_url(&self, user: &str) -> Option<Arc<str>> {
        self.directory.preferred(user, self.config.node.url.as_deref(), self.sessions.len())
    }

    /// Whether sessions are being moved off; no new ones are taken then.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Waits until the node has no session any more, and ends.
    pub async fn ends(&self) {
        // The sender is this node's own: it is not gone.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }

    /// Whoever has not said yet who comes is turned away from now on.
    pub fn set_ending(&self) {
        self.ending.send_replace(true);
    }

    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.metrics.draining.set(1);
    }
}
