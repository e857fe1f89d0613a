//! Bad frames and bad messages, on every transport and in both encodings.

use crate::target::Target;
use bytes::Bytes;
use serde_json::{Value, json};
use skywave_client::{
    CertificateCheck, Encoding, TransportKind,
    transport::{Closed, Connection, DialOptions, Dialer, Lane, Sender},
};
use skywave_protocol::ServerFrame;
use skywave_testing::soon;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

/// How an attacker comes.
#[derive(Debug, Clone, Copy)]
struct Way {
    kind: TransportKind,
    encoding: Encoding,
    http2: bool,
}

/// Makes a test for each way of an attack `async fn(Way)`.
macro_rules! on_every_transport {
    ($($attack:ident,)+) => {
        $(mod $attack {
            use super::{Encoding::{Json, MessagePack}, TransportKind::{WebSocket, WebTransport}, Way};
            on_every_transport! { @ $attack
                webtransport_messagepack (WebTransport, MessagePack, false)
                webtransport_json (WebTransport, Json, false)
                websocket_messagepack (WebSocket, MessagePack, false)
                websocket_json (WebSocket, Json, false)
                websocket_http2 (WebSocket, MessagePack, true)
            }
        })+
    };
    (@ $attack:ident $($name:ident ($kind:expr, $encoding:expr, $http2:expr))+) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            super::$attack(Way { kind: $kind, encoding: $encoding, http2: $http2 }).await;
        })+
    };
}

on_every_transport! {
    an_unknown_frame_is_a_bad_request_and_the_session_goes_on,
    a_field_of_the_wrong_type_is_a_bad_request_and_the_session_goes_on,
    a_second_connect_is_a_bad_request_and_the_session_goes_on,
    the_tenth_bad_request_within_a_minute_ends_the_session,
    a_connect_that_makes_no_sense_is_answered_and_may_be_tried_again,
    another_frame_before_connect_ends_the_transport,
    bytes_that_are_no_frame_end_the_session,
    bytes_that_are_no_frame_end_the_transport_before_connect,
    a_frame_over_the_limit_ends_the_session,
    a_payload_that_nests_too_deep_is_a_bad_request,
    a_frame_that_never_ends_is_cut_off_by_the_connect_timeout,
}

/// A raw connection of an attacker.
struct Attacker {
    way: Way,
    connection: Connection,
}

impl Attacker {
    /// Comes without `connect`.
    async fn come(target: &Target, way: Way) -> Self {
        let options = DialOptions {
            encoding: way.encoding,
            http2: way.http2,
            certificate: CertificateCheck::Insecure,
            ..DialOptions::default()
        };
        let url = target.url().parse().unwrap();
        let connection = soon(Dialer::new(options).unwrap().dial(&url, way.kind)).await.unwrap();
        Self { way, connection }
    }

    /// Comes and opens a session.
    async fn connect(target: &Target, way: Way) -> Self {
        let mut attacker = Self::come(target, way).await;
        attacker.send(&json!({"connect": {"id": 1}})).await;
        assert!(matches!(attacker.frame().await, ServerFrame::Connected(_)));
        attacker
    }

    async fn send(&mut self, frame: &Value) {
        let frame = self.way.encoding.encode(frame).unwrap();
        soon(self.connection.sender.send(&frame, Lane::Reliable)).await.unwrap();
    }

    /// Sends bytes in place of a frame, in the framing that the transport has.
    async fn send_as_frame(&mut self, bytes: &[u8]) {
        match (&mut self.connection.sender, self.way.encoding) {
            (Sender::WebTransport(sender), _) => soon(sender.send_bytes(&prefixed(bytes))).await.unwrap(),
            (Sender::WebSocket(sender), Encoding::MessagePack) => {
                soon(sender.send_message(Message::Binary(prefixed(bytes)))).await.unwrap();
            }
            (Sender::WebSocket(sender), Encoding::Json) => {
                // As text, whether it is UTF-8 or not.
                let frame = Frame::message(bytes.to_vec(), OpCode::Data(Data::Text), true);
                soon(sender.send_message(Message::Frame(frame))).await.unwrap();
            }
        }
    }

    async fn frame(&mut self) -> ServerFrame {
        let received = soon(self.connection.receiver.receive()).await.expect("closed");
        self.way.encoding.decode_server(&received.frame).unwrap()
    }

