//! The node on WebSocket: with and without TLS, over HTTP/1.1 and HTTP/2.

use super::peer::{Out, Peer};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::{Request, Response, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use skywave_client::{Encoding, TransportKind};
use skywave_protocol::{codec::split_json, framing::split_frames};
use std::{convert::Infallible, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request as WsRequest, Response as WsResponse},
        protocol::{CloseFrame, Role},
    },
};

pub async fn serve_tls(
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

pub async fn serve_plain(listener: TcpListener, peers: mpsc::UnboundedSender<Peer>) {
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
