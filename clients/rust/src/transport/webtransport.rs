//! A raw connection over WebTransport: one control stream, the node's streams, datagrams.

use super::{
    Closed, Connection, DialError, DialOptions, Lane, MAX_RECEIVED_FRAME_BYTES, Received, TransportKind, Via,
    address,
};
use crate::{tls::TlsConfigs, url::NodeUrl};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use skywave_protocol::{codec::EncodedFrame, framing::FrameBuffer};
use socket2::SockRef;
use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    io,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wtransport::{
    ClientConfig, Endpoint, RecvStream, SendStream, VarInt,
    config::{DnsLookupFuture, DnsResolver, QuicTransportConfig},
    endpoint::{ConnectOptions, endpoint_side::Client},
    error::{ConnectionError, SendDatagramError},
};

/// QUIC's own idle limit: far above any heartbeat, so that heartbeats alone decide.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Streams that the node may have open: one per channel and HTTP/3's own.
const MAX_STREAMS: u32 = 1024;
/// Bytes that the node may send on one stream, and in all, before they are read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The most bytes taken from a stream at once.
const READ_BYTES: usize = 64 * 1024;
/// Requests go before anything else that this side may send.
const CONTROL_PRIORITY: i32 = 1;
/// How long closing may wait for what is still to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// After the control stream has ended, how long the close code may take to come.
const CODE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a port is probed while a connection is being opened.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Opens a connection and its control stream.
pub(super) async fn connect(
    url: &NodeUrl,
    options: &DialOptions,
    tls: &TlsConfigs,
) -> Result<Connection, DialError> {
    let addresses = address::resolve(url).await?;
    let mut request = ConnectOptions::builder(url.webtransport(options.encoding));
    for (name, value) in &options.headers {
        request = request.add_header(name, value);
    }
    let request = request.build();
    let open = |address| open(address, request.clone(), tls);
    let (connection, socket) = address::race(&addresses, open).await?;

    let failed = |error: &dyn std::fmt::Display| DialError::ControlStream(error.to_string());
    let opening = connection.open_bi().await.map_err(|error| failed(&error))?;
    let (send, receive) = opening.await.map_err(|error| failed(&error))?;
    send.set_priority(CONTROL_PRIORITY);

    let control = Control { connection: connection.clone(), socket: Arc::new(socket) };
    Ok(Connection {
        kind: TransportKind::WebTransport,
        encoding: options.encoding,
        sender: super::Sender::WebTransport(Sender { connection: connection.clone(), control: send }),
        receiver: super::Receiver::WebTransport(Box::new(Receiver::new(connection, receive))),
        control: super::Control::WebTransport(control),
    })
}

/// Opens a connection to one address; gives it with its socket.
async fn open(
    address: SocketAddr,
    request: ConnectOptions,
    tls: &TlsConfigs,
) -> Result<(wtransport::Connection, UdpSocket), DialError> {
    let socket = bind(address).map_err(DialError::Connect)?;
    let spare = socket.try_clone().map_err(DialError::Connect)?;
    let config = ClientConfig::builder()
        .with_bind_socket(socket)
        .with_custom_tls_and_transport(tls.quic.clone(), quic_config())
        .dns_resolver(Resolved(address))
        .build();
    let endpoint: Endpoint<Client> = Endpoint::client(config).map_err(DialError::Connect)?;
    tokio::select! {
        connection = endpoint.connect(request) => Ok((connection?, spare)),
        () = closed_port(address) => Err(DialError::Unreachable),
    }
}

fn bind(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any)
}

fn quic_config() -> QuicTransportConfig {
    let mut config = QuicTransportConfig::default();
    let idle = u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    config
        .max_idle_timeout(Some(wtransport::quinn::VarInt::from_u32(idle).into()))
        .max_concurrent_uni_streams(MAX_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into());
    config
}

