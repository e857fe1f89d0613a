//! WebSocket: HTTP/1.1 upgrade and HTTP/2 extended CONNECT (RFC 8441), with TLS or without.

mod connection;
mod handshake;
mod line;
mod outlet;

use super::{canonical, hasten};
use crate::{
    limits::{AddressBlock, Place, Quota},
    node::Node,
};
use futures_util::FutureExt;
use handshake::Endpoint;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use line::Line;
use std::{iter, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// Sessions that may share one HTTP/2 connection.
const MAX_STREAMS: u32 = 32;
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
/// Room for what all of them may send: they may be different people's behind a proxy, and one that is not read from, since
/// it does not read its answers, holds up none of the others.
const HTTP2_CONNECTION_WINDOW: u32 = MAX_STREAMS * HTTP2_STREAM_WINDOW;
const HTTP2_SEND_BUFFER: usize = 16 * 1024;
/// The largest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long to wait after the process ran out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts WebSocket sessions for the node's life; over TLS when there is an acceptor.
pub async fn listen(node: Arc<Node>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let connections = Quota::new(node.config.limits.transports_per_address());
    let refused = |reason| node.metrics.handshakes_refused.with_label_values(&[reason]);
    let mut line = Line::new(node.config.limits.handshakes_per_second);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let address = canonical(address);
                    match connections.take(AddressBlock::of(address.ip())) {
                        Some(place) => {
                            if line.join(Caller { stream, address, _place: place }).is_some() {
                                refused("handshake_rate").inc();
                            }
                        }
                        None => refused("address_connections").inc(),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = node.handshake_turn(), if !line.is_empty() => {
                // Who says no more cannot end a TLS handshake: a turn would be wasted.
                let is_lost = |caller: &Caller| tls.is_some() && caller.says_no_more();
                let next = iter::from_fn(|| line.next()).find(|caller| !is_lost(caller));
                if let Some(caller) = next {
                    tokio::spawn(caller.serve(node.clone(), tls.clone()));
                }
            }
        }
    }
}

/// A connection that came in, with its place among those of its address.
struct Caller {
    stream: TcpStream,
    address: SocketAddr,
    _place: Place<AddressBlock>,
}

impl Caller {
    /// Whether the peer has ended its side, as one does that came in by another transport, or gave up.
    fn says_no_more(&self) -> bool {
        let ready = self.stream.ready(Interest::READABLE).now_or_never();
        matches!(ready, Some(Ok(ready)) if ready.is_read_closed())
    }

    async fn serve(self, node: Arc<Node>, tls: Option<TlsAcceptor>) {
        let Self { stream, address, _place } = self;
        if let Err(error) = hasten(&stream) {
            tracing::debug!(%address, %error, "the peer went at once");
            return;
        }
        match tls {
            Some(tls) => serve_tls(node, stream, address, tls).await,
            None => serve_http(node, stream, address).await,
        }
    }
}

async fn serve_tls(node: Arc<Node>, stream: TcpStream, address: SocketAddr, tls: TlsAcceptor) {
    let handshake = tokio::time::timeout(node.config.limits.connect_timeout, tls.accept(stream));
    match handshake.await {
        Ok(Ok(stream)) => serve_http(node, stream, address).await,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            node.metrics.handshakes_refused.with_label_values(&["tls"]).inc();
        }
        Err(_) => node.metrics.handshakes_refused.with_label_values(&["tls_timeout"]).inc(),
    }
}

/// Answers HTTP on one connection until it was upgraded, closed, or served no session for a while.
async fn serve_http<S>(node: Arc<Node>, stream: S, address: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = node.config.limits.connect_timeout;
    let endpoint = Endpoint::new(node, address);
    let answering = endpoint.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let answer = answering.answer(request);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MAX_HEAD_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_send_buf_size(HTTP2_SEND_BUFFER);
    let mut connection = pin!(http.serve_connection_with_upgrades(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%address, %error, "HTTP connection failed");
                }
                return;
            }
            () = tokio::time::sleep(patience) => {
                // Half a request, or an HTTP/2 connection without a session: it only takes a place.
                if endpoint.sessions() == 0 {
                    return;
                }
            }
        }
    }
}
