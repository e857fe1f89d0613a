//! Raw connections: frames to and from a node over either transport, without any session logic.
//!
//! This is the layer below [`Client`](crate::Client), public for tools that look at the protocol
//! itself: load generators, protocol tests, diagnosis.

mod address;
mod severed;
pub mod websocket;
pub mod webtransport;

use crate::{
    tls::{CertificateCheck, TlsConfigs, TlsError},
    url::NodeUrl,
};
use bytes::Bytes;
pub use skywave_client_session::{Lane, TransportKind};
use skywave_protocol::{Encoding, codec::EncodedFrame, codes::should_reconnect};
use std::{fmt, io, time::Duration};

/// The largest frame that is taken from a node: twice the largest that any node takes. Base64 makes payloads larger,
/// and a `publication` says more than its `publish`.
pub const MAX_RECEIVED_FRAME_BYTES: usize = 32 << 20;

/// On what a frame came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// WebTransport's stream of requests and replies.
    Control,
    /// A stream that the node opened, by its QUIC stream id.
    Stream(u64),
    Datagram,
    WebSocket,
}

/// One frame as it came, not yet decoded.
#[derive(Debug, Clone)]
pub struct Received {
    pub frame: Bytes,
    pub via: Via,
}

/// The connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connection closed: {reason}{}", code.map(|code| format!(" ({code})")).unwrap_or_default())]
pub struct Closed {
    /// The peer's close code, where the transport told one. The `disconnect` frame before it is the
    /// better source.
    pub code: Option<u16>,
    pub reason: String,
}

impl Closed {
    pub(crate) fn lost(reason: impl fmt::Display) -> Self {
        Self { code: None, reason: reason.to_string() }
    }

    /// Whether coming back makes sense.
    pub fn reconnect(&self) -> bool {
        self.code.is_none_or(should_reconnect)
    }
}

/// A connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot resolve the host: {0}")]
    Resolve(#[source] io::Error),
    /// The port is closed: nobody listens there.
    #[error("nothing listens on the UDP port")]
    Unreachable,
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("WebTransport: {0}")]
    WebTransport(#[from] wtransport::error::ConnectingError),
    #[error("control stream: {0}")]
    ControlStream(String),
    /// The server answered, but not with a WebSocket.
    #[error("refused with HTTP status {status}")]
    Refused { status: u16 },
    #[error("WebSocket: {0}")]
    WebSocket(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    #[error("HTTP/2: {0}")]
    Http2(String),
    #[error("{url} does not allow {kind}")]
    NotAllowed { url: NodeUrl, kind: TransportKind },
    #[error("timed out")]
    TimedOut,
}

/// What all connections of a client have in common.
#[derive(Clone)]
pub struct DialOptions {
    pub encoding: Encoding,
    /// WebSocket over HTTP/2 (RFC 8441) instead of an HTTP/1.1 upgrade.
    pub http2: bool,
    pub certificate: CertificateCheck,
    /// Further headers of the request that opens the connection, for example `origin`.
    pub headers: Vec<(String, String)>,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            encoding: Encoding::MessagePack,
            http2: false,
            certificate: CertificateCheck::default(),
            headers: Vec::new(),
        }
    }
}

/// Opens connections.
#[derive(Clone)]
pub struct Dialer {
    options: DialOptions,
    tls: TlsConfigs,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold secrets.
        formatter.debug_struct("Dialer").field("encoding", &self.options.encoding).finish_non_exhaustive()
    }
}

impl Dialer {
    /// # Errors
    /// `TlsError` when TLS cannot be configured so.
    pub fn new(options: DialOptions) -> Result<Self, TlsError> {
        let tls = TlsConfigs::new(&options.certificate)?;
        Ok(Self { options, tls })
    }

    /// Opens a connection; no time limit of its own.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn dial(&self, url: &NodeUrl, kind: TransportKind) -> Result<Connection, DialError> {
        if !url.allows(kind) {
            return Err(DialError::NotAllowed { url: url.clone(), kind });
        }
        self.options.certificate.permits(url)?;
        match kind {
            TransportKind::WebTransport => webtransport::connect(url, &self.options, &self.tls).await,
            TransportKind::WebSocket => websocket::connect(url, &self.options, &self.tls).await,
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    pub kind: TransportKind,
    pub encoding: Encoding,
    pub sender: Sender,
    pub receiver: Receiver,
    pub control: Control,
}

/// The sending half.
#[derive(Debug)]
pub enum Sender {
    WebTransport(webtransport::Sender),
    WebSocket(websocket::Sender),
}

impl Sender {
    /// Queues a frame; it may wait in a buffer until [`Sender::flush`]. Not cancel-safe.
    ///
    /// # Errors
    /// `Closed` when the connection is over.
    pub async fn feed(&mut self, frame: &EncodedFrame, lane: Lane) -> Result<(), Closed> {
        match self {
            Self::WebTransport(sender) => sender.send(frame, lane).await,
            Self::WebSocket(sender) => sender.feed(frame).await,
        }
    }

    /// Writes out what was fed.
    ///
    /// # Errors
    /// `Closed` when the connection is over.
    pub async fn flush(&mut self) -> Result<(), Closed> {
        match self {
            Self::WebTransport(_) => Ok(()),
            Self::WebSocket(sender) => sender.flush().await,
        }
    }

    /// Feeds and flushes one frame.
    ///
    /// # Errors
    /// `Closed` when the connection is over.
    pub async fn send(&mut self, frame: &EncodedFrame, lane: Lane) -> Result<(), Closed> {
        self.feed(frame, lane).await?;
        self.flush().await
    }

    /// Ends the connection with a close code; 0 or 1000 is "done".
    pub async fn close(self, code: u16, reason: &str) {
        match self {
            Self::WebTransport(sender) => sender.close(code, reason).await,
            Self::WebSocket(sender) => sender.close(code, reason).await,
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub enum Receiver {
    WebTransport(Box<webtransport::Receiver>),
    WebSocket(websocket::Receiver),
}

impl Receiver {
    /// The next frame. Frames of one stream keep their order, streams race. Cancel-safe.
    ///
    /// # Errors
    /// `Closed` when the connection is over and all that came before has been read.
    pub async fn receive(&mut self) -> Result<Received, Closed> {
        match self {
            Self::WebTransport(receiver) => receiver.receive().await,
            Self::WebSocket(receiver) => receiver.receive().await,
        }
    }
}

/// Looks at and cuts a connection, beside its halves.
#[derive(Debug, Clone)]
pub enum Control {
    WebTransport(webtransport::Control),
    WebSocket(websocket::Control),
}

impl Control {
    /// The path's round-trip time as the transport measures it; a WebSocket does not.
    pub fn rtt(&self) -> Option<Duration> {
        match self {
            Self::WebTransport(control) => Some(control.rtt()),
            Self::WebSocket(_) => None,
        }
    }

    /// Completes when the node's host says that nobody listens there any more, and never otherwise. The kernel
    /// ends a WebSocket's TCP connection by itself then, and tells a QUIC connection nothing.
    pub async fn refused(&self) {
        match self {
            Self::WebTransport(control) => control.refused().await,
            Self::WebSocket(_) => std::future::pending().await,
        }
    }

    /// Makes the connection vanish without a word to the peer, as when the network is gone.
    pub fn cut(&self) {
        match self {
            Self::WebTransport(control) => control.cut(),
            Self::WebSocket(control) => control.cut(),
        }
    }
}
