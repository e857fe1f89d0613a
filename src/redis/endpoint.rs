//! Where a Redis is found, and how it is connected to.

use super::{
    connection::{ConnectError, Connection, TIMEOUT},
    keys::Keys,
    sentinel::Sentinels,
};
use crate::config::{RedisUrl, Secret};
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates,
    aio::PubSub, io::tcp::TcpSettings,
};
use std::{fs, path::PathBuf, sync::Arc};

/// A Redis that nodes share.
#[derive(Debug, Clone)]
pub struct Endpoint(Arc<Place>);

#[derive(Debug)]
enum Place {
    Server(Client),
    /// Another server after each failover.
    Sentinel(Sentinels),
}

/// How servers are spoken to that have a URL.
#[derive(Debug, Default)]
pub struct Dialling {
    /// The authorities that vouch for servers over TLS, in PEM; none: those of the system.
    authorities: Option<Vec<u8>>,
}

impl Dialling {
    fn new(authorities: Option<&PathBuf>) -> Result<Self, ConnectError> {
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|source| ConnectError::Authorities { path: path.clone(), source })
        };
        Ok(Self { authorities: authorities.map(read).transpose()? })
    }

    /// A server by its URL.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn info(url: &Secret) -> Result<ConnectionInfo, RedisError> {
        let tcp = TcpSettings::default().set_nodelay(true);
        Ok(url.expose().into_connection_info()?.set_tcp_settings(tcp))
    }

    /// # Errors
    /// When the authorities cannot be read.
    pub fn client(&self, info: ConnectionInfo) -> Result<Client, RedisError> {
        let over_tls = matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. });
        match &self.authorities {
            Some(authorities) if over_tls => {
                let root_cert = Some(authorities.clone());
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
            }
            _ => Client::open(info),
        }
    }

    pub fn config() -> AsyncConnectionConfig {
        AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT)).set_response_timeout(Some(TIMEOUT))
    }
}

impl Endpoint {
    /// `authorities` is a PEM file with those that vouch for the servers over TLS.
    ///
    /// # Errors
    /// When the URL or the file cannot be read.
    pub fn new(url: &Secret, authorities: Option<&PathBuf>) -> Result<Self, ConnectError> {
        let dialling = Dialling::new(authorities)?;
        let place = match RedisUrl::parse(url.expose()).map_err(ConnectError::Url)? {
            RedisUrl::Server(url) => Place::Server(dialling.client(Dialling::info(&url)?)?),
            RedisUrl::Sentinel { sentinels, service, master } => {
                Place::Sentinel(Sentinels::new(dialling, &sentinels, service, &master)?)
            }
            RedisUrl::Cluster(_) => return Err(ConnectError::Url("redis+cluster:// is not served yet")),
        };
        Ok(Self(Arc::new(place)))
    }

    /// The server to be used now.
    async fn server(&self) -> Result<Client, ConnectError> {
        match &*self.0 {
            Place::Server(client) => Ok(client.clone()),
            Place::Sentinel(sentinels) => sentinels.master().await,
        }
    }

    /// Connects, loads the scripts and learns whom it talks to. `name` is shown by `CLIENT LIST`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, name: &str, keys: &Keys) -> Result<Connection, ConnectError> {
        let server = self.server().await?;
        let commands = server.get_multiplexed_async_connection_with_config(&Dialling::config()).await?;
        Connection::introduce(commands, name, keys).await
    }

    /// Opens a connection for pub/sub.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn subscribe(&self, channels: &[String]) -> Result<PubSub, ConnectError> {
        let server = self.server().await?;
        let subscribing = async {
            let mut subscriber = server.get_async_pubsub().await?;
            subscriber.subscribe(channels).await?;
            Ok::<_, RedisError>(subscriber)
        };
        Ok(tokio::time::timeout(TIMEOUT, subscribing).await.map_err(|_| ConnectError::Timeout)??)
    }
}