    /// The next frame is a `bad_request` for this request.
    async fn is_refused(&mut self, id: Option<u32>) {
        match self.frame().await {
            ServerFrame::Error(error) => {
                assert_eq!((error.code, &*error.reason, error.transient), (107, "bad_request", false));
                assert_eq!(error.id.map(|id| id.get()), id);
            }
            other => panic!("{other:?}"),
        }
    }

    /// The session still answers.
    async fn goes_on(&mut self) {
        self.send(&json!({"history": {"id": 99, "channel": "chat:1", "limit": 1}})).await;
        assert!(matches!(self.frame().await, ServerFrame::History(history) if history.id.get() == 99));
    }

    /// The last frame is `disconnect` with this code, and the transport's own close repeats it.
    async fn is_thrown_out(&mut self, code: u16) {
        let disconnect = loop {
            match self.frame().await {
                ServerFrame::Disconnect(disconnect) => break disconnect,
                ServerFrame::Error(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((disconnect.code, disconnect.reconnect), (code, false));
        let closed: Closed = soon(self.connection.receiver.receive()).await.unwrap_err();
        if self.way.kind == TransportKind::WebSocket {
            assert_eq!((closed.code, &*closed.reason), (Some(code), &*disconnect.reason));
        }
    }
}

fn prefixed(bytes: &[u8]) -> Bytes {
    let mut prefixed = (bytes.len() as u32 | 0x8000_0000).to_be_bytes().to_vec();
    prefixed.extend_from_slice(bytes);
    prefixed.into()
}

async fn an_unknown_frame_is_a_bad_request_and_the_session_goes_on(way: Way) {
    let mut target = Target::new().await;
    let mut attacker = Attacker::connect(&target, way).await;
    attacker.send(&json!({"dance": {"id": 5}})).await;
    attacker.is_refused(Some(5)).await;
    attacker.send(&json!({"connected": {"id": 6}})).await;
    attacker.is_refused(Some(6)).await;
    attacker.send(&json!({"dance": null})).await;
    attacker.is_refused(None).await;
    attacker.goes_on().await;
    target.is_unharmed().await;
}

async fn a_field_of_the_wrong_type_is_a_bad_request_and_the_session_goes_on(way: Way) {
    let mut target = Target::new().await;
    let mut attacker = Attacker::connect(&target, way).await;
    for (id, frame) in [
        (Some(5), json!({"publish": {"id": 5, "channel": 7, "data": "1"}})),
        (Some(6), json!({"publish": {"id": 6, "channel": "chat:1"}})),
        (Some(7), json!({"subscribe": {"id": 7, "channel": "no colon"}})),
        (Some(8), json!({"history": {"id": 8, "channel": "chat:1", "limit": 100_000}})),
        (Some(9), json!({"subscribe": {"id": 9, "channel": "chat:1", "position": {"eu": {"epoch": 1}}}})),
        (None, json!({"unsubscribe": {"id": "seven", "channel": "chat:1"}})),
        (None, json!({"pong": "no map"})),
    ] {
        attacker.send(&frame).await;
        attacker.is_refused(id).await;
    }
    let bad_text = match way.encoding {
        Encoding::Json => br#"{"unsubscribe":{"id":10,"channel":"a lone surrogate: \ud800"}}"#.to_vec(),
        Encoding::MessagePack => b"\x81\xabunsubscribe\x82\xa2id\x0a\xa7channel\xa6chat:\xff".to_vec(),
    };
    attacker.send_as_frame(&bad_text).await;
    attacker.is_refused(Some(10)).await;
    attacker.goes_on().await;
    target.is_unharmed().await;
}

async fn a_second_connect_is_a_bad_request_and_the_session_goes_on(way: Way) {
    let mut target = Target::new().await;
    let mut attacker = Attacker::connect(&target, way).await;
    attacker.send(&json!({"connect": {"id": 2}})).await;
    attacker.is_refused(Some(2)).await;
    attacker.goes_on().await;
    target.is_unharmed().await;
}

async fn the_tenth_bad_request_within_a_minute_ends_the_session(way: Way) {
    let mut target = Target::new().await;
    let mut attacker = Attacker::connect(&target, way).await;
    for id in 1..10 {
        attacker.send(&json!({"dance": {"id": id}})).await;
        attacker.is_refused(Some(id)).await;
    }
    attacker.goes_on().await;
    attacker.send(&json!({"dance": {"id": 10}})).await;
    attacker.is_refused(Some(10)).await;
    attacker.is_thrown_out(3501).await;
    target.is_unharmed().await;
}

async fn a_connect_that_makes_no_sense_is_answered_and_may_be_tried_again(way: Way) {
    let mut target = Target::new().await;
    let mut attacker = Attacker::come(&target, way).await;
    attacker.send(&json!({"connect": {"id": 1, "token": 7}})).await;
    attacker.is_refused(Some(1)).await;
    attacker.send(&json!({"connect": {"id": 2, "resume": "forged", "subscriptions": {"chat:1": {}}}})).await;
    match attacker.frame().await {
        ServerFrame::Connected(connected) => assert_eq!((connected.id.get(), connected.resumed), (2, false)),
        other => panic!("{other:?}"),
    }
    target.is_unharmed().await;
}

async fn another_frame_before_connect_ends_the_transport(way: Way) {
    let mut target = Target::new().await;
    for frame in [
        json!({"publish": {"id": 1, "channel": "chat:bystanders", "data": "1"}}),
        json!({"pong": {"seq": 1}}),
        json!({"dance": {}}),
    ] {
        let mut attacker = Attacker::come(&target, way).await;
        attacker.send(&frame).await;
        attacker.is_thrown_out(3501).await;
    }
    target.is_unharmed().await;
}

/// Bytes in place of a frame, with what is wrong about them.
fn garbage(encoding: Encoding) -> Vec<(&'static str, Vec<u8>)> {
    let mut garbage = vec![
        ("nothing", Vec::new()),
        ("noise", (0..200u8).map(|byte| byte.wrapping_mul(167) ^ 0x5a).collect()),
        ("zeroes", vec![0; 64]),
    ];
    let good = encoding.encode(&json!({"unsubscribe": {"id": 7, "channel": "chat:1"}})).unwrap().bare();
    garbage.extend((1..good.len()).step_by(7).map(|end| ("cut short", good[..end].to_vec())));
    garbage.push(("twice in one frame", [&good[..], &good[..]].concat()));
    match encoding {
        Encoding::Json => {
            garbage
                .push(("invalid UTF-8", b"{\"unsubscribe\":{\"id\":7,\"channel\":\"\xff\xfe\"}}".to_vec()));
            garbage.push(("deep arrays", [b"{\"dance\":".to_vec(), vec![b'['; 60_000]].concat()));
            garbage.push(("deep objects", br#"{"a":"#.repeat(12_000)));
            garbage.push(("two frames in one map", br#"{"pong":{"seq":1},"network":{}}"#.to_vec()));
            garbage.push(("an empty map", b"{}".to_vec()));
            garbage.push(("a number", b"1e999999".to_vec()));
            garbage.push(("an array of nonsense", b"[1,2]".to_vec()));
        }
        Encoding::MessagePack => {
            garbage
                .push(("deep arrays", [b"\x81\xa5dance".to_vec(), vec![0x91; 60_000], vec![0xc0]].concat()));
            garbage.push(("deep maps", [b"\x81\xa5dance".to_vec(), b"\x81\xa1a".repeat(20_000)].concat()));
            for (what, head) in [
                ("a giant str", [0xdb, 0xff, 0xff, 0xff, 0xff]),
                ("a giant bin", [0xc6, 0xff, 0xff, 0xff, 0xff]),
                ("a giant array", [0xdd, 0xff, 0xff, 0xff, 0xff]),
                ("a giant map", [0xdf, 0xff, 0xff, 0xff, 0xff]),
                ("a giant extension", [0xc9, 0xff, 0xff, 0xff, 0xff]),
            ] {
                garbage.push((what, head.to_vec()));
                garbage.push((what, [b"\x81\xa5dance".to_vec(), head.to_vec(), vec![0xc0; 16]].concat()));
            }
            garbage.push(("the byte that is never used", vec![0xc1]));
            garbage.push(("an empty map", vec![0x80]));
            garbage.push(("invalid UTF-8 for a name", b"\x81\xa2\xff\xfe\x80".to_vec()));
        }
    }
    garbage
}

async fn bytes_that_are_no_frame_end_the_session(way: Way) {
    let mut target = Target::new().await;
    for (what, bytes) in garbage(way.encoding) {
        eprintln!("{what}");
        let mut attacker = Attacker::connect(&target, way).await;
        attacker.send_as_frame(&bytes).await;
        attacker.is_thrown_out(3501).await;
    }
    target.attackers_are_gone().await;
    target.is_unharmed().await;
}

async fn bytes_that_are_no_frame_end_the_transport_before_connect(way: Way) {
    let mut target = Target::new().await;
    for (what, bytes) in garbage(way.encoding) {
        eprintln!("{what}");
        let mut attacker = Attacker::come(&target, way).await;
        attacker.send_as_frame(&bytes).await;
        attacker.is_thrown_out(3501).await;
    }
    target.is_unharmed().await;
}

/// A `publish` of exactly so many bytes.
fn publish_of(bytes: usize, encoding: Encoding) -> Bytes {
    let mut text = 0;
    loop {
        let data = Value::from("x".repeat(text));
        let data = if encoding == Encoding::Json { data } else { Value::from(data.to_string()) };
        let frame = json!({"publish": {"id": 3, "channel": "chat:1", "data": data}});
        let frame = encoding.encode(&frame).unwrap().bare();
        if frame.len() == bytes {
            return frame;
        }
        // The text's own length prefix grows with it, so the first guess may be a little off.
        text = text + bytes - frame.len();
    }
}

async fn a_frame_over_the_limit_ends_the_session(way: Way) {
    let mut target = Target::with(&[("LIMITS__FRAME_BYTES", "2048")]).await;
    let publish = |bytes: usize| publish_of(bytes, way.encoding);
    let mut attacker = Attacker::connect(&target, way).await;
    attacker.send_as_frame(&publish(2048)).await;
    assert!(matches!(attacker.frame().await, ServerFrame::Published(_)));
    attacker.send_as_frame(&publish(2049)).await;
    attacker.is_thrown_out(3502).await;
    // Far beyond: nobody should have to read it all, and the attacker may not get to the end of it.
    let mut attacker = Attacker::connect(&target, way).await;
    attacker.send_as_frame(&publish(100_000)).await;
    attacker.is_thrown_out(3502).await;
    // A giant is refused for what it announces.
    let mut attacker = Attacker::connect(&target, way).await;
    match &mut attacker.connection.sender {
        Sender::WebTransport(sender) => {
            soon(sender.send_bytes(&[0xbf, 0xff, 0xff, 0xff, 0x81])).await.unwrap();
            attacker.is_thrown_out(3502).await;
        }
        Sender::WebSocket(sender) => {
            for number in 0..100 {
                let opcode = if number == 0 { Data::Binary } else { Data::Continue };
                let piece = Frame::message(vec![0; 1000], OpCode::Data(opcode), false);
                if sender.send_message(Message::Frame(piece)).await.is_err() {
                    break;
                }
            }
            attacker.is_thrown_out(3502).await;
        }
    }
    target.attackers_are_gone().await;
    target.is_unharmed().await;
}

async fn a_payload_that_nests_too_deep_is_a_bad_request(way: Way) {
    let mut target = Target::new().await;
    let mut attacker = Attacker::connect(&target, way).await;
    let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
    match way.encoding {
        Encoding::Json => {
            let frame = format!(r#"{{"publish":{{"id":4,"channel":"chat:1","data":{deep}}}}}"#);
            attacker.send_as_frame(frame.as_bytes()).await;
        }
        Encoding::MessagePack => {
            attacker.send(&json!({"publish": {"id": 4, "channel": "chat:1", "data": deep}})).await;
        }
    }
    attacker.is_refused(Some(4)).await;
    attacker.goes_on().await;
    target.is_unharmed().await;
}

async fn a_frame_that_never_ends_is_cut_off_by_the_connect_timeout(way: Way) {
    let mut target = Target::impatient(500).await;
    let mut attacker = Attacker::come(&target, way).await;
    match &mut attacker.connection.sender {
        Sender::WebTransport(sender) => soon(sender.send_bytes(&[0x40, 0xff, 0x81])).await.unwrap(),
        Sender::WebSocket(sender) => {
            let piece = Frame::message(b"{".to_vec(), OpCode::Data(Data::Text), false);
            soon(sender.send_message(Message::Frame(piece))).await.unwrap();
        }
    }
    let disconnect = match attacker.frame().await {
        ServerFrame::Disconnect(disconnect) => disconnect,
        other => panic!("{other:?}"),
    };
    assert_eq!((disconnect.code, disconnect.reconnect), (3004, true));
    target.is_unharmed().await;
}
