//! HTTP/2 that no good client speaks: connections without a session, and those whose sessions are many or read nothing.

use crate::{
    http::{TIMEOUT_MS, is_given_up, plain, read_to_end},
    target::Target,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future::select_all};
use http::Response;
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http2, upgrade::Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use skywave_testing::soon;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

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
