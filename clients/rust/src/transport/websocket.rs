//! A raw connection over WebSocket: an HTTP/1.1 upgrade, or HTTP/2 extended CONNECT (RFC 8441).

use super::{
    Closed, Connection, DialError, DialOptions, MAX_RECEIVED_FRAME_BYTES, Received, TransportKind, Via,
    address,
    severed::{Knife, Severable},
};
use crate::{tls::TlsConfigs, url::NodeUrl};
use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use http_body_util::Empty;
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use skywave_protocol::{
    Encoding, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK,
    codec::{EncodedFrame, split_json},
    framing::split_frames,
};
use std::{collections::VecDeque, fmt, io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        handshake::client::generate_key,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

/// Bytes that are read, and collected for writing, at once.
const BUFFER_BYTES: usize = 16 * 1024;
/// How long closing may wait for the peer's part of it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the peer's HTTP/2 settings may take; they are the first thing that it sends.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(2);

/// What a WebSocket runs on: TCP, TLS or a stream of HTTP/2.
trait Io: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Io for T {}
type Socket = WebSocketStream<Box<dyn Io>>;

/// Opens a connection.
pub(super) async fn connect(
    url: &NodeUrl,
    options: &DialOptions,
    tls: &TlsConfigs,
) -> Result<Connection, DialError> {
    let addresses = address::resolve(url).await?;
    let tcp = address::race(&addresses, |address| async move {
        TcpStream::connect(address).await.map_err(DialError::Connect)
    })
    .await?;
    tcp.set_nodelay(true).map_err(DialError::Connect)?;
    let knife = Knife::default();
    let stream = encrypt(url, options, tls, Severable::new(tcp, knife.clone())).await?;
    let (socket, tunnel) = if options.http2 {
        extended_connect(url, options, stream).await?
    } else {
        (upgrade(url, options, stream).await?, None)
    };
    let (sink, stream) = socket.split();
    let control = Control { knife: knife.clone() };
    Ok(Connection {
        kind: TransportKind::WebSocket,
        encoding: options.encoding,
        sender: super::Sender::WebSocket(Sender { sink, encoding: options.encoding, _tunnel: tunnel }),
        receiver: super::Receiver::WebSocket(Receiver {
            stream,
            encoding: options.encoding,
            ready: VecDeque::new(),
            knife,
        }),
        control: super::Control::WebSocket(control),
    })
}

async fn encrypt(
    url: &NodeUrl,
    options: &DialOptions,
    tls: &TlsConfigs,
    stream: Severable,
) -> Result<Box<dyn Io>, DialError> {
    if !url.is_tls() {
        return Ok(Box::new(stream));
    }
    let config = if options.http2 { &tls.http2 } else { &tls.http1 };
    let name = ServerName::try_from(url.host().to_owned())
        .map_err(|error| DialError::Handshake(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let stream =
        TlsConnector::from(config.clone()).connect(name, stream).await.map_err(DialError::Handshake)?;
    if options.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(DialError::Http2("the server does not speak it".to_owned()));
    }
    Ok(Box::new(stream))
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(MAX_RECEIVED_FRAME_BYTES))
        .max_frame_size(Some(MAX_RECEIVED_FRAME_BYTES))
}

fn subprotocol(encoding: Encoding) -> HeaderValue {
    HeaderValue::from_static(match encoding {
        Encoding::Json => SUBPROTOCOL_JSON,
        Encoding::MessagePack => SUBPROTOCOL_MSGPACK,
    })
}

fn request(url: String, options: &DialOptions) -> http::request::Builder {
    let mut request = Request::builder()
        .uri(url)
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_PROTOCOL, subprotocol(options.encoding));
    for (name, value) in &options.headers {
        request = request.header(name, value);
    }
    request
}

/// The upgrade of HTTP/1.1 (RFC 6455).
async fn upgrade(url: &NodeUrl, options: &DialOptions, stream: Box<dyn Io>) -> Result<Socket, DialError> {
    let request = request(url.websocket("wss", "ws"), options)
        .header(header::HOST, url.authority())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_KEY, generate_key())
        .body(())
        .map_err(|error| websocket_error(error.into()))?;
    let (socket, response) =
        client_async_with_config(request, stream, Some(config())).await.map_err(websocket_error)?;
    agreed(response.headers(), options.encoding)?;
    Ok(socket)
}

fn websocket_error(error: tungstenite::Error) -> DialError {
    match error {
        tungstenite::Error::Http(response) => DialError::Refused { status: response.status().as_u16() },
        error => DialError::WebSocket(Box::new(error)),
    }
}

/// The node speaks the subprotocol that was asked for.
fn agreed(headers: &http::HeaderMap, encoding: Encoding) -> Result<(), DialError> {
    if headers.get(header::SEC_WEBSOCKET_PROTOCOL) == Some(&subprotocol(encoding)) {
        return Ok(());
    }
    let error = tungstenite::error::SubProtocolError::NoSubProtocol;
    let error = tungstenite::error::ProtocolError::SecWebSocketSubProtocolError(error);
    Err(DialError::WebSocket(Box::new(error.into())))
}

/// Keeps the HTTP/2 connection open as long as its one stream is used.
type Tunnel = http2::SendRequest<Empty<Bytes>>;

