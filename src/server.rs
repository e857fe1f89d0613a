//! A node from its start to its end: listeners up, sessions served, drained, stopped.

mod failed;
mod running;

use crate::{
    api,
    auth::{Authenticator, SetupError},
    broker::{Broker, memory::MemoryBroker},
    certificate::{self, CertificateError, CertificateResolver, DevCertificate},
    cluster::moving::{self, Order},
    config::{Addresses, Config},
    demo,
    host::{Host, WallClock},
    hub::Hub,
    metrics::Metrics,
    node::{Node, Parts},
    presence::Presence,
    redis::{self, Redis},
    region::{
        self, Elsewhere, Regions, Remote, Sharing, bridge,
        broker::RedisBroker,
        identity::Identity,
        link::Links,
        presence::mirror::{self, Mirror},
    },
    scripts,
    transport::{
        http,
        sockets::{self, Bound, ListenError},
        webtransport,
    },
};
use axum::Router;
use skywave_protocol::{CloseCode, Text, frame::Region, position::Origin, text::TooLong};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use tokio_rustls::TlsAcceptor;

pub use failed::Failed;
pub use running::run;

/// How often expired history is thrown away, on channels that nobody publishes to.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);
/// How long transports may take to close once they were told to.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("Redis: {0}")]
    Redis(#[from] redis::ConnectError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Auth(#[from] SetupError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Endpoint(#[from] webtransport::EndpointError),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("another node has the id `{0}` and is alive: `node.id` is to be each node's own")]
    IdTaken(String),
    #[error("a region's name is too long: {0}")]
    Region(#[from] TooLong),
}

/// A running node. Dropped, it closes its sessions and stops at once; [`Server::drain`] moves them off first.
pub struct Server {
    node: Arc<Node>,
    tasks: JoinSet<()>,
    /// What takes transports in.
    listeners: JoinSet<()>,
    /// What serves the admin listener.
    administration: JoinSet<()>,
    endpoints: Vec<quinn::Endpoint>,
    certificate: Option<Arc<CertificateResolver>>,
    /// The addresses of each listener.
    public: Vec<SocketAddr>,
    plain: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
}

impl Server {
    /// Binds all listeners and serves, on this machine.
    ///
    /// # Errors
    /// See [`StartError`].
    #[allow(clippy::disallowed_methods, reason = "this is where the machine is handed in")]
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(Host::machine(), config).await
    }

    /// As [`Self::start`], with what `host` has. Without listeners in its configuration the node has no other way to the
    /// world: its sessions are whatever is given to [`session::serve`](crate::session::serve).
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_on(host: Host, config: Config) -> Result<Self, StartError> {
        let mut tasks = JoinSet::new();
        let node = node(host, config, &mut tasks).await?;
        let mut server = Self {
            node,
            tasks,
            listeners: JoinSet::new(),
            administration: JoinSet::new(),
            endpoints: Vec::new(),
            certificate: None,
            public: Vec::new(),
            plain: Vec::new(),
            admin: Vec::new(),
        };
        server.listen_public()?;
        server.listen_plain()?;
        server.listen_admin()?;
        server.node.cluster.join(&mut server.tasks).await?;
        Ok(server)
    }

    fn listen_public(&mut self) -> Result<(), StartError> {
        let Some(address) = self.node.config.listen.public else { return Ok(()) };
        let resolver = Arc::new(resolver(&self.node.host.clock, &self.node.config)?);
        self.tasks.spawn(resolver.clone().run(self.node.host.clock.clone()));
        let web = TlsAcceptor::from(Arc::new(tls(resolver.clone(), &[b"h2", b"http/1.1"])?));
        for Bound { socket: (tcp, udp), address } in sockets::bind_both(address)? {
            self.public.push(address);
            self.listeners.spawn(http::listen(self.node.clone(), tcp, web.clone()));
            let quic = tls(resolver.clone(), &[webtransport::ALPN])?;
            let endpoint = webtransport::endpoint(&self.node, udp, quic)?;
            self.listeners.spawn(webtransport::listen(self.node.clone(), endpoint.clone()));
            self.endpoints.push(endpoint);
        }
        self.certificate = Some(resolver);
        Ok(())
    }

    fn listen_plain(&mut self) -> Result<(), StartError> {
        let Some(address) = self.node.config.listen.plain else { return Ok(()) };
        for Bound { socket: tcp, address } in sockets::bind(address)? {
            self.plain.push(address);
            self.listeners.spawn(http::listen_plain(self.node.clone(), tcp));
        }
        Ok(())
    }

    fn listen_admin(&mut self) -> Result<(), StartError> {
        let Some(address) = self.node.config.listen.admin else { return Ok(()) };
        let pages = self.pages();
        for Bound { socket: tcp, address } in sockets::bind(address)? {
            self.admin.push(address);
            self.administration.spawn(api::listen(self.node.clone(), tcp, pages.clone()));
        }
        Ok(())
    }

    /// What a development node shows people who try it.
    fn pages(&self) -> Router {
        if !self.node.config.dev {
            return Router::new();
        }
        let places = demo::Places {
            public: self.public(),
            plain: self.plain(),
            certificate_sha256: self.certificate_sha256(),
        };
        demo::router(&demo::PageConfig::new(&places, &self.node.cluster.regions))
    }

    /// Waits until something ends without which the node does not serve.
    async fn failed(&mut self) -> Failed {
        failed([&mut self.tasks, &mut self.listeners, &mut self.administration]).await
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Where WebTransport and WebSocket over TLS are served; of two addresses the first, as for the other listeners.
    pub fn public(&self) -> Option<SocketAddr> {
        self.public.first().copied()
    }

    /// Where WebSocket without TLS is served.
    pub fn plain(&self) -> Option<SocketAddr> {
        self.plain.first().copied()
    }

    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.first().copied()
    }

    /// The SHA-256 of the public listener's certificate, in hex.
    pub fn certificate_sha256(&self) -> Option<String> {
        self.certificate.as_ref().map(|resolver| certificate::sha256(&resolver.current()))
    }

    fn close_sessions(&self) {
        for (_, attached) in self.node.sessions.all() {
            attached.outbox.close(CloseCode::Shutdown);
        }
    }

    /// Moves all sessions off: takes no new ones, tells each when it should have gone, and ends when none is left
    /// or at the deadline.
    pub async fn drain(self) {
        // What failed is in the log.
        drop(self.drain_until(std::future::pending()).await);
    }

    /// As [`Self::drain`], with the deadline moved up to the end of `hurry`.
    ///
    /// # Errors
    /// When something failed meanwhile without which the node does not serve; then what was left was closed at once.
    pub async fn drain_until(mut self, hurry: impl Future<Output = ()>) -> Result<(), Failed> {
        let deadline = self.node.config.drain.deadline;
        start_drain(&self.node);
        let (is_empty, outcome) = tokio::select! {
            () = self.node.sessions.served.empty() => (true, Ok(())),
            () = tokio::time::sleep(deadline) => (false, Ok(())),
            () = hurry => (false, Ok(())),
            failed = failed([&mut self.tasks, &mut self.listeners, &mut self.administration]) => (false, Err(failed)),
        };
        if let Err(failed) = &outcome {
            tracing::error!(%failed, "the drain cannot go on");
        }
        if !is_empty {
            let left = self.node.sessions.len();
            tracing::info!(sessions = left, "the drain is over; closing what is left");
            self.close_sessions();
        }
        // Nobody comes any more; whoever came meanwhile is told to go elsewhere.
        self.listeners.shutdown().await;
        self.node.set_ending();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.node.sessions.transports.empty()).await.is_err() {
            tracing::warn!("some transports did not close in time");
        }
        for endpoint in &self.endpoints {
            endpoint.close(0u32.into(), b"");
            if tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await.is_err() {
                tracing::warn!("some QUIC connections did not close in time");
            }
        }
        let answering = async { while self.administration.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, answering).await.is_err() {
            tracing::warn!("some requests to the API were not answered in time");
        }
        self.tasks.shutdown().await;
        self.node.cluster.directory.leave().await;
        outcome
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The sessions are tasks of their own, which would go on without a listener.
        self.node.cluster.set_draining();
        self.node.set_ending();
        self.node.cluster.moving.stop();
        self.close_sessions();
    }
}

