//! Where a Redis is found, and how it is connected to.

use crate::{
    address::Address,
    cluster::Cluster,
    connection::Connection,
    dialling::Dialling,
    errors::{ConnectError, TIMEOUT},
    hedging,
    layout::{Connections, Layout},
    ownership::Ownership,
    reply::Malformed,
    sentinel::Sentinels,
    server::{self, Server},
    url::RedisUrl,
};
use futures_util::{FutureExt, future::try_join_all};
use rand::seq::SliceRandom as _;
use redis::aio::PubSub;
use skywave_host::Host;
use std::sync::Arc;

/// A Redis that nodes share.
#[derive(Debug, Clone)]
pub struct Endpoint {
    place: Arc<Place>,
    /// From where it is connected to.
    pub host: Host,
    /// Whose it is to be.
    pub ownership: Arc<Ownership>,
}

#[derive(Debug)]
enum Place {
    One(Server),
    /// Several, each with a part of the keys.
    Cluster(Cluster),
}

impl Endpoint {
    /// # Errors
    /// When the URL or the file with the authorities cannot be read.
    pub fn new(host: &Host, address: &Address, ownership: Arc<Ownership>) -> Result<Self, ConnectError> {
        let dialling = Dialling::new(host, &address.url, address.ca.as_ref())?;
        let one = |place| Place::One(Server::new("".into(), place, host.clone(), ownership.clone()));
        let place = match RedisUrl::parse(address.url.expose()).map_err(ConnectError::Url)? {
            RedisUrl::Server(url) => one(server::Place::Alone(dialling.server(&url)?)),
            RedisUrl::Sentinel { sentinels, service, master } => {
                let sentinels = Sentinels::new(&dialling, &sentinels, service, &master)?;
                one(server::Place::Sentinel(Arc::new(sentinels)))
            }
            RedisUrl::Cluster(seeds) => Place::Cluster(Cluster::new(&dialling, &seeds, ownership.clone())?),
        };
        Ok(Self { place: Arc::new(place), host: host.clone(), ownership })
    }

    /// Looks at what is needed to connect, without connecting.
    ///
    /// # Errors
    /// When the URL or the file with the authorities cannot be read.
    #[allow(clippy::disallowed_methods, reason = "nothing is asked of the machine yet")]
    pub fn check(address: &Address) -> Result<(), ConnectError> {
        Self::new(&Host::machine(), address, Ownership::of_own(address)).map(drop)
    }

    /// The servers that there are now, and which has which keys.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn layout(&self) -> Result<Layout, ConnectError> {
        match &*self.place {
            Place::One(server) => Ok(Layout::of_one(server.clone())),
            Place::Cluster(cluster) => cluster.layout().await,
        }
    }

    /// The server at an address that another server told.
    ///
    /// # Errors
    /// When it is none, or there can be no other server.
    pub(crate) fn neighbour(&self, address: &str) -> Result<Server, ConnectError> {
        match &*self.place {
            Place::One(_) => Err(Malformed("redirection").into()),
            Place::Cluster(cluster) => cluster.server(address),
        }
    }

    /// Whether one command may have keys of several partitions.
    pub fn is_undivided(&self) -> bool {
        matches!(&*self.place, Place::One(_))
    }

    /// The server; of a cluster the masters, in any order.
    async fn servers(&self) -> Result<Vec<Server>, ConnectError> {
        let mut servers = self.layout().await?.servers;
        servers.shuffle(&mut self.host.chance.generator());
        Ok(servers)
    }

    /// Connects to the server that has a key.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_for(&self, key: &str, name: &str) -> Result<Connection, ConnectError> {
        let layout = self.layout().await?;
        layout.servers[layout.slots.server_of(key.as_bytes())].connect(name).await
    }

    /// Connects to all servers.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn connect_to_all(&self, name: &str) -> Result<Connections, ConnectError> {
        let layout = self.layout().await?;
        let all = layout.servers.iter().map(|server| server.connect(name));
        Ok(Connections { all: try_join_all(all).await?, layout })
    }

    /// Opens a connection for pub/sub, to the server of this name. What is said on one server of a cluster is heard on
    /// all, so one connection to any will do. Sharded pub/sub would spare the cluster's bus, which carries what the
    /// replicas get anyway. It would cost a connection to each server and kind of message.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn subscribe(&self, channels: &[String]) -> Result<(PubSub, Arc<str>), ConnectError> {
        // One that is away is not to be in the way of who could hear all on another.
        let mut subscriptions = Vec::new();
        for server in self.servers().await? {
            let (contact, name) = (server.contact().await?, server.name);
            let subscribing = async move {
                let mut subscriber = contact.subscriber().await?;
                subscriber.subscribe(channels).await?;
                Ok::<_, ConnectError>((subscriber, name))
            };
            let subscribed = tokio::time::timeout(TIMEOUT, subscribing);
            subscriptions.push(async { subscribed.await.map_err(|_| ConnectError::Timeout)? }.boxed());
        }
        hedging::ask(subscriptions).await
    }
}
