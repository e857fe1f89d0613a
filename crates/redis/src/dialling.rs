//! How a server is connected to: over the network that the node is given, and over TLS where its URL says so.

use crate::{
    errors::{ConnectError, TIMEOUT},
    secret::Secret,
    url::RedisUrl,
};
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    aio::{MultiplexedConnection, PubSub},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    time_provider::TimeProvider,
};
use skywave_host::{Host, Stream, WallClock};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

/// How the servers of one Redis are spoken to.
#[derive(Clone)]
pub(crate) struct Dialling {
    host: Host,
    /// With the authorities that vouch for servers; `None` where none is spoken to over TLS.
    tls: Option<TlsConnector>,
}

impl Dialling {
    /// For what this URL names. `authorities` is a PEM file; without it, those of the system count.
    ///
    /// # Errors
    /// When the authorities cannot be read.
    pub(crate) fn new(
        host: &Host,
        url: &Secret,
        authorities: Option<&PathBuf>,
    ) -> Result<Self, ConnectError> {
        let read = |path: &PathBuf| {
            read(path).map_err(|source| ConnectError::Authorities { path: path.clone(), source })
        };
        let pem = authorities.map(read).transpose()?;
        let over_tls = RedisUrl::is_over_tls(url.expose());
        let tls = over_tls.then(|| connector(&host.clock, pem.as_deref())).transpose()?;
        Ok(Self { host: host.clone(), tls })
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// A server by its URL.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub(crate) fn server(&self, url: &Secret) -> Result<Contact, ConnectError> {
        Ok(Contact { dialling: self.clone(), info: url.expose().into_connection_info()? })
    }
}

impl fmt::Debug for Dialling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dialling").field("over_tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// Without a single one, every server would be refused, as if it were the server's fault.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let pem = fs::read(path)?;
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => Ok(pem),
        _ => Err(io::Error::other("it holds no certificate in PEM")),
    }
}

fn connector(clock: &WallClock, pem: Option<&[u8]>) -> Result<TlsConnector, ConnectError> {
    let mut authorities = RootCertStore::empty();
    match pem {
        Some(pem) => {
            for authority in CertificateDer::pem_slice_iter(pem) {
                authorities.add(authority.map_err(io::Error::other)?).map_err(io::Error::other)?;
            }
        }
        None => {
            let mut found = rustls_native_certs::load_native_certs();
            if let Some(error) = found.errors.pop() {
                return Err(io::Error::other(error).into());
            }
            for authority in found.certs {
                authorities.add(authority).map_err(io::Error::other)?;
            }
        }
    }
    let (provider, date) = (Arc::new(aws_lc_rs::default_provider()), Arc::new(Date(clock.clone())));
    let config = ClientConfig::builder_with_details(provider, date)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// By which certificates are valid, or not any more.
#[derive(Debug)]
struct Date(WallClock);

impl TimeProvider for Date {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// A server that can be connected to.
#[derive(Clone, Debug)]
pub(crate) struct Contact {
    dialling: Dialling,
    info: ConnectionInfo,
}

/// A connection for commands, and what serves it.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) commands: MultiplexedConnection,
    pub(crate) serving: Arc<Serving>,
}

/// Reads and writes for a connection until it is dropped.
#[derive(Debug)]
pub(crate) struct Serving(AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Contact {
    /// The same, but for host and port.
    pub(crate) fn at(&self, host: String, port: u16) -> Self {
        let address = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Self { dialling: self.dialling.clone(), info: self.info.clone().set_addr(address) }
    }

    pub(crate) fn host(&self) -> Option<&str> {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => Some(host),
            _ => None,
        }
    }

    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn commands(&self) -> Result<Dialled, ConnectError> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
        let dialling = async {
            let (stream, settings) = (self.stream().await?, self.info.redis_settings());
            let (commands, serving) =
                MultiplexedConnection::new_with_config(settings, stream, config).await?;
            Ok(Dialled { commands, serving: Arc::new(Serving(tokio::spawn(serving).abort_handle())) })
        };
        tokio::time::timeout(TIMEOUT, dialling).await.map_err(|_| ConnectError::Timeout)?
    }

    /// For pub/sub.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn subscriber(&self) -> Result<PubSub, ConnectError> {
        Ok(PubSub::new(self.info.redis_settings(), self.stream().await?).await?)
    }

    async fn stream(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let Dialling { host: Host { network, .. }, tls } = &self.dialling;
        match (self.info.addr(), tls) {
            (ConnectionAddr::Tcp(host, port), _) => Ok(network.connect(host, *port).await?),
            (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let stream = network.connect(host, *port).await?;
                Ok(Box::new(tls.connect(name, stream).await?))
            }
            _ => Err(ConnectError::Url("expected a server that is reached over TCP")),
        }
    }
}