async fn extended_connect(
    url: &NodeUrl,
    options: &DialOptions,
    stream: Box<dyn Io>,
) -> Result<(Socket, Option<Tunnel>), DialError> {
    let failed = |error: hyper::Error| DialError::Http2(error.to_string());
    let (mut tunnel, mut connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(failed)?;
    wait_for_settings(&mut connection).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 connection ended");
        }
    });
    let mut request = request(url.websocket("https", "http"), options)
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .body(Empty::new())
        .map_err(|error| DialError::Http2(error.to_string()))?;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let response = tunnel.send_request(request).await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(DialError::Refused { status: response.status().as_u16() });
    }
    agreed(response.headers(), options.encoding)?;
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    let stream: Box<dyn Io> = Box::new(TokioIo::new(upgraded));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config())).await;
    Ok((socket, Some(tunnel)))
}

type Http2 = http2::Connection<TokioIo<Box<dyn Io>>, Empty<Bytes>, TokioExecutor>;

/// Runs the connection until the server's settings have allowed extended CONNECT. They come within a
/// round trip; hyper tells whether they have, but wakes nobody when they do.
async fn wait_for_settings(connection: &mut Http2) -> Result<(), DialError> {
    let enabled = async {
        let mut pause = Duration::from_millis(1);
        while !connection.is_extended_connect_protocol_enabled() {
            if timeout(pause, &mut *connection).await.is_ok() {
                return Err(DialError::Http2("the server closed the connection".to_owned()));
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    };
    let refused = || Err(DialError::Http2("the server does not allow extended CONNECT".to_owned()));
    timeout(SETTINGS_TIMEOUT, enabled).await.unwrap_or_else(|_| refused())
}

/// The sending half.
#[derive(Debug)]
pub struct Sender {
    sink: SplitSink<Socket, Message>,
    encoding: Encoding,
    _tunnel: Option<Tunnel>,
}

impl Sender {
    pub(super) async fn feed(&mut self, frame: &EncodedFrame) -> Result<(), Closed> {
        let message = match self.encoding {
            Encoding::Json => {
                let text = frame.bare().try_into().map_err(Closed::lost)?;
                Message::Text(text)
            }
            Encoding::MessagePack => Message::Binary(frame.prefixed()),
        };
        self.sink.feed(message).await.map_err(Closed::lost)
    }

    pub(super) async fn flush(&mut self) -> Result<(), Closed> {
        self.sink.flush().await.map_err(Closed::lost)
    }

    /// Sends a message as it is.
    ///
    /// # Errors
    /// `Closed` when the connection is over.
    pub async fn send_message(&mut self, message: Message) -> Result<(), Closed> {
        self.sink.send(message).await.map_err(Closed::lost)
    }

    pub(super) async fn close(mut self, code: u16, reason: &str) {
        let code = if code == 0 { 1000 } else { code };
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let close = async {
            self.sink.send(Message::Close(Some(frame))).await?;
            self.sink.close().await
        };
        match timeout(CLOSE_TIMEOUT, close).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "closing a WebSocket"),
            Err(_) => tracing::debug!("closing a WebSocket timed out"),
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver {
    stream: SplitStream<Socket>,
    encoding: Encoding,
    ready: VecDeque<Received>,
    knife: Knife,
}

impl Receiver {
    /// See [`super::Receiver::receive`].
    ///
    /// # Errors
    /// `Closed` when the connection is over.
    pub async fn receive(&mut self) -> Result<Received, Closed> {
        loop {
            if let Some(received) = self.ready.pop_front() {
                return Ok(received);
            }
            let message = tokio::select! {
                message = self.stream.next() => message,
                () = self.knife.wait() => return Err(Closed::lost("the connection was cut")),
            };
            match message {
                Some(Ok(message)) => self.take(message)?,
                Some(Err(error)) => return Err(Closed::lost(error)),
                None => return Err(Closed::lost("the WebSocket has ended")),
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<(), Closed> {
        let frames: Vec<Bytes> = match (message, self.encoding) {
            (Message::Text(text), Encoding::Json) => {
                let whole = Bytes::from(text.clone());
                let parts = split_json(&text).map_err(Closed::lost)?;
                parts.into_iter().map(|part| whole.slice_ref(part.get().as_bytes())).collect()
            }
            (Message::Binary(bytes), Encoding::MessagePack) => split_frames(bytes).map_err(Closed::lost)?,
            (Message::Close(frame), _) => {
                let closed = frame
                    .map(|frame| Closed { code: Some(frame.code.into()), reason: frame.reason.to_string() });
                return Err(closed.unwrap_or_else(|| Closed::lost("the WebSocket was closed")));
            }
            (Message::Ping(_) | Message::Pong(_) | Message::Frame(_), _) => return Ok(()),
            (_, encoding) => return Err(Closed::lost(format!("a message that is not {encoding:?}"))),
        };
        self.ready.extend(frames.into_iter().map(|frame| Received { frame, via: Via::WebSocket }));
        Ok(())
    }
}

/// Cuts the connection.
#[derive(Debug, Clone)]
pub struct Control {
    knife: Knife,
}

impl Control {
    /// See [`super::Control::cut`].
    pub fn cut(&self) {
        self.knife.cut();
    }
}
