//! HTTP over TCP, with TLS or without: those who come, their turns, and what they ask for.

mod answer;
mod endpoint;
mod entrance;
mod line;
mod turns;
pub mod websocket;

use crate::node::Node;
use endpoint::Endpoint;
use entrance::Entrance;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use line::Line;
use std::{iter, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use turns::{Newcomer, Turns};

/// Sessions that may share one HTTP/2 connection.
const MAX_STREAMS: u32 = 32;
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
/// Room for what all of them may send. Behind a proxy they may be different people's. One that does not read its
/// answers is not read from, and must hold up none of the others.
const HTTP2_CONNECTION_WINDOW: u32 = MAX_STREAMS * HTTP2_STREAM_WINDOW;
const HTTP2_SEND_BUFFER: usize = 16 * 1024;
/// The largest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// For how many seconds' worth of turns there are connections without TLS that are no session yet.
const PLAIN_SECONDS: usize = 8;

/// Serves HTTP over TLS for the node's life. Who comes waits for the turn of its handshake.
pub async fn listen(node: Arc<Node>, listener: TcpListener, tls: TlsAcceptor) {
    let mut entrance = Entrance::new(&node, listener);
    let mut line = Line::new(node.config.limits.handshakes_per_second);
    loop {
        tokio::select! {
            caller = entrance.caller() => if line.join(caller).is_some() {
                entrance.refused("handshake_rate");
            },
            () = node.handshake_turn(), if !line.is_empty() => {
                // Who says no more cannot end a TLS handshake: a turn would be wasted.
                let next = iter::from_fn(|| line.next()).find(|caller| !caller.says_no_more());
                if let Some(caller) = next {
                    tokio::spawn(caller.serve_tls(node.clone(), tls.clone()));
                }
            }
        }
    }
}

/// Serves HTTP without TLS for the node's life. Who asks for a session waits for its turn.
pub async fn listen_plain(node: Arc<Node>, listener: TcpListener) {
    let mut entrance = Entrance::new(&node, listener);
    let per_second = node.config.limits.handshakes_per_second;
    let turns = Arc::new(Turns::new(per_second));
    let room = Arc::new(Semaphore::new((per_second as usize).saturating_mul(PLAIN_SECONDS)));
    let mut giving = pin!(turns.give(|| node.handshake_turn()));
    loop {
        let caller = tokio::select! {
            caller = entrance.caller() => caller,
            () = &mut giving => return,
        };
        match room.clone().try_acquire_owned() {
            Ok(place) => {
                tokio::spawn(caller.serve_plain(node.clone(), Newcomer::new(turns.clone(), place)));
            }
            Err(_) => entrance.refused("handshake_rate"),
        }
    }
}

/// Answers HTTP on one connection until it was upgraded, closed, or served no session for a while.
async fn serve<S>(endpoint: Endpoint, stream: S, patience: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (answering, address) = (endpoint.clone(), endpoint.address());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let endpoint = answering.clone();
        async move { Ok::<_, std::convert::Infallible>(endpoint.answer(request).await) }
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
