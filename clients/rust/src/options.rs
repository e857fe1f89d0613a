//! What a client can be told.

use crate::tls::CertificateCheck;
use futures_util::future::BoxFuture;
use skywave_client_session::{Backoff, TokenError, Tokens, TransportChoice};
use skywave_protocol::{Encoding, frame::Network};
use std::{fmt, future::Future, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Where tokens come from.
#[derive(Clone, Default)]
pub enum TokenSource {
    /// No token: an anonymous session.
    #[default]
    None,
    /// Always the same one, until [`Client::refresh`](crate::Client::refresh) brings another. When it
    /// has expired the client stops.
    Fixed(Arc<str>),
    /// Asked at each connect and ahead of the token's expiry.
    Callback(Arc<dyn Fn() -> BoxFuture<'static, Result<String, TokenError>> + Send + Sync>),
}

impl TokenSource {
    pub fn fixed(token: impl Into<Arc<str>>) -> Self {
        Self::Fixed(token.into())
    }

    pub fn callback<F>(fetch: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self::Callback(Arc::new(move || Box::pin(fetch())))
    }

    /// As [`Self::token`]; what takes too long cannot be had for now.
    pub(crate) async fn token_within(&self, patience: Duration) -> Result<Option<Arc<str>>, TokenError> {
        let late = |_| TokenError::Unavailable("it took too long".to_owned());
        timeout(patience, self.token()).await.map_err(late)?
    }

    /// What the session has to know of them.
    pub(crate) fn known(&self) -> Tokens {
        match self {
            Self::None => Tokens::None,
            Self::Fixed(token) => Tokens::Fixed(token.clone()),
            Self::Callback(_) => Tokens::Fetched,
        }
    }

    async fn token(&self) -> Result<Option<Arc<str>>, TokenError> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(token) => Ok(Some(token.clone())),
            Self::Callback(fetch) => fetch().await.map(|token| Some(token.into())),
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Fixed(_) => "Fixed(…)",
            Self::Callback(_) => "Callback(…)",
        })
    }
}

/// What a client can be told; [`ClientOptions::new`] fills in the defaults.
#[derive(Clone)]
pub struct ClientOptions {
    /// Where nodes are reached; the next one is tried when one fails. See
    /// [`NodeUrl`](crate::url::NodeUrl) for the schemes.
    pub urls: Vec<String>,
    pub transport: TransportChoice,
    /// MessagePack by default.
    pub encoding: Encoding,
    /// WebSocket over HTTP/2 (RFC 8441) instead of an HTTP/1.1 upgrade.
    pub http2: bool,
    pub token: TokenSource,
    pub certificate: CertificateCheck,
    /// By how much WebTransport is ahead of WebSocket; 250 ms.
    pub head_start: Duration,
    /// How long one attempt to connect may take, up to the node's `connected`; 5 s.
    pub connect_timeout: Duration,
    /// How long the reply to a request may take; 10 s. Publishes are not subject to it, nor calls with a deadline.
    pub request_timeout: Duration,
    /// The wait between attempts to connect, and before a publish is sent again.
    pub backoff: Backoff,
    /// How many events a subscription holds for a reader that is slow; 1,024, at least 2.
    pub subscription_queue: usize,
    /// How many publishes may wait for their answer; 1,024, at least 1.
    pub publish_queue: usize,
    /// The application's name and version, for the node's logs; at most 64 bytes each.
    pub name: String,
    pub version: String,
    /// What is known of the network, for the heartbeat.
    pub network: Network,
    /// Further headers of the request that opens a connection.
    pub headers: Vec<(String, String)>,
}

impl fmt::Debug for ClientOptions {
    /// Without what may be secret: the URLs' queries, the token, the headers' values.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<&str> = self.urls.iter().filter_map(|url| url.split('?').next()).collect();
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("ClientOptions")
            .field("urls", &urls)
            .field("transport", &self.transport)
            .field("encoding", &self.encoding)
            .field("http2", &self.http2)
            .field("token", &self.token)
            .field("certificate", &self.certificate)
            .field("name", &self.name)
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

impl ClientOptions {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            transport: TransportChoice::Auto,
            encoding: Encoding::MessagePack,
            http2: false,
            token: TokenSource::None,
            certificate: CertificateCheck::WebPki,
            head_start: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            backoff: Backoff::default(),
            subscription_queue: 1024,
            publish_queue: 1024,
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: Network::default(),
            headers: Vec::new(),
        }
    }
}
