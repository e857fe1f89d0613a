//! WebSockets that no good client opens: without `connect`, only pinging, too large, no frames at all.

use crate::{
    http::{TIMEOUT_MS, ask, is_given_up, plain, read_to_end, upgrade},
    target::Target,
};
use skywave_testing::soon;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

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
async fn bytes_that_are_no_websocket_frame_are_refused_with_a_code_of_websocket() {
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
        ("a message within another", b"\x01\x80\x01\x02\x03\x04\x81\x80\x01\x02\x03\x04"),
    ] {
        let mut stream = websocket(&target).await;
        stream.write_all(bytes).await.unwrap();
        // Bytes behind it, so that nobody waits for the rest of a frame.
        let _ = stream.write_all(&[0; 300]).await;
        assert_eq!(close_code(&read_to_end(stream).await), Some(1002), "{what}");
    }
    target.attackers_are_gone().await;
    target.is_unharmed().await;
}
