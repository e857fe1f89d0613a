//! The HTTP/3 side of a session: settings, CONNECT and its answer (RFC 9114, RFC 9220, draft-ietf-webtrans-http3).

use super::{
    connection::WebTransportConnection,
    streams::{read_varint_from, write_varint},
};
use crate::node::Node;
use quinn::{Connection, ConnectionError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use skywave_protocol::{CONNECT_PATH, Encoding};
use std::borrow::Cow;
use wtransport_proto::{
    error::ErrorCode, frame::Frame, headers::Headers, ids::StatusCode, session::SessionResponse,
};

/// `:protocol` of a request for a session: that of drafts 02 to 14, and that of later ones.
const PROTOCOLS: [&str; 2] = ["webtransport", "webtransport-h3"];
/// Begins HTTP/3's control stream (RFC 9114, section 6.2.1).
const CONTROL_STREAM: u64 = 0x00;
const SETTINGS_FRAME: u64 = 0x04;
/// What this node is able to, as each draft of WebTransport asks for it; docs/protocol.md says which browsers look at
/// which. Drafts 13 and 14 (`WT_MAX_SESSIONS`) are left out: with it Safari waits for credit by capsules, without it
/// it takes draft 07.
const SETTINGS: [(u64, u64); 7] = [
    // QPACK without a dynamic table.
    (0x01, 0),
    (0x07, 0),
    // `ENABLE_CONNECT_PROTOCOL` and `H3_DATAGRAM`.
    (0x08, 1),
    (0x33, 1),
    // Draft 02: `ENABLE_WEBTRANSPORT`.
    (0x2b60_3742, 1),
    // Drafts 07 to 12: `WEBTRANSPORT_MAX_SESSIONS`.
    (0xc671_706a, 1),
    // From draft 15 on: `WT_ENABLED`.
    (0x2c7c_f000, 1),
];
pub(crate) const HEADERS_FRAME: u64 = 0x01;
/// The largest request head, in bytes.
const MAX_HEADERS_BYTES: u64 = 16 * 1024;
/// Frames of unknown types that may come before the request's headers, and their size.
const MAX_UNKNOWN_FRAMES: usize = 4;
const MAX_UNKNOWN_FRAME_BYTES: u64 = 1024;

/// Why a QUIC connection did not become a WebTransport session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the handshake took too long")]
    Timeout,
    #[error("QUIC: {0}")]
    Quic(#[from] ConnectionError),
    #[error("the request stream ended: {0}")]
    Read(#[from] ReadExactError),
    #[error("the peer does not read: {0}")]
    Write(#[from] WriteError),
    #[error("bad HTTP/3: {0}")]
    Http(ErrorCode),
    #[error("refused with status {0}")]
    Refused(u16),
}

impl HandshakeError {
    /// Its name in metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "quic_timeout",
            Self::Quic(_) => "quic",
            Self::Read(_) | Self::Write(_) | Self::Http(_) => "http3",
            Self::Refused(_) => "refused",
        }
    }
}

/// The streams of an accepted session.
pub(crate) struct Established {
    /// Our HTTP/3 control stream: it must stay open.
    pub settings: SendStream,
    /// The request's stream, whose end is the session's end.
    pub(crate) session_send: SendStream,
    pub(crate) session_receive: RecvStream,
    pub encoding: Encoding,
}

/// Speaks HTTP/3 until a session is accepted. The client's settings are not waited for: of the drafts that it may name
/// there, all that are spoken here have one wire format.
pub(crate) async fn accept(
    connection: &Connection,
    node: &Node,
) -> Result<WebTransportConnection, HandshakeError> {
    let settings = send_settings(connection).await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let headers = read_headers(&mut receive).await?;
    let encoding = match check(&headers, node) {
        Ok(encoding) => encoding,
        Err(status) => {
            respond(&mut send, status).await?;
            // The answer must be out before the connection is closed.
            let _ = (send.finish(), send.stopped().await);
            let code = VarInt::try_from(ErrorCode::NoError.to_code().into_inner()).unwrap_or_default();
            connection.close(code, b"");
            return Err(HandshakeError::Refused(status));
        }
    };
    respond(&mut send, 200).await?;
    let established = Established { settings, session_send: send, session_receive: receive, encoding };
    Ok(WebTransportConnection::new(connection.clone(), established, node.config.limits.frame_bytes))
}

async fn send_settings(connection: &Connection) -> Result<SendStream, HandshakeError> {
    let mut settings = Vec::new();
    for (id, value) in SETTINGS {
        write_varint(id, &mut settings);
        write_varint(value, &mut settings);
    }
    let mut bytes = Vec::new();
    write_varint(CONTROL_STREAM, &mut bytes);
    write_varint(SETTINGS_FRAME, &mut bytes);
    write_varint(settings.len() as u64, &mut bytes);
    bytes.extend_from_slice(&settings);
    let mut stream = connection.open_uni().await?;
    stream.write_all(&bytes).await?;
    Ok(stream)
}

async fn read_headers(stream: &mut RecvStream) -> Result<Headers, HandshakeError> {
    for _ in 0..=MAX_UNKNOWN_FRAMES {
        let kind = read_varint_from(stream).await?;
        let length = read_varint_from(stream).await?;
        let limit = if kind == HEADERS_FRAME { MAX_HEADERS_BYTES } else { MAX_UNKNOWN_FRAME_BYTES };
        if length > limit {
            return Err(HandshakeError::Http(ErrorCode::ExcessiveLoad));
        }
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await?;
        if kind == HEADERS_FRAME {
            return Headers::with_frame(&Frame::new_headers(Cow::Owned(payload)))
                .map_err(HandshakeError::Http);
        }
    }
    Err(HandshakeError::Http(ErrorCode::FrameUnexpected))
}

/// What a request asks for; the status to refuse it with if it is good HTTP/3 but asks for no session here.
fn check(request: &Headers, node: &Node) -> Result<Encoding, u16> {
    if request.get(":method").ok_or(400u16)? != "CONNECT" {
        return Err(405);
    }
    if request.get(":scheme") != Some("https") {
        return Err(400);
    }
    if !request.get(":protocol").is_some_and(|protocol| PROTOCOLS.contains(&protocol)) {
        return Err(501);
    }
    request.get(":authority").ok_or(400u16)?;
    let target = request.get(":path").ok_or(400u16)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if node.config.node.path_below(path) != CONNECT_PATH {
        return Err(404);
    }
    if !node.allows_origin(request.get("origin")) {
        return Err(403);
    }
    match query.split('&').find_map(|pair| pair.strip_prefix("encoding=")) {
        None | Some("msgpack") => Ok(Encoding::MessagePack),
        Some("json") => Ok(Encoding::Json),
        Some(_) => Err(400),
    }
}

async fn respond(stream: &mut SendStream, status: u16) -> Result<(), HandshakeError> {
    let status = StatusCode::try_from_u32(u32::from(status)).unwrap_or(StatusCode::FORBIDDEN);
    let mut bytes = Vec::new();
    let _ = SessionResponse::with_status_code(status).headers().generate_frame().write(&mut bytes);
    stream.write_all(&bytes).await?;
    Ok(())
}

/// The bytes that close a session with a code: a `CLOSE_WEBTRANSPORT_SESSION` capsule in a DATA frame.
pub(crate) fn close_capsule(code: u32, reason: &str) -> Vec<u8> {
    const DATA_FRAME: u64 = 0x00;
    const CLOSE_CAPSULE: u64 = 0x2843;
    let mut capsule = Vec::new();
    write_varint(CLOSE_CAPSULE, &mut capsule);
    write_varint(4 + reason.len() as u64, &mut capsule);
    capsule.extend_from_slice(&code.to_be_bytes());
    capsule.extend_from_slice(reason.as_bytes());
    let mut frame = Vec::new();
    write_varint(DATA_FRAME, &mut frame);
    write_varint(capsule.len() as u64, &mut frame);
    frame.extend_from_slice(&capsule);
    frame
}
