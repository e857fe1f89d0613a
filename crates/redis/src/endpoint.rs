//! Where a Redis is found, and how it is connected to.

use crate::{
    Address,
    cluster::Cluster,
    connection::{ConnectError, Connection, TIMEOUT},
    dialling::{Contact, Dialling},
    hedging,
    layout::{Connections, Layout, Server},
    ownership::Ownership,
    reply::Malformed,
    sentinel::Sentinels,
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
    Server(Contact),
    /// One of a cluster's.
    Member(Contact),
    /// Another server after each failover.
    Sentinel(Sentinels),
    /// Several, each with a part of the keys.
    Cluster(Cluster),
}

impl Endpoint {
    /// # Errors
    /// When the URL or the file with the authorities cannot be read.
    pub fn new(host: &Host, address: &Address, ownership: Arc<Ownership>) -> Result<Self, ConnectError> {
        let dialling = Dialling::new(host, &address.url, address.ca.as_ref())?;
        let place = match RedisUrl::parse(address.url.expose()).map_err(ConnectError::Url)? {
            RedisUrl::Server(url) => Place::Server(dialling.server(&url)?),
            RedisUrl::Sentinel { sentinels, service, master } => {
                Place::Sentinel(Sentinels::new(&dialling, &sentinels, service, &master)?)
            }
            RedisUrl::Cluster(seeds) => Place::Cluster(Cluster::new(&dialling, &seeds, ownership.clone())?),
        };
        Ok(Self { place: Arc::new(place), host: host.clone(), ownership })
    }

    /// One of a cluster's servers by itself.
    pub(crate) fn of_member(host: Host, contact: Contact, ownership: Arc<Ownership>) -> Self {
        Self { place: Arc::new(Place::Member(contact)), host, ownership }
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
    async fn servers(&self) -> Result<Vec<(Contact, Arc<str>)>, ConnectError> {
        let alone = |contact| vec![(contact, "".into())];
        match &*self.place {
            Place::Server(contact) | Place::Member(contact) => Ok(alone(contact.clone())),
            Place::Sentinel(sentinels) => sentinels.master().await.map(alone),
            Place::Cluster(cluster) => {
                let mut servers = cluster.layout().await?.servers;
                servers.shuffle(&mut self.host.chance.generator());
                let contact = |server: Server| match &*server.endpoint.place {
                    Place::Member(contact) => Some((contact.clone(), server.name)),
                    _ => None,
                };
                Ok(servers.into_iter().filter_map(contact).collect())
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
        let dialled = server.commands().await?;
        let alone = matches!(&*self.place, Place::Server(_) | Place::Sentinel(_));
        Connection::introduce(dialled, name, (&self.ownership, &self.host.chance), alone).await
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
                let mut subscriber = server.subscriber().await?;
                subscriber.subscribe(channels).await?;
                Ok::<_, ConnectError>((subscriber, name))
            };
            let subscribed = tokio::time::timeout(TIMEOUT, subscribing);
            subscriptions.push(async { subscribed.await.map_err(|_| ConnectError::Timeout)? }.boxed());
        }
        hedging::ask(subscriptions).await
    }
}
