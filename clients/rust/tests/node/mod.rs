//! A scripted node: both transports on one port; the test decides every frame.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::{Request, Response, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use skywave_client::{
    Backoff, CertificateCheck, Channel, ChannelEvent, Client, ClientOptions, Encoding, Json, Payload,
    Position, Subscription, TransportChoice, TransportKind,
};
use skywave_protocol::{
    ClientFrame, Point, RequestId, ServerFrame,
    codec::split_json,
    frame::{
        self, Connect, Connected, Disconnect, Heartbeat, Limits, Publication, Publish, Published, SessionId,
        Subscribed,
    },
    framing::{FrameBuffer, split_frames},
    position::{Epoch, Origin},
};
use std::{collections::HashMap, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UdpSocket},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request as WsRequest, Response as WsResponse},
        protocol::{CloseFrame, Role},
    },
};

/// Nothing in a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Node {
    pub address: SocketAddr,
    pub plain: SocketAddr,
    pub sha256: [u8; 32],
    peers: mpsc::UnboundedReceiver<Peer>,
    _tasks: JoinSet<()>,
}

enum Out {
    Frame(ServerFrame),
    Stream(Channel, ServerFrame),
    Datagram(ServerFrame),
    Raw(Vec<u8>),
    Close(u16),
}

/// One connection as the node sees it.
pub struct Peer {
    pub kind: TransportKind,
    frames: mpsc::UnboundedReceiver<ClientFrame>,
    out: mpsc::UnboundedSender<Out>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Udp {
    Served,
    /// Bound but silent, like a firewall that drops everything.
    Silent,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(Udp::Served).await
    }

    pub async fn start_with(udp: Udp) -> Self {
        let (tcp, socket) = bind_both().await;
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (certificate, key) = certificate();
        let (sender, peers) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let (address, plain_address) = (tcp.local_addr().unwrap(), plain.local_addr().unwrap());
        match udp {
            Udp::Served => {
                tasks.spawn(serve_webtransport(socket, certificate.clone(), key.clone_key(), sender.clone()));
            }
            Udp::Silent => {
                tasks.spawn(async move {
                    let _socket = socket;
                    std::future::pending::<()>().await;
                });
            }
        }
        let sha256 = Sha256::digest(&certificate).into();
        tasks.spawn(serve_tls(tcp, certificate, key, sender.clone()));
        tasks.spawn(serve_plain(plain, sender));
        Self { address, plain: plain_address, sha256, peers, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Options that reach this node quickly over one transport.
    pub fn options(&self, kind: TransportKind) -> ClientOptions {
        let mut options = ClientOptions::new(self.url());
        options.transport = match kind {
            TransportKind::WebTransport => TransportChoice::WebTransport,
            TransportKind::WebSocket => TransportChoice::WebSocket,
        };
        options.certificate = CertificateCheck::Insecure;
        options.backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_millis(100) };
        options
    }

    pub async fn accept(&mut self) -> Peer {
        timeout(PATIENCE, self.peers.recv()).await.expect("no connection in time").unwrap()
    }

    /// Accepts, reads `connect` and grants all of it.
    pub async fn welcome(&mut self) -> (Peer, Connect) {
        let mut peer = self.accept().await;
        let connect = peer.connect().await;
        peer.send(connected(&connect));
        (peer, connect)
    }

    /// A client and the node's end of its first connection.
    pub async fn client(&mut self, options: ClientOptions) -> (Client, Peer, Connect) {
        let (client, (peer, connect)) = tokio::join!(Client::connect(options), self.welcome());
        (client.unwrap(), peer, connect)
    }

    pub async fn no_further_connection(&mut self, within: Duration) {
        if let Ok(Some(_)) = timeout(within, self.peers.recv()).await {
            panic!("the client came back");
        }
    }
}

impl Peer {
    pub async fn next(&mut self) -> Option<ClientFrame> {
        timeout(PATIENCE, self.frames.recv()).await.expect("no frame in time")
    }

    /// Waits for anything at all: a frame or the end.
    pub async fn heard(&mut self) -> Option<ClientFrame> {
        self.frames.recv().await
    }

    /// The next frame that is no `pong`.
    pub async fn frame(&mut self) -> ClientFrame {
        loop {
            match self.next().await.expect("the connection ended") {
                ClientFrame::Pong(_) => {}
                frame => return frame,
            }
        }
    }

    pub async fn connect(&mut self) -> Connect {
        match self.frame().await {
            ClientFrame::Connect(connect) => connect,
            other => panic!("{other:?}"),
        }
    }

