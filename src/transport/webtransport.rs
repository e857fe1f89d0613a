//! WebTransport over HTTP/3 on quinn: one QUIC endpoint for all sessions of an address.
//!
//! The HTTP/3 part is small, and driven here rather than by a general library. A session needs one request, one
//! bidirectional stream, a unidirectional stream per channel, and datagrams; and there are many thousands of sessions.

mod capsules;
mod connection;
mod control;
mod datagrams;
mod handshake;
mod lanes;
mod parameters;
mod request;
mod resets;
mod strays;
mod streams;
mod window;

use super::{canonical, sockets::UdpSocket};
use crate::{node::Node, session};
use connection::WebTransportConnection;
use handshake::HandshakeError;
use parameters::AttentiveTls;
use quinn::{
    Endpoint, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicServerConfig},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use window::SEND_WINDOW;

/// Of this transport, in metrics and the API.
pub const NAME: &str = "webtransport";
pub const ALPN: &[u8] = b"h3";
/// The request, the control stream, and room for a mistake: quinn sets state aside for each.
const MAX_BIDIRECTIONAL_STREAMS: u32 = 4;
/// HTTP/3's control and QPACK streams, and reserved ones that some clients open to exercise servers.
const MAX_UNIDIRECTIONAL_STREAMS: u32 = 8;
const STREAM_RECEIVE_WINDOW: u32 = 128 * 1024;
const RECEIVE_WINDOW: u32 = 256 * 1024;
const DATAGRAM_BUFFER: usize = 64 * 1024;
/// The session's own heartbeat decides first; this ends what never became a session.
const IDLE_MARGIN: Duration = Duration::from_secs(60);
/// Handshakes under way from which on clients must prove their address first (RFC 9000, section 8.1.2).
const RETRY_ABOVE: usize = 128;
const MAX_INCOMING: usize = 4096;

/// Why there is no QUIC endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("cannot use the UDP socket: {0}")]
    Socket(#[from] io::Error),
    #[error("TLS does not suit QUIC: {0}")]
    Tls(#[from] NoInitialCipherSuite),
    #[error("a QUIC limit is out of bounds: {0}")]
    Limit(#[from] quinn::VarIntBoundsExceeded),
}

/// Opens the endpoint on a bound socket. `tls` has the ALPN protocol [`ALPN`] and TLS 1.3.
///
/// # Errors
/// See [`EndpointError`].
pub fn endpoint(
    node: &Node,
    socket: UdpSocket,
    tls: rustls::ServerConfig,
) -> Result<Endpoint, EndpointError> {
    node.metrics.udp_receive_buffer.set(socket.receive_buffer as i64);
    node.metrics.udp_send_buffer.set(socket.send_buffer as i64);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_BIDIRECTIONAL_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_UNIDIRECTIONAL_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .max_idle_timeout(Some((node.config.heartbeat.max + IDLE_MARGIN).try_into()?));
    let tls = Arc::new(QuicServerConfig::try_from(Arc::new(tls))?);
    let mut config = ServerConfig::with_crypto(Arc::new(AttentiveTls(tls)));
    config.transport_config(Arc::new(transport)).migration(true).max_incoming(MAX_INCOMING);
    let runtime = Arc::new(TokioRuntime);
    let resetting = resets::config(&node.config, &node.cluster.id, socket.socket.local_addr()?);
    Ok(Endpoint::new(resetting, Some(config), socket.socket, runtime)?)
}

/// Accepts WebTransport sessions until the endpoint is closed.
pub async fn listen(node: Arc<Node>, endpoint: Endpoint) {
    let handshakes = Arc::new(AtomicUsize::new(0));
    while let Some(incoming) = endpoint.accept().await {
        if handshakes.load(Ordering::Relaxed) >= RETRY_ABOVE && incoming.may_retry() {
            match incoming.retry() {
                Ok(()) => node.metrics.quic_retries.inc(),
                Err(error) => tracing::debug!(%error, "no retry was possible"),
            }
            continue;
        }
        if node.take_handshake().is_err() {
            // No answer: the client tries again by itself, later.
            node.metrics.handshakes_refused.with_label_values(&["handshake_rate"]).inc();
            incoming.ignore();
            continue;
        }
        handshakes.fetch_add(1, Ordering::Relaxed);
        // Boxed: the handshake's state is large and gone once the session runs.
        let beginning = Box::pin(begin(node.clone(), incoming, handshakes.clone()));
        tokio::spawn(async move {
            if let Some(serving) = beginning.await {
                serving.await;
            }
        });
    }
}

/// The session on a connection that comes in, if it can be established.
async fn begin(
    node: Arc<Node>,
    incoming: Incoming,
    handshakes: Arc<AtomicUsize>,
) -> Option<impl Future<Output = ()> + Send> {
    let address = canonical(incoming.remote_address());
    let established = establish(&node, incoming).await;
    handshakes.fetch_sub(1, Ordering::Relaxed);
    match established {
        Ok(connection) => Some(session::serve(node, connection)),
        Err(error) => {
            tracing::debug!(%address, %error, "no WebTransport session");
            node.metrics.handshakes_refused.with_label_values(&[error.reason()]).inc();
            None
        }
    }
}

async fn establish(node: &Node, incoming: Incoming) -> Result<WebTransportConnection, HandshakeError> {
    let patience = node.config.limits.connect_timeout;
    let shaking = async {
        let connection = incoming.await?;
        handshake::accept(&connection, node).await
    };
    tokio::time::timeout(patience, shaking).await.unwrap_or(Err(HandshakeError::Timeout))
}
