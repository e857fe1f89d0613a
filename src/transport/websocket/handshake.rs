//! The HTTP side of a WebSocket: checks the request, answers it, and starts the session once upgraded.

use super::{connection::WebSocketConnection, turns::Newcomer};
use crate::{node::Node, session, transport::choose_subprotocol};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_TYPE, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use http_body_util::Full;
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use skywave_protocol::{CONNECT_PATH, Encoding};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// For a proxy's checks of its backends, which reach no other port: whether the process answers, …
const HEALTH_PATH: &str = "/healthz";
/// … and whether it takes new sessions.
const READY_PATH: &str = "/readyz";

type Answer = Response<Full<Bytes>>;

/// The one endpoint, as seen from one HTTP connection.
#[derive(Clone)]
pub struct Endpoint {
    node: Arc<Node>,
    address: SocketAddr,
    sessions: Arc<AtomicUsize>,
    /// Where each session needs a turn.
    newcomer: Option<Arc<Newcomer>>,
}

/// A request that asks for a WebSocket in the right way.
struct Accepted {
    encoding: Encoding,
    subprotocol: Option<&'static str>,
    /// Of the key; HTTP/2 has none.
    accept_key: Option<String>,
}

impl Endpoint {
    pub fn new(node: Arc<Node>, address: SocketAddr, newcomer: Option<Newcomer>) -> Self {
        Self { node, address, sessions: Arc::default(), newcomer: newcomer.map(Arc::new) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sessions that run over this HTTP connection, or are about to.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Answers a request; a good one becomes a session in the background.
    pub async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let path = self.node.config.node.path_below(request.uri().path());
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            match (path, self.node.cluster.unready()) {
                (HEALTH_PATH, _) => return text(StatusCode::OK, "ok\n"),
                (READY_PATH, None) => return text(StatusCode::OK, "ready\n"),
                (READY_PATH, Some(reason)) => return text(StatusCode::SERVICE_UNAVAILABLE, reason),
                _ => {}
            }
        }
        let accepted = match self.check(&request) {
            Ok(accepted) => accepted,
            Err((status, message)) => {
                self.refused(status.as_str());
                return refusal(status, message);
            }
        };
        if let Some(newcomer) = &self.newcomer
            && newcomer.take_turn().await.is_err()
        {
            self.refused("handshake_rate");
            let mut refusal = refusal(StatusCode::SERVICE_UNAVAILABLE, "too many come at once");
            if request.version() < Version::HTTP_2 {
                // A proxy would keep it for others.
                refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return refusal;
        }
        let upgrade = hyper::upgrade::on(&mut request);
        let (node, address, sessions) = (self.node.clone(), self.address, self.sessions.clone());
        sessions.fetch_add(1, Ordering::Relaxed);
        // Boxed: what the upgrade needs is gone once the session runs.
        let beginning = Box::pin(begin(node, upgrade, accepted.encoding, address));
        tokio::spawn(async move {
            if let Some(serving) = beginning.await {
                serving.await;
            }
            sessions.fetch_sub(1, Ordering::Relaxed);
        });
        accepted_answer(accepted.accept_key, accepted.subprotocol)
    }

    fn refused(&self, reason: &str) {
        self.node.metrics.handshakes_refused.with_label_values(&[reason]).inc();
    }

    fn check(&self, request: &Request<Incoming>) -> Result<Accepted, (StatusCode, &'static str)> {
        if self.node.config.node.path_below(request.uri().path()) != CONNECT_PATH {
            return Err((StatusCode::NOT_FOUND, "sessions are at /v1/connect"));
        }
        let headers = request.headers();
        let accept_key = if let Some(protocol) = request.extensions().get::<Protocol>() {
            if request.method() != Method::CONNECT || protocol.as_str() != "websocket" {
                return Err((StatusCode::NOT_IMPLEMENTED, "only websocket can be connected to"));
            }
            None
        } else {
            Some(http1_accept_key(request)?)
        };
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != b"13") {
            return Err((StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is spoken here"));
        }
        let origin = match headers.get(ORIGIN) {
            Some(origin) => Some(origin.to_str().map_err(|_| (StatusCode::BAD_REQUEST, "bad origin"))?),
            None => None,
        };
        if !self.node.allows_origin(origin) {
            return Err((StatusCode::FORBIDDEN, "this origin is not allowed"));
        }
        let offered = subprotocols(headers).ok_or((StatusCode::BAD_REQUEST, "bad subprotocols"))?;
        let (encoding, subprotocol) = choose_subprotocol(&offered)
            .ok_or((StatusCode::BAD_REQUEST, "skywave.v1.json and skywave.v1.msgpack are spoken here"))?;
        Ok(Accepted { encoding, subprotocol, accept_key })
    }
}

/// The session on a connection that was upgraded, if it was.
async fn begin(
    node: Arc<Node>,
    upgrade: OnUpgrade,
    encoding: Encoding,
    address: SocketAddr,
) -> Option<impl Future<Output = ()> + Send> {
    match upgrade.await {
        Ok(upgraded) => {
            let limit = node.config.limits.frame_bytes;
            let connection = WebSocketConnection::new(TokioIo::new(upgraded), encoding, address, limit).await;
            Some(session::serve(node, connection))
        }
        Err(error) => {
            tracing::debug!(%address, %error, "the upgrade failed");
            None
        }
    }
}

fn http1_accept_key(request: &Request<Incoming>) -> Result<String, (StatusCode, &'static str)> {
    let headers = request.headers();
    let asks = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    if request.method() != Method::GET || !asks(CONNECTION, "upgrade") || !asks(UPGRADE, "websocket") {
        return Err((StatusCode::UPGRADE_REQUIRED, "this is a WebSocket"));
    }
    match headers.get(SEC_WEBSOCKET_KEY) {
        Some(key) => Ok(derive_accept_key(key.as_bytes())),
        None => Err((StatusCode::BAD_REQUEST, "no Sec-WebSocket-Key")),
    }
}

fn subprotocols(headers: &HeaderMap) -> Option<Vec<&str>> {
    let mut offered = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        offered.extend(value.to_str().ok()?.split(',').map(str::trim));
    }
    Some(offered)
}

fn accepted_answer(accept_key: Option<String>, subprotocol: Option<&'static str>) -> Answer {
    let mut response = Response::builder();
    if let Some(key) = accept_key {
        response = response
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_ACCEPT, key);
    }
    if let Some(subprotocol) = subprotocol {
        response = response.header(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response.body(Full::default()).unwrap_or_else(|_| refusal(StatusCode::BAD_REQUEST, "bad key"))
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn refusal(status: StatusCode, message: &'static str) -> Answer {
    let mut response = text(status, message);
    if status == StatusCode::UPGRADE_REQUIRED {
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}