    pub async fn publish(&mut self) -> Publish {
        match self.frame().await {
            ClientFrame::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    pub async fn subscribe(&mut self) -> frame::Subscribe {
        match self.frame().await {
            ClientFrame::Subscribe(subscribe) => subscribe,
            other => panic!("{other:?}"),
        }
    }

    pub async fn unsubscribe(&mut self) -> frame::Unsubscribe {
        match self.frame().await {
            ClientFrame::Unsubscribe(unsubscribe) => unsubscribe,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the client has closed the connection; what it sends before is dropped.
    pub async fn ended(&mut self) {
        while self.next().await.is_some() {}
    }

    fn out(&self, out: Out) {
        // A client that has gone is what some tests are about.
        let _ = self.out.send(out);
    }

    pub fn send(&self, frame: ServerFrame) {
        self.out(Out::Frame(frame));
    }

    /// On WebTransport on the channel's own stream.
    pub fn send_on_stream(&self, name: &str, frame: ServerFrame) {
        self.out(Out::Stream(channel(name), frame));
    }

    pub fn send_datagram(&self, frame: ServerFrame) {
        self.out(Out::Datagram(frame));
    }

    /// Bytes as a frame.
    pub fn send_raw(&self, bytes: &[u8]) {
        self.out(Out::Raw(bytes.to_vec()));
    }

    /// Closes with a code, without a `disconnect` frame.
    pub fn close(&self, code: u16) {
        self.out(Out::Close(code));
    }

    pub fn disconnect(&self, code: skywave_protocol::CloseCode) {
        self.send(ServerFrame::Disconnect(Disconnect::from(code)));
        self.close(code.code());
    }
}

// ---- frames

pub fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

pub fn json(value: &str) -> Payload {
    Json::parse(value).unwrap().into()
}

pub fn connected_frame(connect: &Connect) -> Connected {
    Connected {
        id: connect.id,
        session: SessionId::new("s1").unwrap(),
        resume: "secret".into(),
        node: "fake".into(),
        region: Origin::new("eu").unwrap(),
        user: None,
        expires_at_ms: None,
        resumed: connect.resume.is_some(),
        heartbeat: Heartbeat { interval_ms: 60_000, timeout_ms: 10_000 },
        limits: Limits {
            frame_bytes: 65536,
            channels_per_session: 0,
            requests_per_second: 0,
            publishes_per_second: 0,
        },
        regions: Vec::new(),
        prefer_url: None,
    }
}

pub fn connected(connect: &Connect) -> ServerFrame {
    ServerFrame::Connected(connected_frame(connect))
}

/// The position after `offset` of origin `eu`; 0 is an empty channel.
pub fn position(offset: u64) -> Position {
    if offset == 0 {
        return Position::new();
    }
    [(Origin::new("eu").unwrap(), Point { epoch: Epoch::new("e1").unwrap(), offset })].into_iter().collect()
}

pub fn subscribed(id: Option<RequestId>, name: &str, offset: u64, recovered: Option<bool>) -> ServerFrame {
    ServerFrame::Subscribed(Subscribed {
        id,
        channel: channel(name),
        position: position(offset),
        recovered,
        reason: None,
        presence: None,
    })
}

pub fn publication(name: &str, offset: u64) -> ServerFrame {
    keyed_publication(name, offset, None)
}

pub fn keyed_publication(name: &str, offset: u64, key: Option<&str>) -> ServerFrame {
    ServerFrame::Publication(Publication {
        channel: channel(name),
        origin: Origin::new("eu").unwrap(),
        epoch: Epoch::new("e1").unwrap(),
        offset,
        time_ms: 0,
        key: key.map(|key| frame::Key::new(key).unwrap()),
        user: None,
        data: json(&offset.to_string()),
    })
}

pub fn published(publish: &Publish, offset: u64) -> ServerFrame {
    ServerFrame::Published(Published {
        id: publish.id,
        channel: publish.channel.clone(),
        origin: Origin::new("eu").unwrap(),
        epoch: Epoch::new("e1").unwrap(),
        offset,
    })
}

// ---- the reader's side

pub async fn event(subscription: &mut Subscription) -> ChannelEvent {
    timeout(PATIENCE, subscription.next()).await.expect("no event in time").expect("the subscription ended")
}

/// The offsets of the next `count` publications; other events are passed over.
pub async fn offsets(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        if let ChannelEvent::Publication(publication) = event(subscription).await {
            offsets.push(publication.offset);
        }
    }
    offsets
}

/// A client with a subscription to `chat:1` at `offset`.
pub async fn subscribed_client(
    node: &mut Node,
    options: ClientOptions,
    offset: u64,
) -> (Client, Peer, Subscription) {
    let (client, mut peer, _) = node.client(options).await;
    let subscription = subscribe(&client, &mut peer, "chat:1", offset).await;
    (client, peer, subscription)
}

pub async fn subscribe(client: &Client, peer: &mut Peer, name: &str, offset: u64) -> Subscription {
    let answer = async {
        let subscribe = peer.subscribe().await;
        peer.send(subscribed(Some(subscribe.id), name, offset, None));
    };
    let (subscription, ()) = tokio::join!(client.subscribe(name, Default::default()), answer);
    let mut subscription = subscription.unwrap();
    assert!(matches!(event(&mut subscription).await, ChannelEvent::Subscribed(_)));
    subscription
}

// ---- sockets

async fn bind_both() -> (TcpListener, std::net::UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = std::net::UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
    panic!("no port is free on both TCP and UDP");
}

pub fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let now = std::time::SystemTime::now();
    parameters.not_before = (now - Duration::from_secs(3600)).into();
    parameters.not_after = (now + Duration::from_secs(7 * 86_400)).into();
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

async fn serve_webtransport(
    socket: std::net::UdpSocket,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    peers: mpsc::UnboundedSender<Peer>,
) {
    let chain = wtransport::tls::CertificateChain::single(
        wtransport::tls::Certificate::from_der(certificate.to_vec()).unwrap(),
    );
    let key = wtransport::tls::PrivateKey::from_der_pkcs8(key.secret_der().to_vec());
    let config = wtransport::ServerConfig::builder()
        .with_bind_socket(socket)
        .with_identity(wtransport::Identity::new(chain, key))
        .build();
    let endpoint = wtransport::Endpoint::server(config).unwrap();
    let mut tasks = JoinSet::new();
    loop {
        let incoming = endpoint.accept().await;
        let peers = peers.clone();
        tasks.spawn(async move {
            let Ok(request) = incoming.await else { return };
            let json = request.path().contains("encoding=json");
            let encoding = if json { Encoding::Json } else { Encoding::MessagePack };
            if let Ok(connection) = request.accept().await {
                run_webtransport(connection, encoding, peers).await;
            }
        });
    }
}

async fn run_webtransport(
    connection: wtransport::Connection,
    encoding: Encoding,
    peers: mpsc::UnboundedSender<Peer>,
) {
    let Ok((mut control, mut receive)) = connection.accept_bi().await else { return };
    let (frame_sender, frames) = mpsc::unbounded_channel();
    let (out, mut queue) = mpsc::unbounded_channel();
    let _ = peers.send(Peer { kind: TransportKind::WebTransport, frames, out });
    let mut streams: HashMap<Channel, wtransport::SendStream> = HashMap::new();
    let mut buffer = FrameBuffer::new(1 << 20);
    let mut bytes = vec![0; 65536];
    loop {
        tokio::select! {
            read = receive.read(&mut bytes) => {
                let Ok(Some(count)) = read else { return };
                buffer.extend(&bytes[..count]);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    let _ = frame_sender.send(encoding.decode_client(&frame).unwrap());
                }
            }
            datagram = connection.receive_datagram() => {
                let Ok(datagram) = datagram else { return };
                let _ = frame_sender.send(encoding.decode_client(&datagram).unwrap());
            }
            out = queue.recv() => match out {
                Some(Out::Frame(frame)) => {
                    if control.write_all(&encoding.encode(&frame).unwrap().prefixed()).await.is_err() { return }
                }
                Some(Out::Stream(channel, frame)) => {
                    if !streams.contains_key(&channel) {
                        let stream = connection.open_uni().await.unwrap().await.unwrap();
                        streams.insert(channel.clone(), stream);
                    }
                    let bytes = encoding.encode(&frame).unwrap().prefixed();
                    if streams.get_mut(&channel).unwrap().write_all(&bytes).await.is_err() { return }
                }
                Some(Out::Datagram(frame)) => {
                    let _ = connection.send_datagram(encoding.encode(&frame).unwrap().bare());
                }
                Some(Out::Raw(bytes)) => {
                    let mut prefixed = vec![bytes.len() as u8];
                    prefixed.extend(bytes);
                    let _ = control.write_all(&prefixed).await;
                }
                Some(Out::Close(code)) => {
                    let _ = timeout(Duration::from_millis(500), control.finish()).await;
                    connection.close(u32::from(code).into(), b"");
                    return;
                }
                None => {
                    // The test dropped the peer: the node is gone, without a word.
                    connection.close(0u32.into(), b"");
                    return;
                }
            },
        }
    }
}

async fn serve_tls(
    listener: TcpListener,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    peers: mpsc::UnboundedSender<Peer>,
) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut tasks = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, peers) = (acceptor.clone(), peers.clone());
        tasks.spawn(async move {
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                serve_http2(stream, peers).await;
            } else {
                upgrade(stream, peers).await;
            }
        });
    }
}

