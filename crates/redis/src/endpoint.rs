//! Where a Redis is found, and how it is connected to.

use crate::{
    Address,
    cluster::Cluster,
    connection::{ConnectError, Connection, TIMEOUT},
    hedging,
    layout::{Connections, Layout, Server},
    ownership::Ownership,
    reply::Malformed,
    secret::Secret,
    sentinel::Sentinels,
    url::RedisUrl,
};
use futures_util::{FutureExt, future::try_join_all};
use rand::seq::SliceRandom as _;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates,
    aio::PubSub, io::tcp::TcpSettings,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A Redis that nodes share.
#[derive(Debug, Clone)]
pub struct Endpoint {
    place: Arc<Place>,
    /// Whose it is to be.
    pub ownership: Arc<Ownership>,
}

#[derive(Debug)]
enum Place {
    Server(Client),
    /// One of a cluster's.
    Member(Client),
    /// Another server after each failover.
    Sentinel(Sentinels),
    /// Several, each with a part of the keys.
    Cluster(Cluster),
}

/// How servers are spoken to that have a URL.
#[derive(Debug, Default)]
pub(crate) struct Dialling {
    /// The authorities that vouch for servers over TLS, in PEM; none: those of the system.
    authorities: Option<Vec<u8>>,
}

impl Dialling {
    fn new(authorities: Option<&PathBuf>) -> Result<Self, ConnectError> {
        let read = |path: &PathBuf| {
            read_authorities(path).map_err(|source| ConnectError::Authorities { path: path.clone(), source })
        };
        Ok(Self { authorities: authorities.map(read).transpose()? })
    }

    /// A server by its URL.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub(crate) fn info(url: &Secret) -> Result<ConnectionInfo, RedisError> {
        let tcp = TcpSettings::default().set_nodelay(true);
        Ok(url.expose().into_connection_info()?.set_tcp_settings(tcp))
    }

    /// # Errors
    /// When the authorities cannot be read.
    pub(crate) fn client(&self, info: ConnectionInfo) -> Result<Client, RedisError> {
        let over_tls = matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. });
        match &self.authorities {
            Some(authorities) if over_tls => {
                let root_cert = Some(authorities.clone());
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
            }
            _ => Client::open(info),
        }
    }

    pub(crate) fn config() -> AsyncConnectionConfig {
        AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT)).set_response_timeout(Some(TIMEOUT))
    }
}

/// Without a single one, every server would be refused, as if it were the server's fault.
fn read_authorities(path: &Path) -> io::Result<Vec<u8>> {
    let pem = fs::read(path)?;
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => Ok(pem),
        _ => Err(io::Error::other("it holds no certificate in PEM")),
    }
}

impl Endpoint {
    /// # Errors
    /// When the URL or the file with the authorities cannot be read.
    pub fn new(address: &Address, ownership: Arc<Ownership>) -> Result<Self, ConnectError> {
        let dialling = Dialling::new(address.ca.as_ref())?;
        let place = match RedisUrl::parse(address.url.expose()).map_err(ConnectError::Url)? {
            RedisUrl::Server(url) => Place::Server(dialling.client(Dialling::info(&url)?)?),
            RedisUrl::Sentinel { sentinels, service, master } => {
                Place::Sentinel(Sentinels::new(dialling, &sentinels, service, &master)?)
            }
            RedisUrl::Cluster(seeds) => Place::Cluster(Cluster::new(dialling, &seeds, ownership.clone())?),
        };
        Ok(Self { place: Arc::new(place), ownership })
    }

    /// One of a cluster's servers by itself.
    pub(crate) fn of_member(client: Client, ownership: Arc<Ownership>) -> Self {
        Self { place: Arc::new(Place::Member(client)), ownership }
    }

    /// The servers that there are now, and which has which keys.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn layout(&self) -> Result<Layout, ConnectError> {
        match &*self.place {
            Place::Cluster(cluster) => cluster.layout().await,
            Place::Server(_) | Place::Member(_) | Place::Sentinel(_) => Ok(Layout::of_one(self.clone())),
        }
    }

    /// The server at an address that another server told.
    ///
    /// # Errors
    /// When it is none, or there can be no other server.
    pub fn neighbour(&self, address: &str) -> Result<Server, ConnectError> {
        match &*self.place {
            Place::Cluster(cluster) => cluster.server(address),
            Place::Server(_) | Place::Member(_) | Place::Sentinel(_) => Err(Malformed("redirection").into()),
        }
    }

    /// Whether one command may have keys of several partitions.
    pub fn is_undivided(&self) -> bool {
        !matches!(&*self.place, Place::Cluster(_))
    }

    /// The server to be used now, and its name in the layout; of a cluster the masters, in any order.
    async fn servers(&self) -> Result<Vec<(Client, Arc<str>)>, ConnectError> {
        let alone = |client| vec![(client, "".into())];
        match &*self.place {
            Place::Server(client) | Place::Member(client) => Ok(alone(client.clone())),
            Place::Sentinel(sentinels) => sentinels.master().await.map(alone),
            Place::Cluster(cluster) => {
                let mut servers = cluster.layout().await?.servers;
                servers.shuffle(&mut rand::rng());
                let client = |server: Server| match &*server.endpoint.place {
                    Place::Member(client) => Some((client.clone(), server.name)),
                    _ => None,
                };
                Ok(servers.into_iter().filter_map(client).collect())
            }
        }
    }

    /// Connects, loads the scripts and learns whom it talks to. `name` is shown by `CLIENT LIST`. Of a cluster's
    /// servers any will do, which is why this is not for everybody.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(super) async fn connect(&self, name: &str) -> Result<Connection, ConnectError> {
        let servers = self.servers().await?;
        let (server, _) = servers.first().ok_or(ConnectError::Unidentified("masters"))?;
        let commands = server.get_multiplexed_async_connection_with_config(&Dialling::config()).await?;
        let alone = matches!(&*self.place, Place::Server(_) | Place::Sentinel(_));
        Connection::introduce(commands, name, &self.ownership, alone).await
    }

    /// As [`Self::connect`], to the server that has a key.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_for(&self, key: &str, name: &str) -> Result<Connection, ConnectError> {
        let layout = self.layout().await?;
        layout.servers[layout.slots.server_of(key.as_bytes())].endpoint.connect(name).await
    }

    /// As [`Self::connect`], to all servers.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn connect_to_all(&self, name: &str) -> Result<Connections, ConnectError> {
        let layout = self.layout().await?;
        let all = layout.servers.iter().map(|server| server.endpoint.connect(name));
        Ok(Connections { all: try_join_all(all).await?, layout })
    }

    /// Opens a connection for pub/sub, to the server of this name. What is said on one server of a cluster is heard on
    /// all, so one connection to any will do. Sharded pub/sub would spare the cluster's bus, which carries what the
    /// replicas get anyway. It would cost a connection to each server and kind of message.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(super) async fn subscribe(&self, channels: &[String]) -> Result<(PubSub, Arc<str>), ConnectError> {
        // One that is away is not to be in the way of who could hear all on another.
        let mut subscriptions = Vec::new();
        for (server, name) in self.servers().await? {
            let subscribing = async move {
                let mut subscriber = server.get_async_pubsub().await?;
                subscriber.subscribe(channels).await?;
                Ok::<_, RedisError>((subscriber, name))
            };
            let subscribed = tokio::time::timeout(TIMEOUT, subscribing);
            subscriptions.push(async { Ok(subscribed.await.map_err(|_| ConnectError::Timeout)??) }.boxed());
        }
        hedging::ask(subscriptions).await
    }
}
