//! WebSocket: an upgrade of HTTP/1.1, and extended CONNECT on HTTP/2 (RFC 8441).

mod connection;
mod outlet;

use super::answer::{Answer, Rejection};
use crate::{node::Node, refusals::Refusal, session};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use connection::WebSocketConnection;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use http_body_util::Full;
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use skywave_protocol::{Encoding, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK};
use std::{net::SocketAddr, sync::Arc};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What a client's key has (RFC 6455, section 4.1).
const KEY_BYTES: usize = 16;
/// Of this transport, in metrics and the API.
pub const NAME: &str = "websocket";

/// What a request asks for that asks for a WebSocket in the right way.
pub struct Upgrade {
    encoding: Encoding,
    subprotocol: Option<&'static str>,
    /// Of the key; HTTP/2 has none.
    accept_key: Option<String>,
}

impl Upgrade {
    /// # Errors
    /// What it is to be refused with.
    pub(crate) fn asked_for(request: &Request<Incoming>, node: &Node) -> Result<Self, Rejection> {
        let headers = request.headers();
        let accept_key = if let Some(protocol) = request.extensions().get::<Protocol>() {
            if request.method() != Method::CONNECT || protocol.as_str() != "websocket" {
                return Err(Rejection::new(
                    StatusCode::NOT_IMPLEMENTED,
                    "only websocket can be connected to",
                ));
            }
            None
        } else if is_upgrade(request) {
            if !headers.contains_key(HOST) {
                return Err(Rejection::new(StatusCode::BAD_REQUEST, "no Host"));
            }
            Some(accept_key(headers)?)
        } else {
            node.refused(Refusal::Upgrade);
            return Err(Rejection::new(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket"));
        };
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != b"13") {
            return Err(Rejection::new(StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is spoken here"));
        }
        let bad = |message| Rejection::new(StatusCode::BAD_REQUEST, message);
        let origin = headers.get(ORIGIN).map(|origin| origin.to_str()).transpose();
        if !node.allows_origin(origin.map_err(|_| bad("bad origin"))?) {
            return Err(Rejection::new(StatusCode::FORBIDDEN, "this origin is not allowed"));
        }
        let offered = subprotocols(headers).ok_or(bad("bad subprotocols"))?;
        let (encoding, subprotocol) = choose_subprotocol(&offered)
            .ok_or(bad("skywave.v1.json and skywave.v1.msgpack are spoken here"))?;
        Ok(Self { encoding, subprotocol, accept_key })
    }

    /// The session on the connection once it is upgraded, if it is.
    pub fn begin(
        &self,
        node: Arc<Node>,
        address: SocketAddr,
        upgrading: OnUpgrade,
    ) -> impl Future<Output = Option<impl Future<Output = ()> + Send + use<>>> + Send + use<> {
        let encoding = self.encoding;
        async move {
            match upgrading.await {
                Ok(upgraded) => {
                    let (stream, limit) = (TokioIo::new(upgraded), node.config.limits.frame_bytes);
                    let connection = WebSocketConnection::new(stream, encoding, address, limit).await;
                    Some(session::serve(node, connection))
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "the upgrade failed");
                    None
                }
            }
        }
    }

    pub fn answer(self) -> Answer {
        let mut response = Response::builder();
        if let Some(key) = self.accept_key {
            response = response
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(CONNECTION, "upgrade")
                .header(UPGRADE, "websocket")
                .header(SEC_WEBSOCKET_ACCEPT, key);
        }
        if let Some(subprotocol) = self.subprotocol {
            response = response.header(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        let rejection = || Rejection::new(StatusCode::BAD_REQUEST, "bad key").into();
        response.body(Full::default()).unwrap_or_else(|_| rejection())
    }
}

/// Whether an upgrade of HTTP/1.1 is asked for. nginx speaks HTTP/1.0 by default, where a connection ends with its
/// answer.
fn is_upgrade(request: &Request<Incoming>) -> bool {
    let asks = |name, token: &str| {
        let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && asks(CONNECTION, "upgrade")
        && asks(UPGRADE, "websocket")
}

fn accept_key(headers: &HeaderMap) -> Result<String, Rejection> {
    let bad = |message| Err(Rejection::new(StatusCode::BAD_REQUEST, message));
    match headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes) {
        Some(key) if BASE64_STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == KEY_BYTES) => {
            Ok(derive_accept_key(key))
        }
        Some(_) => bad("Sec-WebSocket-Key is not 16 bytes in base64"),
        None => bad("no Sec-WebSocket-Key"),
    }
}

fn subprotocols(headers: &HeaderMap) -> Option<Vec<&str>> {
    let mut offered = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        offered.extend(value.to_str().ok()?.split(',').map(str::trim));
    }
    Some(offered)
}

/// The encoding of a WebSocket that offers these subprotocols, and the one to answer with. `None`: only unknown
/// ones are offered.
fn choose_subprotocol(offered: &[&str]) -> Option<(Encoding, Option<&'static str>)> {
    if offered.is_empty() {
        return Some((Encoding::Json, None));
    }
    offered.iter().find_map(|name| match *name {
        SUBPROTOCOL_JSON => Some((Encoding::Json, Some(SUBPROTOCOL_JSON))),
        SUBPROTOCOL_MSGPACK => Some((Encoding::MessagePack, Some(SUBPROTOCOL_MSGPACK))),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_subprotocol_is_taken() {
        assert_eq!(choose_subprotocol(&[]), Some((Encoding::Json, None)));
        let offered = ["chat", SUBPROTOCOL_MSGPACK, SUBPROTOCOL_JSON];
        assert_eq!(choose_subprotocol(&offered), Some((Encoding::MessagePack, Some(SUBPROTOCOL_MSGPACK))));
        assert_eq!(choose_subprotocol(&["chat"]), None);
    }
}
