//! TCP connections that speak bad TLS, bad HTTP or a bad WebSocket, or stop in the middle.

use crate::{target::Target, tls, world::soon};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future::select_all};
use http::Response;
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http2, upgrade::Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use skywave::server::start_drain;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

/// How long the node waits in the tests that are about its patience.
const TIMEOUT_MS: u64 = 400;

/// A connection to the port without TLS.
async fn plain(target: &Target) -> TcpStream {
    TcpStream::connect(target.plain()).await.unwrap()
}

/// A TCP connection to the port with TLS on which nothing has been said.
async fn bare(target: &Target) -> TcpStream {
    TcpStream::connect(target.public()).await.unwrap()
}

async fn encrypted(target: &Target, protocol: &str) -> TlsStream<TcpStream> {
    let connector = TlsConnector::from(Arc::new(tls::config(&[protocol])));
    let name = ServerName::try_from("localhost").unwrap();
    soon(connector.connect(name, bare(target).await)).await.unwrap()
}

/// Everything until the node closes. A reset is an end like any other.
async fn read_to_end(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon(async {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            bytes.extend_from_slice(&chunk[..length]);
        }
    })
    .await;
    bytes
}

/// Sends bytes and reads the answer's head.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
    let mut head = Vec::new();
    soon(async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    })
    .await;
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// A request for a WebSocket, some of whose lines are replaced.
fn upgrade(replaced: &[(&str, &str)]) -> Vec<u8> {
    let lines = [
        ("GET", "GET /v1/connect HTTP/1.1"),
        ("Host", "Host: localhost"),
        ("Connection", "Connection: Upgrade"),
        ("Upgrade", "Upgrade: websocket"),
        ("Version", "Sec-WebSocket-Version: 13"),
        ("Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        ("Protocol", "Sec-WebSocket-Protocol: skywave.v1.json"),
    ];
    let mut request = String::new();
    for (name, line) in lines {
        let line = replaced.iter().find(|(replaced, _)| *replaced == name).map_or(line, |(_, line)| line);
        if !line.is_empty() {
            request.push_str(line);
            request.push_str("\r\n");
        }
    }
    request.push_str("\r\n");
    request.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_no_session_gets_the_fitting_status() {
    let mut target = Target::new().await;
    for (replaced, status) in [
        (("GET", "GET /v1/connect HTTP/1.1"), "101"),
        (("GET", "GET /v1/connect?token=1 HTTP/1.1"), "101"),
        (("GET", "GET / HTTP/1.1"), "404"),
        (("GET", "GET /v1/connect/ HTTP/1.1"), "404"),
        (("GET", "GET /../v1/connect HTTP/1.1"), "404"),
        (("GET", "POST /v1/connect HTTP/1.1"), "426"),
        (("GET", "CONNECT localhost:443 HTTP/1.1"), "404"),
        (("Upgrade", ""), "426"),
        (("Upgrade", "Upgrade: h2c"), "426"),
        (("Connection", "Connection: keep-alive"), "426"),
        (("Version", "Sec-WebSocket-Version: 8"), "426"),
        (("Version", ""), "426"),
        (("Key", ""), "400"),
        (("Protocol", ""), "101"),
        (("Protocol", "Sec-WebSocket-Protocol: chat, skywave.v1.msgpack"), "101"),
        (("Protocol", "Sec-WebSocket-Protocol: chat"), "400"),
        (("Protocol", "Sec-WebSocket-Protocol: skywave.v2.json"), "400"),
        (("Protocol", "Sec-WebSocket-Protocol: \u{e9}"), "400"),
    ] {
        let request = upgrade(&[replaced]);
        let answers = [
            ask(plain(&target).await, &request).await,
            ask(encrypted(&target, "http/1.1").await, &request).await,
        ];
        for answer in &answers {
            assert_eq!(answer.get(9..12), Some(status), "{replaced:?}: {answers:?}");
            if replaced.0 == "Version" {
                assert!(answer.contains("\r\nsec-websocket-version: 13\r\n"), "{answer}");
            }
        }
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_asks_for_the_health_of_its_backend_is_answered_where_sessions_are() {
    let target = Target::new().await;
    let ask_both = async |request: &str| {
        let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        [
            ask(plain(&target).await, request.as_bytes()).await,
            ask(encrypted(&target, "http/1.1").await, request.as_bytes()).await,
        ]
    };
    for request in ["GET /healthz", "HEAD /healthz", "GET /readyz", "HEAD /readyz"] {
        for answer in ask_both(request).await {
            assert!(answer.starts_with("http/1.1 200"), "{request}: {answer}");
        }
    }
    // A balancer that keeps a client at its node has to know that another one is to be chosen.
    start_drain(target.server.node());
    for (request, status) in [("GET /healthz", "200"), ("GET /readyz", "503")] {
        for answer in ask_both(request).await {
            assert!(answer.starts_with(&format!("http/1.1 {status}")), "{request}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_refused() {
    let mut target = Target::new().await;
    let noise: Vec<u8> = (0..1000u32).map(|number| (number * 167 % 251) as u8).collect();
    for garbage in [
        b"\r\n\r\n\r\nwhat?\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        noise,
        vec![0; 1000],
        vec![0xff; 1000],
    ] {
        let mut stream = plain(&target).await;
        stream.write_all(&garbage).await.unwrap();
        let answer = String::from_utf8_lossy(&read_to_end(stream).await).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_head_is_refused() {
    let mut target = Target::new().await;
    let long = format!("Host: {}", "x".repeat(20_000));
    let many = (0..5000).map(|number| format!("x-{number}: 1\r\n")).collect::<String>();
    for request in [
        upgrade(&[("Host", &long)]),
        upgrade(&[("Host", many.trim_end())]),
        upgrade(&[("GET", &format!("GET /{} HTTP/1.1", "x".repeat(70_000)))]),
    ] {
        let mut stream = plain(&target).await;
        // The node may close before it has read all of it.
        let _ = stream.write_all(&request).await;
        let answer = String::from_utf8_lossy(&read_to_end(stream).await).into_owned();
        let refused = ["", "HTTP/1.1 431", "HTTP/1.1 414", "HTTP/1.1 400"];
        assert!(refused.contains(&answer.get(..12).unwrap_or_default()), "{answer}");
    }
    target.is_unharmed().await;
}

/// Nothing more comes from this side; the node ends it after its timeout, and not much later.
async fn is_given_up(stream: impl AsyncRead + Unpin) {
    let since = Instant::now();
    read_to_end(stream).await;
    let waited = since.elapsed();
    assert!(waited >= Duration::from_millis(TIMEOUT_MS / 2), "{waited:?}");
    assert!(waited < Duration::from_millis(TIMEOUT_MS) + Duration::from_secs(3), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_nothing_comes_is_given_up() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    is_given_up(plain(&target).await).await;
    is_given_up(bare(&target).await).await;
    is_given_up(encrypted(&target, "http/1.1").await).await;
    is_given_up(encrypted(&target, "h2").await).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_is_given_up() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let request = upgrade(&[]);
    for end in [1, request.len() / 2, request.len() - 1] {
        let mut stream = plain(&target).await;
        stream.write_all(&request[..end]).await.unwrap();
        is_given_up(stream).await;
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_trickles_in_is_given_up() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let (reading, mut writing) = plain(&target).await.into_split();
    let trickle = tokio::spawn(async move {
        for byte in upgrade(&[]).into_iter().cycle() {
            if writing.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    is_given_up(reading).await;
    trickle.abort();
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_open_no_session_do_not_keep_a_connection() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let (reading, mut writing) = plain(&target).await.into_split();
    let asking = tokio::spawn(async move {
        while writing.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    is_given_up(reading).await;
    asking.abort();
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_is_refused() {
    let mut target = Target::new().await;
    for garbage in [upgrade(&[]), vec![0; 500], vec![0x16; 500], b"\x16\x03\x01\xff\xff".repeat(100)] {
        let mut stream = bare(&target).await;
        stream.write_all(&garbage).await.unwrap();
        // At most an alert.
        assert!(read_to_end(stream).await.len() < 64);
    }
    target.refused("tls", 4).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_tls_handshake_is_given_up() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let hello = client_hello();
    for end in [1, 5, hello.len() / 2, hello.len() - 1, hello.len()] {
        let mut stream = bare(&target).await;
        stream.write_all(&hello[..end]).await.unwrap();
        is_given_up(stream).await;
    }
    target.refused("tls_timeout", 5).await;
    target.is_unharmed().await;
}

/// What a TLS client says first.
fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(tls::config(&["http/1.1"])), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_connection_without_a_session_is_given_up() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    for said in
        [HTTP2_PREFACE.to_vec(), [HTTP2_PREFACE, HTTP2_SETTINGS].concat(), HTTP2_PREFACE[..10].to_vec()]
    {
        let mut stream = plain(&target).await;
        stream.write_all(&said).await.unwrap();
        is_given_up(stream).await;
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_pings_without_a_session_do_not_keep_a_connection() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let (reading, mut writing) = plain(&target).await.into_split();
    writing.write_all(&[HTTP2_PREFACE, HTTP2_SETTINGS].concat()).await.unwrap();
    let pinging = tokio::spawn(async move {
        while writing.write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    is_given_up(reading).await;
    pinging.abort();
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_http2_is_refused() {
    let mut target = Target::new().await;
    for garbage in [vec![0xff; 200], vec![0; 200], b"\x00\x40\x01\x01\x04\x00\x00\x00\x01".repeat(20)] {
        let mut stream = plain(&target).await;
        stream.write_all(&[HTTP2_PREFACE, HTTP2_SETTINGS, &garbage].concat()).await.unwrap();
        // Its settings and a GOAWAY.
        assert!(read_to_end(stream).await.len() < 500);
    }
    target.is_unharmed().await;
}

/// The answer to an extended CONNECT.
async fn ask_http2(
    sender: &mut http2::SendRequest<Empty<Bytes>>,
    path: &str,
    protocol: &'static str,
    subprotocol: &str,
) -> Response<Incoming> {
    let mut request = http::Request::builder()
        .method("CONNECT")
        .uri(format!("http://localhost{path}"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", subprotocol)
        .body(Empty::new())
        .unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static(protocol));
    // The server's settings have to be here first, or extended CONNECT is not allowed yet.
    soon(async {
        loop {
            match sender.send_request(request.clone()).await {
                Ok(answer) => break answer,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_requests_that_are_no_session_get_the_fitting_status() {
    let mut target = Target::new().await;
    for (path, protocol, subprotocol, status) in [
        ("/v1/connect", "websocket", "skywave.v1.msgpack", 200),
        ("/v1/other", "websocket", "skywave.v1.msgpack", 404),
        ("/v1/connect", "connect-udp", "skywave.v1.msgpack", 501),
        ("/v1/connect", "websocket", "chat", 400),
    ] {
        let http = http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = http.handshake(TokioIo::new(plain(&target).await)).await.unwrap();
        let connection = tokio::spawn(connection);
        let answer = ask_http2(&mut sender, path, protocol, subprotocol).await;
        assert_eq!(answer.status(), status, "{path} {protocol} {subprotocol}");
        connection.abort();
    }
    target.is_unharmed().await;
}

type Http2Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A WebSocket that shares an HTTP/2 connection.
async fn http2_websocket(sender: &mut http2::SendRequest<Empty<Bytes>>) -> Http2Socket {
    let answer = ask_http2(sender, "/v1/connect", "websocket", "skywave.v1.json").await;
    let stream = TokioIo::new(soon(hyper::upgrade::on(answer)).await.unwrap());
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

/// A session that shares an HTTP/2 connection.
async fn http2_session(sender: &mut http2::SendRequest<Empty<Bytes>>) -> Http2Socket {
    let mut socket = http2_websocket(sender).await;
    soon(socket.send(Message::text(r#"{"connect":{"id":1}}"#))).await.unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_read_no_answers_hold_up_no_other_on_their_http2_connection() {
    let mut target = Target::with(&[("LIMITS__OUTBOX_BYTES", "65536")]).await;
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(4096);
    let (mut sender, connection) = http.handshake(TokioIo::new(plain(&target).await)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = r#"{"unsubscribe":{"id":2,"channel":"chat:1"}}"#;
    let requests = Message::text(format!("[{}]", [request; 100].join(",")));
    let mut unread = Vec::new();
    for _ in 0..6 {
        let mut socket = http2_session(&mut sender).await;
        // Until the node takes no more.
        while tokio::time::timeout(Duration::from_millis(500), socket.send(requests.clone())).await.is_ok() {}
        unread.push(socket);
    }
    let mut socket = http2_session(&mut sender).await;
    let answer = soon(socket.next()).await.expect("it was closed").unwrap();
    assert!(answer.to_text().unwrap().starts_with(r#"{"connected""#), "{answer}");
    connection.abort();
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_websockets_on_which_nothing_comes_and_no_more() {
    // Two sessions, which the bystanders have, and twice as many transports and sixteen.
    let settings = [("LIMITS__SESSIONS_PER_ADDRESS", "2"), ("LIMITS__CONNECT_TIMEOUT", "60s")];
    let mut target = Target::with(&settings).await;
    let http = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = http.handshake(TokioIo::new(plain(&target).await)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut silent = Vec::new();
    for _ in 0..21 {
        silent.push(http2_websocket(&mut sender).await);
    }
    let (told, ..) = soon(select_all(silent.iter_mut().map(StreamExt::next))).await;
    let told = told.expect("it was closed without a word").unwrap();
    assert!(told.to_text().unwrap().contains(r#""code":3006"#), "{told}");
    connection.abort();
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_connections_that_have_sessions_keep_nobody_else_out() {
    let mut target = Target::with(&[("LIMITS__HANDSHAKES_PER_SECOND", "1")]).await;
    let mut open = Vec::new();
    // Of connections without sessions there may be eight.
    for _ in 0..9 {
        let http = http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = http.handshake(TokioIo::new(plain(&target).await)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut socket = http2_session(&mut sender).await;
        let answer = soon(socket.next()).await.expect("it was closed").unwrap();
        assert!(answer.to_text().unwrap().starts_with(r#"{"connected""#), "{answer}");
        open.push((connection, socket));
    }
    target.is_unharmed().await;
    open.into_iter().for_each(|(connection, _)| connection.abort());
}

/// A WebSocket that was opened by hand, without TLS.
async fn websocket(target: &Target) -> TcpStream {
    let mut stream = plain(target).await;
    let head = ask(&mut stream, &upgrade(&[])).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    stream
}

/// The code in the first close frame among what a server sent.
fn close_code(mut bytes: &[u8]) -> Option<u16> {
    while let [first, length @ 0..=125, rest @ ..] = bytes {
        let payload = rest.get(..usize::from(*length))?;
        if *first == 0x88 {
            return Some(u16::from_be_bytes(payload.get(..2)?.try_into().unwrap()));
        }
        bytes = &rest[payload.len()..];
    }
    None
}

/// The next frame of a server, which has less than 126 bytes: how it begins, and what it holds.
async fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    soon(async {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1])];
        stream.read_exact(&mut payload).await.unwrap();
        (head[0], payload)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_without_connect_is_closed_with_its_code() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let stream = websocket(&target).await;
    assert_eq!(close_code(&read_to_end(stream).await), Some(3004));
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_whose_close_is_answered_is_ended_at_once() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let mut stream = websocket(&target).await;
    assert_eq!(frame(&mut stream).await.0, 0x81, "no `disconnect`");
    let (kind, payload) = frame(&mut stream).await;
    assert_eq!((kind, &payload[..2]), (0x88, &3004_u16.to_be_bytes()[..]));
    // The client answers, and leaves it to the server to end the connection (RFC 6455, section 7.1.1).
    let answered = Instant::now();
    stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x0b, 0xbc]).await.unwrap();
    assert!(read_to_end(stream).await.is_empty());
    assert!(answered.elapsed() < Duration::from_millis(500), "{:?}", answered.elapsed());
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_only_pings_is_closed_by_the_connect_timeout() {
    let mut target = Target::impatient(TIMEOUT_MS).await;
    let (reading, mut writing) = websocket(&target).await.into_split();
    let pinging = tokio::spawn(async move {
        while writing.write_all(&[0x89, 0x80, 1, 2, 3, 4]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    is_given_up(reading).await;
    pinging.abort();
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_announces_too_much_is_refused_with_its_code() {
    let mut target = Target::new().await;
    for announced in [1u64 << 20, 1 << 32, (1 << 63) - 1, u64::MAX] {
        let mut stream = websocket(&target).await;
        let frame = [&[0x82, 0xff], &announced.to_be_bytes()[..], &[1, 2, 3, 4], b"some of it"].concat();
        stream.write_all(&frame).await.unwrap();
        assert_eq!(close_code(&read_to_end(stream).await), Some(3502), "{announced}");
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_websocket_frame_end_the_connection() {
    let mut target = Target::new().await;
    for (what, bytes) in [
        ("no mask", &b"\x81\x02{}"[..]),
        ("a reserved opcode", b"\x83\x80\x01\x02\x03\x04"),
        ("a reserved bit", b"\xc1\x80\x01\x02\x03\x04"),
        ("a fragmented ping", b"\x09\x80\x01\x02\x03\x04"),
        ("a long ping", b"\x89\xfe\x01\x00\x01\x02\x03\x04"),
        ("a continuation of nothing", b"\x80\x80\x01\x02\x03\x04"),
        ("a close code out of bounds", b"\x88\x82\x00\x00\x00\x00\x00\x01"),
        ("half a close code", b"\x88\x81\x00\x00\x00\x00\x00"),
    ] {
        let mut stream = websocket(&target).await;
        stream.write_all(bytes).await.unwrap();
        // Bytes behind it, so that nobody waits for the rest of a frame.
        let _ = stream.write_all(&[0; 300]).await;
        let answer = read_to_end(stream).await;
        assert!(answer.len() < 300, "{what}: {} bytes", answer.len());
    }
    target.attackers_are_gone().await;
    target.is_unharmed().await;
}