async fn serve_plain(listener: TcpListener, peers: mpsc::UnboundedSender<Peer>) {
    let mut tasks = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let peers = peers.clone();
        tasks.spawn(async move {
            let mut begin = [0; 3];
            tcp.peek(&mut begin).await.unwrap();
            if &begin == b"PRI" {
                serve_http2(tcp, peers).await;
            } else {
                upgrade(tcp, peers).await;
            }
        });
    }
}

fn encoding_of(subprotocol: Option<&http::HeaderValue>) -> Encoding {
    match subprotocol.unwrap().to_str().unwrap() {
        "skywave.v1.json" => Encoding::Json,
        "skywave.v1.msgpack" => Encoding::MessagePack,
        other => panic!("{other}"),
    }
}

async fn upgrade(stream: impl AsyncRead + AsyncWrite + Unpin, peers: mpsc::UnboundedSender<Peer>) {
    let mut encoding = Encoding::Json;
    #[allow(clippy::result_large_err, reason = "the library's signature")]
    let callback = |request: &WsRequest, mut response: WsResponse| {
        assert_eq!(request.uri().path(), "/v1/connect");
        let subprotocol = request.headers().get("sec-websocket-protocol");
        encoding = encoding_of(subprotocol);
        response.headers_mut().insert("sec-websocket-protocol", subprotocol.unwrap().clone());
        Ok(response)
    };
    if let Ok(socket) = accept_hdr_async(stream, callback).await {
        run_websocket(socket, encoding, peers).await;
    }
}