/// Waits until one of the tasks ends that were to go on.
async fn failed([one, another, third]: [&mut JoinSet<()>; 3]) -> Failed {
    let ended = tokio::select! {
        Some(ended) = one.join_next() => ended,
        Some(ended) = another.join_next() => ended,
        Some(ended) = third.join_next() => ended,
        else => std::future::pending().await,
    };
    Failed::by(ended)
}

/// Stops taking sessions and tells each one when it should have moved: spread over half of the deadline, so that
/// they do not all arrive elsewhere at once.
pub fn start_drain(node: &Arc<Node>) {
    if let Err(nowhere) = moving::begin(&node.cluster, Order::default()) {
        tracing::warn!(%nowhere, "sessions are told to go all the same");
    }
}

async fn node(host: Host, config: Config, tasks: &mut JoinSet<()>) -> Result<Arc<Node>, StartError> {
    let region = Text::new(&config.node.region)?;
    let regions = config
        .regions
        .iter()
        .map(|region| Ok(Region { name: Text::new(&region.name)?, url: region.url.as_str().into() }))
        .collect::<Result<_, TooLong>>()?;
    let hub = Arc::new(Hub::default());
    let metrics = Metrics::new()?;
    let redis = redis(&host, &config, &metrics).await?;
    if let Some(redis) = &redis {
        tasks.spawn(redis.clone().ended());
        let id = &config.node.id;
        let identity = Identity::take(redis, id).await.map_err(|_| StartError::IdTaken(id.clone()))?;
        tasks.spawn(identity.keep());
    }
    let sharing = match redis {
        Some(redis) => share(&config, region.clone(), redis, &metrics)?,
        None => Sharing::Alone,
    };
    let broker = broker(&host, &config, &region, (&sharing, &metrics), &hub, tasks).await?;
    let presence = presence(&host, &config, sharing.redis().cloned(), &hub, tasks).await?;
    tasks.spawn(presence.clone().run());
    let authenticator = Authenticator::new(&config.auth)?;
    let node = Node::new(Parts {
        host,
        config,
        region,
        regions,
        hub,
        broker,
        sharing,
        presence,
        authenticator,
        metrics,
    });
    if let Sharing::WithRegion { regions, links } = &node.cluster.sharing {
        for remote in &regions.remotes {
            tasks.spawn(remote.redis.clone().ended());
        }
        let bridging = bridge::Options {
            node: node.config.node.id.as_str().into(),
            namespaces: node.config.channels.clone(),
            log_age: node.config.broker.log_age,
            metrics: node.metrics.links.clone(),
            links: links.clone(),
        };
        for bridge in bridge::Bridge::from_all(regions, &bridging) {
            tasks.spawn(bridge.run());
        }
        for mirror in mirrors(&node.config, regions) {
            tasks.spawn(mirror.run());
        }
        let links = links.clone();
        tasks.spawn(async move { links.follow().await });
    }
    let refreshing = node.clone();
    tasks.spawn(async move { refreshing.authenticator.run().await });
    Ok(node)
}

