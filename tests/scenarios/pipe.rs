//! A third transport: pipes in memory, and what clients reach them by.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{StatusCode, header};
use rustls::ServerConfig;
use skywave::{
    certificate::{CertificateResolver, DevCertificate},
    hub::outbox::Outbox,
    node::Node,
    session::{
        self,
        connection::{Connection, Flow, Incoming},
    },
    transport::{
        sockets::{self, Bound},
        webtransport,
    },
};
use skywave_protocol::{
    CONNECT_PATH, CloseCode, Encoding, Form, SUBPROTOCOL_JSON,
    codec::split_json,
    form,
    frame::Disconnect,
    framing::{MAX_PREFIX_BYTES, split_frames, write_prefix},
    heartbeat::PathKind,
};
use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};
use tokio_util::sync::PollSender;

pub const NAME: &str = "pipe";
/// Frames that a pipe holds.
const CAPACITY: usize = 16;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// MessagePack alone: a pipe keeps frames apart by itself.
static MESSAGE_PACK: Form =
    Form::new("MessagePack alone", |frame| Encoding::MessagePack.encode(&frame).map(|frame| frame.bare()));

/// The node's end of a pipe.
struct PipeConnection {
    incoming: mpsc::Receiver<Bytes>,
    outgoing: PollSender<Bytes>,
    encoding: Encoding,
    address: SocketAddr,
    max_frame_bytes: usize,
    flow: Flow,
}

impl PipeConnection {
    /// Writes what the outbox has. `false`: nobody is at the other end.
    fn write(&mut self, context: &mut Context<'_>, outbox: &Outbox) -> bool {
        outbox.register(context);
        loop {
            match self.outgoing.poll_reserve(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => {
                    self.flow.is_full = true;
                    return true;
                }
            }
            let now = tokio::time::Instant::now().into_std();
            if std::mem::take(&mut self.flow.is_full) {
                self.flow.last_taken = Some(now);
            }
            let Some(frame) = outbox.next() else {
                self.outgoing.abort_send();
                return true;
            };
            self.flow.last_sent = Some(now);
            self.flow.taken += frame.len() as u64;
            if self.outgoing.send_item(frame).is_err() {
                return false;
            }
        }
    }

    fn read(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        self.incoming.poll_recv(context).map(|frame| match frame {
            Some(frame) if frame.len() > self.max_frame_bytes => Incoming::Broken(CloseCode::FrameTooLarge),
            Some(frame) => self.encoding.read_client(&frame).into(),
            None => Incoming::Gone,
        })
    }
}