/// Completes when the address's port is known to be closed, and never otherwise. QUIC's own socket is not connected (it
/// has to survive a change of network), so the kernel tells it nothing. A connected socket hears of an ICMP "port
/// unreachable". One byte is no QUIC packet, and a QUIC endpoint ignores it.
async fn closed_port(address: SocketAddr) {
    let refused = async {
        let socket = tokio::net::UdpSocket::from_std({
            let socket = bind(address)?;
            socket.set_nonblocking(true)?;
            socket
        })?;
        socket.connect(address).await?;
        loop {
            socket.send(&[0]).await?;
            let mut answer = [0; 1];
            if let Ok(outcome) = timeout(PROBE_INTERVAL, socket.recv(&mut answer)).await {
                outcome?;
                sleep(PROBE_INTERVAL).await;
            }
        }
    };
    let outcome: io::Result<Infallible> = refused.await;
    if !outcome.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        pending().await
    }
}

/// Gives one address for whatever host.
#[derive(Debug)]
struct Resolved(SocketAddr);

impl DnsResolver for Resolved {
    fn resolve(&self, _host: &str) -> std::pin::Pin<Box<dyn DnsLookupFuture>> {
        let address = self.0;
        Box::pin(async move { Ok(Some(address)) })
    }
}

/// The sending half: the control stream and datagrams.
#[derive(Debug)]
pub struct Sender {
    connection: wtransport::Connection,
    control: SendStream,
}

impl Sender {
    /// Sends a frame; not cancel-safe.
    ///
    /// # Errors
    /// `Closed` when the connection is over.
    pub async fn send(&mut self, frame: &EncodedFrame, lane: Lane) -> Result<(), Closed> {
        if lane == Lane::Datagram {
            match self.connection.send_datagram(frame.bare()) {
                Ok(()) => return Ok(()),
                Err(SendDatagramError::TooLarge | SendDatagramError::UnsupportedByPeer) => {}
                Err(error @ SendDatagramError::NotConnected) => return Err(Closed::lost(error)),
            }
        }
        self.send_bytes(&frame.prefixed()).await
    }

    /// Writes bytes to the control stream as they are.
    ///
    /// # Errors
    /// `Closed` when the connection is over.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        self.control.write_all(bytes).await.map_err(Closed::lost)
    }

    /// Ends the control stream and nothing else.
    ///
    /// # Errors
    /// `Closed` when the connection is over.
    pub async fn finish(&mut self) -> Result<(), Closed> {
        self.control.finish().await.map_err(Closed::lost)
    }

    /// The connection itself, for further streams and raw datagrams.
    pub fn connection(&self) -> &wtransport::Connection {
        &self.connection
    }

    pub(super) async fn close(mut self, code: u16, reason: &str) {
        // What was written should arrive; a peer that does not acknowledge it is not waited for.
        if timeout(CLOSE_TIMEOUT, self.control.finish()).await.is_err() {
            tracing::debug!("closing before all was acknowledged");
        }
        self.connection.close(VarInt::from_u32(code.into()), reason.as_bytes());
    }
}

type Read = (StreamReader, Result<Option<Bytes>, String>);

/// The receiving half: control stream, the node's streams and datagrams at once.
pub struct Receiver {
    connection: wtransport::Connection,
    reads: FuturesUnordered<BoxFuture<'static, Read>>,
    ready: VecDeque<Received>,
    closed: Option<Closed>,
    /// The control stream has ended; until then the transport's own close may tell why.
    patience_ends: Option<Instant>,
}

struct StreamReader {
    stream: RecvStream,
    buffer: FrameBuffer,
    via: Via,
}

impl StreamReader {
    fn new(stream: RecvStream, via: Via) -> Self {
        Self { stream, buffer: FrameBuffer::new(MAX_RECEIVED_FRAME_BYTES), via }
    }