/// The region's Redis, if the configuration names one.
async fn redis(host: &Host, config: &Config, metrics: &Metrics) -> Result<Option<Redis>, StartError> {
    let Some(address) = Addresses::of(config, scripts::ALL)?.own else { return Ok(None) };
    Ok(Some(Redis::connect(host, &address, "commands", metrics.redis.clone()).await?))
}

/// What the node shares over this Redis.
fn share(config: &Config, own: Origin, redis: Redis, metrics: &Metrics) -> Result<Sharing, StartError> {
    let others = Addresses::of(config, scripts::ALL)?.others.into_iter().zip(&config.regions);
    let others = others.map(|(redis, region)| Elsewhere { redis, url: region.url.as_str().into() }).collect();
    let regions = Arc::new(Regions::reach(own, redis, others, &metrics.redis)?);
    let id = config.node.id.as_str().into();
    let lag_limit = config.failover.link_lag;
    let links = Arc::new(Links::new(regions.clone(), id, metrics.link_beats.clone(), lag_limit));
    Ok(Sharing::WithRegion { regions, links })
}

/// The broker that the configuration names.
async fn broker(
    host: &Host,
    config: &Config,
    region: &Origin,
    (sharing, metrics): (&Sharing, &Metrics),
    hub: &Arc<Hub>,
    tasks: &mut JoinSet<()>,
) -> Result<Arc<dyn Broker>, StartError> {
    let (origin, namespaces) = (region.clone(), config.channels.clone());
    let Sharing::WithRegion { regions, .. } = sharing else {
        let broker = Arc::new(MemoryBroker::new(host, origin, namespaces, hub.clone()));
        tasks.spawn(expire(broker.clone()));
        return Ok(broker);
    };
    let options = region::broker::Options {
        log_age: config.broker.log_age,
        origin,
        namespaces,
        others: regions.redis_by_name(),
    };
    let broker =
        Arc::new(RedisBroker::start(regions.local.clone(), options, &metrics.log_lag, hub.clone()).await?);
    let following = broker.clone();
    tasks.spawn(async move { following.ended().await });
    Ok(broker)
}

/// Presence, shared where the broker is.
async fn presence(
    host: &Host,
    config: &Config,
    redis: Option<Redis>,
    hub: &Arc<Hub>,
    tasks: &mut JoinSet<()>,
) -> Result<Arc<Presence>, StartError> {
    let namespaces = config.channels.clone();
    Ok(match redis.filter(|_| namespaces.have_presence()) {
        Some(redis) => {
            let lease = region::presence::lease(&config.heartbeat);
            region::presence::start(hub.clone(), namespaces, redis, &config.node.id, lease, tasks).await?
        }
        None => Presence::of_node(host.clock.clone(), hub.clone(), namespaces),
    })
}

/// What mirrors the presence of the other regions, if there is presence at all.
fn mirrors(config: &Config, regions: &Regions) -> Vec<Mirror> {
    if !config.channels.have_presence() {
        return Vec::new();
    }
    let mirror = |remote: &Remote| {
        Mirror::new(remote.clone(), regions.local.clone(), &config.node.id, mirror::PATIENCE)
    };
    regions.remotes.iter().map(mirror).collect()
}

async fn expire(broker: Arc<MemoryBroker>) {
    let mut interval = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        interval.tick().await;
        broker.expire(Instant::now());
    }
}

fn resolver(clock: &WallClock, config: &Config) -> Result<CertificateResolver, CertificateError> {
    match &config.tls {
        Some(tls) => CertificateResolver::from_files(tls.clone()),
        None => Ok(CertificateResolver::fixed(DevCertificate::generate(&[], clock.now())?.certified)),
    }
}

fn tls(
    resolver: Arc<CertificateResolver>,
    protocols: &[&[u8]],
) -> Result<rustls::ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}
