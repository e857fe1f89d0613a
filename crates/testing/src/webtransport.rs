//! A WebTransport client made by hand on QUIC, so that it can do what a good one never does.

use crate::{soon, tls};
use bytes::{Buf, BytesMut};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig,
    crypto::rustls::QuicClientConfig,
};
use serde_json::Value;
use skywave_protocol::{
    Encoding,
    framing::{FrameBuffer, read_varint},
};
use std::{net::SocketAddr, sync::Arc};
use wtransport_proto::{frame::Frame, headers::Headers, settings::Settings, stream_header::StreamHeader};

const MAX_FRAME_BYTES: usize = 1 << 20;

/// A client endpoint, and what it asks of connections.
pub fn endpoint(transport: TransportConfig) -> Endpoint {
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(client_config(transport, &["h3"]));
    endpoint
}

pub fn client_config(transport: TransportConfig, protocols: &[&str]) -> ClientConfig {
    let crypto = QuicClientConfig::try_from(Arc::new(tls::config(protocols))).unwrap();
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

/// A QUIC connection to the node on which nothing has been said yet.
pub async fn quic(node: SocketAddr, transport: TransportConfig) -> Connection {
    let node = SocketAddr::from(([127, 0, 0, 1], node.port()));
    soon(endpoint(transport).connect(node, "localhost").unwrap()).await.unwrap()
}

/// The headers of a good request for a session.
pub fn request(node: SocketAddr, path_and_query: &str) -> Headers {
    let authority = format!("localhost:{}", node.port());
    let headers = [
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":protocol", "webtransport"),
        (":authority", &authority),
        (":path", path_and_query),
    ];
    headers.into_iter().collect()
}

/// What the node answered to a request.
pub struct Answer {
    pub status: String,
    pub send: SendStream,
    pub receive: RecvStream,
}

/// HTTP/3's settings and one request. Gives the answer and the stream of the settings, which must stay open.
pub async fn ask(quic: &Connection, headers: &Headers) -> (Answer, SendStream) {
    let mut settings = soon(quic.open_uni()).await.unwrap();
    let mut bytes = Vec::new();
    let ours = Settings::builder().enable_h3_datagrams().enable_webtransport().build();
    StreamHeader::new_control().write(&mut bytes).unwrap();
    ours.generate_frame().write(&mut bytes).unwrap();
    settings.write_all(&bytes).await.unwrap();
    (ask_again(quic, headers).await, settings)
}

/// One request more.
pub(crate) async fn ask_again(quic: &Connection, headers: &Headers) -> Answer {
    let (mut send, mut receive) = soon(quic.open_bi()).await.unwrap();
    let mut bytes = Vec::new();
    headers.generate_frame().write(&mut bytes).unwrap();
    send.write_all(&bytes).await.unwrap();
    let frame = soon(read_headers(&mut receive)).await;
    let status = Headers::with_frame(&frame).unwrap().get(":status").unwrap().to_owned();
    Answer { status, send, receive }
}

async fn read_headers(receive: &mut RecvStream) -> Frame<'static> {
    let kind = read_number(receive).await;
    assert_eq!(kind, 1, "not a HEADERS frame");
    let mut payload = vec![0; read_number(receive).await as usize];
    receive.read_exact(&mut payload).await.unwrap();
    Frame::new_headers(payload.into())
}

async fn read_number(receive: &mut RecvStream) -> u64 {
    let mut bytes = vec![0; 1];
    receive.read_exact(&mut bytes).await.unwrap();
    bytes.resize(1 << (bytes[0] >> 6), 0);
    receive.read_exact(&mut bytes[1..]).await.unwrap();
    read_varint(&bytes).unwrap().0
}

/// Appends a number of up to 2³⁰−1 as a QUIC varint, not in the shortest form.
pub fn number(value: u32) -> [u8; 4] {
    (value | 0x8000_0000).to_be_bytes()
}

/// A session that was accepted, in JSON.
pub struct RawSession {
    pub quic: Connection,
    pub send: SendStream,
    pub receive: RecvStream,
    _settings: SendStream,
}

impl RawSession {
    pub async fn open(node: SocketAddr, transport: TransportConfig) -> Self {
        let quic = quic(node, transport).await;
        let (answer, settings) = ask(&quic, &request(node, "/v1/connect?encoding=json")).await;
        assert_eq!(answer.status, "200");
        Self { quic, send: answer.send, receive: answer.receive, _settings: settings }
    }

    /// A bidirectional stream that begins with `header`.
    pub async fn stream(&self, header: &[u8]) -> RawStream {
        let (mut send, receive) = soon(self.quic.open_bi()).await.unwrap();
        send.write_all(header).await.unwrap();
        RawStream { send, receive, buffer: FrameBuffer::new(MAX_FRAME_BYTES) }
    }

    /// The control stream.
    pub async fn control(&self) -> RawStream {
        self.stream(&self.header(0x41)).await
    }

    /// The control stream on which the session has been opened, with these subscriptions.
    pub async fn connect(&self, subscriptions: Value) -> RawStream {
        let mut control = self.control().await;
        control.send(&serde_json::json!({"connect": {"id": 1, "subscriptions": subscriptions}})).await;
        assert!(control.frame().await["connected"].is_object());
        control
    }

    /// What a stream of this session begins with.
    pub fn header(&self, kind: u32) -> Vec<u8> {
        [number(kind), number(self.id())].concat()
    }

    pub fn id(&self) -> u32 {
        quinn::VarInt::from(self.send.id()).into_inner() as u32
    }

    /// The code and reason of the capsule that ends the session; nothing else may come on its stream.
    pub async fn close_code(&mut self) -> (u32, String) {
        let bytes = soon(self.receive.read_to_end(4096)).await.expect("no capsule");
        let mut bytes = BytesMut::from(&bytes[..]);
        assert_eq!(take_number(&mut bytes), 0, "not a DATA frame");
        assert_eq!(take_number(&mut bytes), bytes.len() as u64);
        assert_eq!(take_number(&mut bytes), 0x2843, "not CLOSE_WEBTRANSPORT_SESSION");
        assert_eq!(take_number(&mut bytes), bytes.len() as u64);
        let code = bytes.get_u32();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    }
}

fn take_number(bytes: &mut BytesMut) -> u64 {
    let (value, size) = read_varint(bytes).expect("the capsule is cut short");
    bytes.advance(size);
    value
}

/// A stream of JSON frames.
pub struct RawStream {
    pub send: SendStream,
    pub receive: RecvStream,
    buffer: FrameBuffer,
}

impl RawStream {
    pub async fn send(&mut self, frame: &Value) {
        self.send_bytes(&Encoding::Json.encode(frame).unwrap().prefixed()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        soon(self.send.write_all(bytes)).await.unwrap();
    }

    pub async fn frame(&mut self) -> Value {
        soon(next_frame(&mut self.receive, &mut self.buffer)).await.expect("the stream ended")
    }
}

/// The next JSON frame of a stream; `None` when it has ended.
pub async fn next_frame(receive: &mut RecvStream, buffer: &mut FrameBuffer) -> Option<Value> {
    loop {
        if let Some(frame) = buffer.next_frame().unwrap() {
            return Some(serde_json::from_slice(&frame).unwrap());
        }
        let chunk = receive.read_chunk(64 * 1024, true).await.ok()??;
        buffer.extend(&chunk.bytes);
    }
}
