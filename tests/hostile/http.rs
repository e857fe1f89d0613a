//! TCP connections that speak bad TLS, bad HTTP or a bad WebSocket, or stop in the middle.

use crate::target::Target;
use rustls::pki_types::ServerName;
use skywave::server::start_drain;
use skywave_testing::{soon, tls};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long the node waits in the tests that are about its patience.
pub const TIMEOUT_MS: u64 = 400;

/// A connection to the port without TLS.
pub async fn plain(target: &Target) -> TcpStream {
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
pub async fn read_to_end(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
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
pub async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
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
pub fn upgrade(replaced: &[(&str, &str)]) -> Vec<u8> {
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
        (("GET", "GET /v1/connect HTTP/1.0"), "426"),
        (("GET", "CONNECT localhost:443 HTTP/1.1"), "404"),
        (("Upgrade", ""), "426"),
        (("Upgrade", "Upgrade: h2c"), "426"),
        (("Connection", "Connection: keep-alive"), "426"),
        (("Version", "Sec-WebSocket-Version: 8"), "426"),
        (("Version", ""), "426"),
        (("Key", ""), "400"),
        (("Key", "Sec-WebSocket-Key: c2hvcnQ="), "400"),
        (("Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), "400"),
        (("Host", ""), "400"),
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
pub async fn is_given_up(stream: impl AsyncRead + Unpin) {
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