impl Connection for PipeConnection {
    fn transport(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> PathKind {
        PathKind::Tcp
    }

    fn form(&self) -> &'static Form {
        match self.encoding {
            Encoding::Json => &form::JSON_TEXT,
            Encoding::MessagePack => &MESSAGE_PACK,
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn flow(&self) -> Flow {
        self.flow
    }

    async fn drive(&mut self, outbox: &Outbox) -> Incoming {
        poll_fn(|context| match (self.write(context, outbox), outbox.takes_requests()) {
            (false, _) => Poll::Ready(Incoming::Gone),
            (true, true) => self.read(context),
            (true, false) => Poll::Pending,
        })
        .await
    }

    async fn close(self, outbox: &Outbox, _: Disconnect) {
        let Some(outgoing) = self.outgoing.get_ref() else { return };
        let last_frames = async {
            while let Some(frame) = outbox.take_control()
                && outgoing.send(frame).await.is_ok()
            {}
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, last_frames).await;
    }
}

/// Where clients come in that speak WebSocket, as far as a pipe; beside it, WebTransport as always.
pub struct Entrance {
    port: u16,
    _listeners: JoinSet<()>,
}

impl Entrance {
    pub fn open(node: &Arc<Node>) -> Self {
        let certificate = DevCertificate::generate(&[], SystemTime::now()).unwrap().certified;
        let resolver = Arc::new(CertificateResolver::fixed(certificate));
        let web = TlsAcceptor::from(Arc::new(tls(resolver.clone(), &[])));
        let (mut listeners, mut port) = (JoinSet::new(), 0);
        for Bound { socket: (tcp, udp), address } in
            sockets::bind_both("localhost:0".parse().unwrap()).unwrap()
        {
            port = address.port();
            listeners.spawn(listen(node.clone(), tcp, web.clone()));
            let quic = tls(resolver.clone(), &[webtransport::ALPN]);
            listeners
                .spawn(webtransport::listen(node.clone(), webtransport::endpoint(node, udp, quic).unwrap()));
        }
        Self { port, _listeners: listeners }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

fn tls(resolver: Arc<CertificateResolver>, protocols: &[&[u8]]) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

async fn listen(node: Arc<Node>, listener: TcpListener, tls: TlsAcceptor) {
    loop {
        let (stream, address) = sockets::accept(&listener).await;
        tokio::spawn(serve(node.clone(), tls.clone(), stream, address));
    }
}

/// Leads a client to a pipe, and what comes out of that to the client.
#[allow(clippy::result_large_err, reason = "tungstenite wants it so")]
async fn serve(node: Arc<Node>, tls: TlsAcceptor, stream: TcpStream, address: SocketAddr) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let mut encoding = Encoding::MessagePack;
    let Ok(socket) = accept_hdr_async(stream, |request: &Request, mut response: Response| {
        if let Err(status) = check(&node, request) {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = status;
            return Err(refusal);
        }
        if let Some(offered) = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL) {
            if offered == SUBPROTOCOL_JSON {
                encoding = Encoding::Json;
            }
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offered.clone());
        }
        Ok(response)
    })
    .await
    else {
        return;
    };
    let End { to_node, from_node } = open(&node, encoding, address);
    carry(socket, encoding, to_node, from_node).await;
}

/// A client's end of a pipe.
pub struct End {
    pub to_node: mpsc::Sender<Bytes>,
    pub from_node: mpsc::Receiver<Bytes>,
}

/// Begins a session on a pipe.
pub fn open(node: &Arc<Node>, encoding: Encoding, address: SocketAddr) -> End {
    let (to_node, incoming) = mpsc::channel(CAPACITY);
    let (outgoing, from_node) = mpsc::channel(CAPACITY);
    let connection = PipeConnection {
        incoming,
        outgoing: PollSender::new(outgoing),
        encoding,
        address,
        max_frame_bytes: node.config.limits.frame_bytes,
        flow: Flow::default(),
    };
    tokio::spawn(session::serve(node.clone(), connection));
    End { to_node, from_node }
}

fn check(node: &Node, request: &Request) -> Result<(), StatusCode> {
    if node.config.node.path_below(request.uri().path()) != CONNECT_PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    let origin = request.headers().get(header::ORIGIN).map(|origin| origin.to_str().unwrap());
    if node.allows_origin(origin) { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn carry(
    socket: Socket,
    encoding: Encoding,
    to_node: mpsc::Sender<Bytes>,
    mut from_node: mpsc::Receiver<Bytes>,
) {
    let (mut sink, mut stream) = socket.split();
    let forth = async move {
        while let Some(Ok(message)) = stream.next().await {
            for frame in frames(message) {
                if to_node.send(frame).await.is_err() {
                    return;
                }
            }
        }
    };
    let back = async move {
        while let Some(frame) = from_node.recv().await {
            if sink.send(message(frame, encoding)).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    tokio::join!(forth, back);
}

fn frames(message: Message) -> Vec<Bytes> {
    match message {
        Message::Binary(bytes) => split_frames(bytes).unwrap(),
        Message::Text(text) => split_json(&text).map_or_else(
            |_| vec![Bytes::from(text.clone())],
            |frames| frames.iter().map(|frame| Bytes::copy_from_slice(frame.get().as_bytes())).collect(),
        ),
        _ => Vec::new(),
    }
}

fn message(frame: Bytes, encoding: Encoding) -> Message {
    match encoding {
        Encoding::Json => Message::Text(frame.try_into().unwrap()),
        Encoding::MessagePack => {
            let mut prefix = [0; MAX_PREFIX_BYTES];
            let size = write_prefix(frame.len(), &mut prefix);
            Message::Binary([&prefix[MAX_PREFIX_BYTES - size..], &frame[..]].concat().into())
        }
    }
}