async fn serve_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peers: mpsc::UnboundedSender<Peer>,
) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let peers = peers.clone();
        async move {
            let subprotocol = request.headers().get("sec-websocket-protocol").cloned().unwrap();
            let encoding = encoding_of(Some(&subprotocol));
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(request).await.unwrap();
                let socket =
                    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                run_websocket(socket, encoding, peers).await;
            });
            let response = Response::builder().header("sec-websocket-protocol", subprotocol);
            Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
        }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn run_websocket(
    mut socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>,
    encoding: Encoding,
    peers: mpsc::UnboundedSender<Peer>,
) {
    let (frame_sender, frames) = mpsc::unbounded_channel();
    let (out, mut queue) = mpsc::unbounded_channel();
    let _ = peers.send(Peer { kind: TransportKind::WebSocket, frames, out });
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    for frame in split_json(&text).unwrap() {
                        let _ = frame_sender.send(encoding.decode_client(frame.get().as_bytes()).unwrap());
                    }
                }
                Some(Ok(Message::Binary(bytes))) => {
                    for frame in split_frames(bytes).unwrap() {
                        let _ = frame_sender.send(encoding.decode_client(&frame).unwrap());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            out = queue.recv() => {
                let message = match out {
                    Some(Out::Frame(frame) | Out::Stream(_, frame) | Out::Datagram(frame)) => match encoding {
                        Encoding::Json => {
                            let text = String::from_utf8(encoding.encode(&frame).unwrap().bare().to_vec()).unwrap();
                            Message::text(format!("[{text}]"))
                        }
                        Encoding::MessagePack => Message::Binary(encoding.encode(&frame).unwrap().prefixed()),
                    },
                    Some(Out::Raw(bytes)) => {
                        let mut prefixed = vec![bytes.len() as u8];
                        prefixed.extend(bytes);
                        Message::binary(prefixed)
                    }
                    Some(Out::Close(code)) => {
                        Message::Close(Some(CloseFrame { code: code.into(), reason: "".into() }))
                    }
                    None => return,
                };
                if socket.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A UDP port on which nobody listens.
pub async fn closed_udp_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap()
}

/// Writes a test once for both transports.
#[macro_export]
macro_rules! over_both_transports {
    ($($(#[$meta:meta])* async fn $name:ident($kind:ident: TransportKind) $body:block)+) => {
        $(
            mod $name {
                use super::*;

                $(#[$meta])*
                async fn scenario($kind: TransportKind) $body

                #[tokio::test]
                async fn webtransport() {
                    scenario(TransportKind::WebTransport).await;
                }

                #[tokio::test]
                async fn websocket() {
                    scenario(TransportKind::WebSocket).await;
                }
            }
        )+
    };
}