    /// Waits for bytes, and gives itself back with them.
    fn read(mut self) -> BoxFuture<'static, Read> {
        Box::pin(async move {
            let read = self.stream.quic_stream_mut().read_chunk(READ_BYTES, true).await;
            let read = match read {
                Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
                Err(error) => Err(error.to_string()),
            };
            (self, read)
        })
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Receiver").field("streams", &self.reads.len()).finish_non_exhaustive()
    }
}

impl Receiver {
    fn new(connection: wtransport::Connection, control: RecvStream) -> Self {
        let reads = FuturesUnordered::new();
        reads.push(StreamReader::new(control, Via::Control).read());
        Self { connection, reads, ready: VecDeque::new(), closed: None, patience_ends: None }
    }

    /// See [`super::Receiver::receive`].
    ///
    /// # Errors
    /// `Closed` when the connection is over.
    pub async fn receive(&mut self) -> Result<Received, Closed> {
        loop {
            if let Some(received) = self.ready.pop_front() {
                return Ok(received);
            }
            if let Some(closed) = self.closed.clone() {
                // Bytes that came before the end are still to be had.
                match self.reads.next().now_or_never().flatten() {
                    Some(read) => self.take(read),
                    None => return Err(closed),
                }
                continue;
            }
            tokio::select! {
                Some(read) = self.reads.next() => {
                    let control_ended = read.0.via == Via::Control && !matches!(read.1, Ok(Some(_)));
                    self.take(read);
                    if control_ended {
                        self.patience_ends = Some(Instant::now() + CODE_TIMEOUT);
                    }
                }
                () = until(self.patience_ends) => {
                    self.closed = Some(Closed::lost("the control stream has ended"));
                }
                stream = self.connection.accept_uni() => match stream {
                    Ok(stream) => {
                        let via = Via::Stream(stream.id().into_u64());
                        self.reads.push(StreamReader::new(stream, via).read());
                    }
                    Err(error) => self.closed = Some(closed(&error)),
                },
                datagram = self.connection.receive_datagram() => match datagram {
                    Ok(datagram) => {
                        return Ok(Received { frame: datagram.payload(), via: Via::Datagram });
                    }
                    Err(error) => self.closed = Some(closed(&error)),
                },
            }
        }
    }

    /// Takes bytes of a stream, and goes on reading it.
    fn take(&mut self, (mut reader, read): Read) {
        let Ok(Some(bytes)) = read else { return };
        reader.buffer.extend(&bytes);
        loop {
            match reader.buffer.next_frame() {
                Ok(Some(frame)) => self.ready.push_back(Received { frame, via: reader.via }),
                Ok(None) => break,
                Err(error) => {
                    self.closed = Some(Closed::lost(error));
                    return;
                }
            }
        }
        self.reads.push(reader.read());
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

fn closed(error: &ConnectionError) -> Closed {
    let code = match error {
        // HTTP/3's own codes begin at 0x100 and lie outside of Skywave's ranges.
        ConnectionError::ApplicationClosed(close) => u16::try_from(close.code().into_inner()).ok(),
        _ => None,
    };
    Closed { code, reason: error.to_string() }
}

/// Looks at and cuts the connection.
#[derive(Debug, Clone)]
pub struct Control {
    connection: wtransport::Connection,
    socket: Arc<UdpSocket>,
}

impl Control {
    /// The path's smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// See [`super::Control::refused`].
    pub async fn refused(&self) {
        closed_port(self.connection.remote_address()).await;
    }

    /// See [`super::Control::cut`].
    pub fn cut(&self) {
        if let Err(error) = silence(&self.socket) {
            tracing::debug!(%error, "the socket cannot be silenced");
        }
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

/// Makes a UDP socket deaf and dumb: connected to the discard port it hears nobody else, and shut
/// down it sends nothing.
fn silence(socket: &UdpSocket) -> io::Result<()> {
    let nobody: SocketAddr = match socket.local_addr()? {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 9).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 9).into(),
    };
    socket.connect(nobody)?;
    SockRef::from(socket).shutdown(Shutdown::Write)
}
