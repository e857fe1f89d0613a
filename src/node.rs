//! What all sessions of a node share.

use crate::{
    auth::{AuthError, Authenticator, Grant, resume::ResumeKey},
    broker::{Accepted, Broker, BrokerError, Publish},
    cluster::{self, Cluster},
    config::Config,
    host::Host,
    hub::Hub,
    limits::TokenBucket,
    metrics::Metrics,
    presence::Presence,
    refusals::{Refusal, Refusals},
    region::Sharing,
    registry::{Registry, quotas::Bounds},
};
use parking_lot::Mutex;
use skywave_protocol::{frame::Region, position::Origin};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

pub struct Node {
    pub host: Host,
    pub config: Config,
    pub hub: Arc<Hub>,
    pub broker: Arc<dyn Broker>,
    pub presence: Arc<Presence>,
    pub authenticator: Authenticator,
    pub resume_key: ResumeKey,
    pub sessions: Arc<Registry>,
    /// This node as one of its region.
    pub cluster: Arc<Cluster>,
    pub metrics: Metrics,
    handshakes: Mutex<TokenBucket>,
    refusals: Refusals,
    ending: watch::Sender<bool>,
}

/// The parts of a [`Node`] that its caller makes.
pub struct Parts {
    pub host: Host,
    pub config: Config,
    pub region: Origin,
    pub regions: Vec<Region>,
    pub hub: Arc<Hub>,
    pub broker: Arc<dyn Broker>,
    pub sharing: Sharing,
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
        let sessions = Arc::new(Registry::new(&parts.host, bounds));
        let cluster = Cluster::new(cluster::Parts {
            host: parts.host.clone(),
            id: parts.config.node.id.as_str().into(),
            url: parts.config.node.url.as_deref().map(Arc::from),
            region: parts.region,
            regions: parts.regions,
            sharing: parts.sharing,
            sessions: sessions.clone(),
            hub: parts.hub.clone(),
            broker: parts.broker.clone(),
            options: cluster::Options {
                limit: limits.sessions,
                drain: parts.config.drain.clone(),
                failover: parts.config.failover.clone(),
            },
            metrics: parts.metrics.cluster.clone(),
        });
        Arc::new(Self {
            host: parts.host,
            hub: parts.hub,
            broker: parts.broker,
            presence: parts.presence,
            authenticator: parts.authenticator,
            resume_key: ResumeKey::new(&parts.config.auth.session_secret),
            sessions,
            cluster,
            metrics: parts.metrics,
            handshakes: Mutex::new(TokenBucket::new(limits.handshakes_per_second, Instant::now())),
            refusals: Refusals::default(),
            ending: watch::Sender::new(false),
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
        let verified = self.authenticator.verify(token, self.host.clock.now()).await;
        verified.inspect_err(|error| self.refused(Refusal::Token(*error)))
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
    pub(crate) async fn handshake_turn(&self) {
        while let Err(wait) = self.take_handshake() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits until the node has no session any more, and ends.
    pub async fn ends(&self) {
        // The sender is this node's own: it is not gone.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }

    /// Whoever has not said yet who comes is turned away from now on.
    pub(crate) fn set_ending(&self) {
        self.ending.send_replace(true);
    }
}
