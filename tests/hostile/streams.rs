//! WebTransport sessions whose streams and datagrams do what they should not.

use crate::target::Target;
use quinn::{TransportConfig, VarInt};
use serde_json::{Map, Value, json};
use skywave_client::Json;
use skywave_protocol::{Encoding, framing::FrameBuffer};
use skywave_testing::{
    soon,
    webtransport::{RawSession, RawStream, next_frame, number, request},
};
use std::time::Duration;

async fn attacker(target: &Target) -> RawSession {
    RawSession::open(target.public(), TransportConfig::default()).await
}

fn code(code: u32, reason: &str) -> (u32, String) {
    (code, reason.to_owned())
}

/// The control stream still answers.
async fn goes_on(control: &mut RawStream) {
    control.send(&json!({"history": {"id": 99, "channel": "chat:1", "limit": 1}})).await;
    assert_eq!(control.frame().await["history"]["id"], 99);
}

/// Waits until the node has ended the connection.
async fn is_closed(session: &RawSession) {
    soon(session.quic.closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_a_control_stream_is_closed_with_its_code() {
    let mut target = Target::impatient(300).await;
    let mut session = attacker(&target).await;
    assert_eq!(session.close_code().await, code(3004, "connect_timeout"));
    is_closed(&session).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_stream_without_connect_is_closed_with_its_code() {
    let mut target = Target::impatient(300).await;
    let mut session = attacker(&target).await;
    let mut control = session.control().await;
    assert_eq!(control.frame().await["disconnect"]["code"], 3004);
    assert_eq!(session.close_code().await, code(3004, "connect_timeout"));
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_slow_to_read_the_close_code_gets_it_before_the_connection_ends() {
    let mut target = Target::impatient(300).await;
    let mut session = attacker(&target).await;
    assert_eq!(session.close_code().await, code(3004, "connect_timeout"));
    // Its QUIC has acknowledged everything; it has not answered the capsule.
    let early = tokio::time::timeout(Duration::from_millis(100), session.quic.closed()).await;
    assert!(early.is_err(), "{early:?}");
    session.send.finish().unwrap();
    is_closed(&session).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_stream_header_is_closed_by_the_connect_timeout() {
    let mut target = Target::impatient(300).await;
    let mut session = attacker(&target).await;
    let _stream = session.stream(&[0x40]).await;
    assert_eq!(session.close_code().await, code(3004, "connect_timeout"));
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_place_of_the_control_streams_header_ends_the_session() {
    let mut target = Target::new().await;
    for header in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 16], vec![0xff; 16]] {
        let mut session = attacker(&target).await;
        let _stream = session.stream(&header).await;
        assert_eq!(session.close_code().await, code(3501, "bad_frame"));
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_stream_of_another_session_ends_the_session() {
    let mut target = Target::new().await;
    let mut session = attacker(&target).await;
    let header = [number(0x41), number(4)].concat();
    let _stream = session.stream(&header).await;
    assert_eq!(session.close_code().await, code(3501, "bad_frame"));
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_comes_byte_by_byte_is_understood() {
    let mut target = Target::new().await;
    let session = attacker(&target).await;
    let mut control = session.stream(&[]).await;
    let mut bytes = session.header(0x41);
    bytes.extend_from_slice(&Encoding::Json.encode(&json!({"connect": {"id": 1}})).unwrap().prefixed());
    for byte in bytes {
        control.send_bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(control.frame().await["connected"]["id"], 1);
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_no_session_are_passed_over() {
    let mut target = Target::new().await;
    let session = attacker(&target).await;
    let mut control = session.connect(json!({})).await;
    let dance = b"{\"dance\":{}}".to_vec();
    let elsewhere = [number(7).to_vec(), dance.clone()].concat();
    for datagram in [vec![], vec![0x40], vec![0xc0, 1, 2], elsewhere, vec![0x3f], vec![0xff; 8]] {
        session.quic.send_datagram(datagram.into()).unwrap();
    }
    goes_on(&mut control).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datagram_that_is_no_frame_ends_the_session() {
    let mut target = Target::new().await;
    for payload in [b"".to_vec(), b"{".to_vec(), vec![0xff; 500]] {
        let mut session = attacker(&target).await;
        let mut control = session.connect(json!({})).await;
        session.quic.send_datagram([vec![0], payload].concat().into()).unwrap();
        assert_eq!(control.frame().await["disconnect"]["code"], 3501);
        assert_eq!(session.close_code().await, code(3501, "bad_frame"));
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datagram_before_connect_ends_the_session() {
    let mut target = Target::new().await;
    let mut session = attacker(&target).await;
    session.quic.send_datagram(b"\x00{\"pong\":{\"seq\":1}}".to_vec().into()).unwrap();
    assert_eq!(session.close_code().await, code(3501, "bad_frame"));
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_stray_streams_are_refused_and_the_session_goes_on() {
    let mut target = Target::new().await;
    let session = attacker(&target).await;
    let mut control = session.connect(json!({})).await;
    for _ in 0..10 {
        let mut stray = session.stream(&session.header(0x41)).await;
        let refused = soon(stray.receive.read_to_end(1)).await.unwrap_err();
        assert!(matches!(refused, quinn::ReadToEndError::Read(quinn::ReadError::Reset(_))), "{refused:?}");
    }
    goes_on(&mut control).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_stray_streams_ends_the_session() {
    let mut target = Target::new().await;
    let mut session = attacker(&target).await;
    let mut control = session.connect(json!({})).await;
    let quic = session.quic.clone();
    let flood = tokio::spawn(async move {
        while let Ok((mut send, _receive)) = quic.open_bi().await {
            if send.write_all(&[0; 1000]).await.is_err() {
                // It was refused already; on with the next one.
            }
        }
    });
    assert_eq!(control.frame().await["disconnect"]["code"], 3501);
    assert_eq!(session.close_code().await, code(3501, "bad_frame"));
    soon(flood).await.unwrap();
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unidirectional_streams_that_nobody_asked_for_are_refused_and_a_flood_ends_the_session() {
    let mut target = Target::new().await;
    let mut session = attacker(&target).await;
    let mut control = session.connect(json!({})).await;
    for header in [[0x40, 0x54], [0x40, 0x21]] {
        let mut stray = soon(session.quic.open_uni()).await.unwrap();
        stray.write_all(&header).await.unwrap();
        assert!(soon(stray.stopped()).await.unwrap().is_some(), "{header:x?}");
    }
    goes_on(&mut control).await;
    let quic = session.quic.clone();
    let flood = tokio::spawn(async move {
        while let Ok(mut stray) = quic.open_uni().await {
            // It may have been refused already; on with the next one.
            let _ = (stray.write_all(&[0x54; 1000]).await, stray.reset(VarInt::from_u32(7)));
        }
    });
    assert_eq!(control.frame().await["disconnect"]["code"], 3501);
    assert_eq!(session.close_code().await, code(3501, "bad_frame"));
    soon(flood).await.unwrap();
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_said_on_http3s_own_streams_holds_up_no_request() {
    let mut target = Target::new().await;
    let session = attacker(&target).await;
    let mut control = session.connect(json!({})).await;
    let mut open = Vec::new();
    // QPACK's encoder and decoder streams.
    for kind in [2, 3] {
        let mut stream = soon(session.quic.open_uni()).await.unwrap();
        stream.write_all(&[kind]).await.unwrap();
        soon(stream.write_all(&vec![0; 600_000])).await.unwrap();
        open.push(stream);
    }
    goes_on(&mut control).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_stream_that_is_reset_stopped_or_finished_ends_the_session() {
    let mut target = Target::new().await;
    for how in ["reset", "stopped", "finished"] {
        let session = attacker(&target).await;
        let mut control = session.connect(json!({"chat:1": {}})).await;
        match how {
            "reset" => control.send.reset(VarInt::from_u32(7)).unwrap(),
            "stopped" => control.receive.stop(VarInt::from_u32(7)).unwrap(),
            _ => control.send.finish().unwrap(),
        }
        if how == "stopped" {
            // It shows when something is to be sent.
            control.send(&json!({"history": {"id": 2, "channel": "chat:1", "limit": 1}})).await;
        }
        target.attackers_are_gone().await;
        is_closed(&session).await;
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_request_stream_ends_the_session() {
    let mut target = Target::new().await;
    for how in ["finished", "reset", "capsule"] {
        let mut session = attacker(&target).await;
        let _control = session.connect(json!({})).await;
        match how {
            "finished" => session.send.finish().unwrap(),
            "reset" => session.send.reset(VarInt::from_u32(7)).unwrap(),
            _ => {
                // DATA with WT_CLOSE_SESSION, code 0; the stream stays open, which it should not.
                session.send.write_all(&[0, 7, 0x68, 0x43, 4, 0, 0, 0, 0]).await.unwrap();
            }
        }
        target.attackers_are_gone().await;
        is_closed(&session).await;
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_request_stream_is_passed_over() {
    let mut target = Target::new().await;
    let mut session = attacker(&target).await;
    let mut control = session.connect(json!({})).await;
    for _ in 0..100 {
        soon(session.send.write_all(&[0x5a; 10_000])).await.unwrap();
    }
    goes_on(&mut control).await;
    target.is_unharmed().await;
}

/// `H3_REQUEST_REJECTED`: the client may ask again on another connection.
const REQUEST_REJECTED: VarInt = VarInt::from_u32(0x010b);

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_on_the_connection_is_rejected_as_one_that_may_be_made_again() {
    let mut target = Target::new().await;
    let mut request_bytes = Vec::new();
    request(target.public(), "/v1/connect").generate_frame().write(&mut request_bytes).unwrap();
    for before_the_control_stream in [true, false] {
        let session = attacker(&target).await;
        let control = if before_the_control_stream { None } else { Some(session.connect(json!({})).await) };
        let mut second = session.stream(&request_bytes).await;
        let refused = soon(second.receive.read_to_end(1)).await.unwrap_err();
        let reset = quinn::ReadToEndError::Read(quinn::ReadError::Reset(REQUEST_REJECTED));
        assert_eq!(refused, reset, "{before_the_control_stream}");
        let mut control = match control {
            Some(control) => control,
            None => session.connect(json!({})).await,
        };
        goes_on(&mut control).await;
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_gives_up_silent_connections_early_is_pinged_in_time() {
    let mut target = Target::with(&[("HEARTBEAT__MIN", "100ms")]).await;
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(Duration::from_millis(800).try_into().unwrap()));
    let session = RawSession::open(target.public(), transport).await;
    let mut control = session.control().await;
    control.send(&json!({"connect": {"id": 1}})).await;
    assert_eq!(control.frame().await["connected"]["heartbeat"]["interval_ms"], 600);
    // Its QUIC would have given up by now.
    let early = tokio::time::timeout(Duration::from_millis(2_000), session.quic.closed()).await;
    assert!(early.is_err(), "{early:?}");
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_whose_stream_is_stopped_goes_on_on_the_control_stream() {
    let mut target = Target::new().await;
    let session = attacker(&target).await;
    let mut control = session.connect(json!({"chat:1": {}})).await;
    assert!(control.frame().await["subscribed"].is_object());
    let node = target.server.node().clone();
    let publish = |text: &'static str| {
        let publish = skywave::broker::Publish {
            channel: skywave_protocol::Channel::new("chat:1").unwrap(),
            data: Json::of(&text).unwrap().into(),
            key: None,
            user: None,
        };
        soon(node.publish(publish))
    };
    publish("first").await.unwrap();
    let mut stream = soon(session.quic.accept_uni()).await.unwrap();
    // The node's settings come first, on a stream of their own.
    if stream.id().index() == 0 {
        stream = soon(session.quic.accept_uni()).await.unwrap();
    }
    let mut header = vec![0; 3];
    stream.read_exact(&mut header).await.unwrap();
    let mut frames = FrameBuffer::new(1 << 16);
    assert!(soon(next_frame(&mut stream, &mut frames)).await.unwrap()["stream"].is_object());
    let first = soon(next_frame(&mut stream, &mut frames)).await.unwrap();
    assert_eq!(data(&first), "first");
    stream.stop(VarInt::from_u32(7)).unwrap();
    goes_on(&mut control).await;
    for text in ["second", "third"] {
        publish(text).await.unwrap();
        assert_eq!(data(&control.frame().await), text);
    }
    target.is_unharmed().await;
}

fn data(frame: &Value) -> &Value {
    &frame["publication"]["data"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_no_answers_still_gets_the_close_code() {
    let mut target = Target::new().await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(2000));
    let mut session = RawSession::open(target.public(), transport).await;
    let mut control = session.connect(json!({})).await;
    for id in 2..30 {
        control.send(&json!({"dance": {"id": id}})).await;
        control.send(&json!({"presence": {"id": 100 + id, "channel": "chat:1"}})).await;
    }
    assert_eq!(session.close_code().await, code(3501, "bad_frame"));
    target.is_unharmed().await;
}

/// What an outbox holds at most in these tests.
const OUTBOX_BYTES: usize = 65_536;

/// A session on a node with small outboxes that reads its control stream in small pieces or not at all, with the bytes
/// that wait for it.
async fn slow_to_read(
    target: &Target,
    connect: Value,
) -> (RawSession, RawStream, impl Fn() -> usize + use<>) {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(2000));
    let session = RawSession::open(target.public(), transport).await;
    let mut control = session.control().await;
    control.send(&json!({"connect": connect})).await;
    let id = control.frame().await["connected"]["session"].as_str().unwrap().to_owned();
    let node = target.server.node().clone();
    let waiting = move || {
        let sessions = node.sessions.all();
        let (_, attached) = sessions.into_iter().find(|(session, _)| **session == *id).expect("it is gone");
        attached.outbox.bytes()
    };
    (session, control, waiting)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_a_datagram_is_a_bad_request() {
    let mut target = Target::new().await;
    let session = attacker(&target).await;
    let mut control = session.connect(json!({})).await;
    let request = json!({"publish": {"id": 7, "channel": "chat:1", "data": 1}}).to_string();
    session.quic.send_datagram([b"\x00", request.as_bytes()].concat().into()).unwrap();
    let error = control.frame().await["error"].take();
    assert_eq!((&error["id"], &error["reason"]), (&json!(7), &json!("bad_request")), "{error}");
    goes_on(&mut control).await;
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_no_answers_gets_no_more_for_what_it_sends_in_datagrams() {
    let mut target = Target::with(&[("LIMITS__OUTBOX_BYTES", &OUTBOX_BYTES.to_string())]).await;
    let (session, _control, waiting) = slow_to_read(&target, json!({"id": 1})).await;
    // Beyond the session's rate each is refused, with more than a hundred bytes.
    let event = json!({"emit": {"channel": "chat:1", "data": 1}}).to_string();
    let datagram: bytes::Bytes = [b"\x00", event.as_bytes()].concat().into();
    let send = || soon(session.quic.send_datagram_wait(datagram.clone()));
    while waiting() < OUTBOX_BYTES / 2 {
        send().await.unwrap();
    }
    for _ in 0..5_000 {
        send().await.unwrap();
        let waiting = waiting();
        assert!(waiting < OUTBOX_BYTES, "{waiting} bytes of answers wait");
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_told_who_is_there_on_its_channels_as_fast_as_it_reads() {
    const CHANNELS: usize = 64;
    const MEMBERS: usize = 40;
    let settings =
        [("LIMITS__OUTBOX_BYTES", &*OUTBOX_BYTES.to_string()), ("CHANNELS__CHAT__PRESENCE", "true")];
    let mut target = Target::with(&settings).await;
    let all = |options: Value| -> Value {
        (0..CHANNELS).map(|number| (format!("chat:{number}"), options.clone())).collect::<Map<_, _>>().into()
    };
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        let session = attacker(&target).await;
        let mut control = session.connect(all(json!({}))).await;
        for _ in 0..CHANNELS {
            assert!(control.frame().await["subscribed"].is_object());
        }
        members.push((session, control));
    }
    let connect = json!({"id": 1, "subscriptions": all(json!({"presence": true}))});
    let (_session, mut control, waiting) = slow_to_read(&target, connect).await;
    for _ in 0..CHANNELS {
        let waiting = waiting();
        assert!(waiting < OUTBOX_BYTES, "{waiting} bytes of answers wait");
        let frame = control.frame().await;
        assert!(frame["subscribed"]["presence"]["count"].as_u64() >= Some(MEMBERS as u64), "{frame}");
    }
    target.is_unharmed().await;
}
