//! What a reader of either encoding can rely on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use skywave_protocol::{
    ClientFrame, DecodeError, Encoding, Payload,
    codec::split_json,
    frame::{Publish, RequestId},
};

fn decode(text: &str) -> Result<ClientFrame, DecodeError> {
    Encoding::Json.decode_client(text.as_bytes())
}

fn publish(payload: Payload) -> ClientFrame {
    ClientFrame::Publish(Publish {
        id: RequestId::new(7).unwrap(),
        channel: skywave_protocol::Channel::new("chat:1").unwrap(),
        key: None,
        data: payload,
    })
}

#[test]
fn payloads_survive_both_encodings() {
    let payloads = [
        Payload::Json(skywave_protocol::Json::parse("null").unwrap()),
        Payload::Json(skywave_protocol::Json::parse(r#"{"text":"hé\u0000"}"#).unwrap()),
        Payload::Binary(bytes::Bytes::from_static(&[0, 255, 128])),
    ];
    for payload in payloads {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let frame = publish(payload.clone());
            let encoded = encoding.encode(&frame).unwrap();
            assert_eq!(encoding.decode_client(&encoded.bare()), Ok(frame), "{encoding:?}");
        }
    }
}

#[test]
fn null_is_data_and_no_data_is_an_error() {
    let null = decode(r#"{"publish":{"id":7,"channel":"chat:1","data":null}}"#).unwrap();
    assert_eq!(null, publish(skywave_protocol::Json::parse("null").unwrap().into()));
    let error = decode(r#"{"publish":{"id":7,"channel":"chat:1"}}"#).unwrap_err();
    assert!(matches!(&error, DecodeError::Invalid { message, .. } if message.contains("data")), "{error}");
    assert_eq!(error.id(), RequestId::new(7));
}

#[test]
fn unknown_fields_are_ignored_and_unknown_frames_are_named() {
    assert!(decode(r#"{"publish":{"id":7,"channel":"chat:1","data":1,"later":[{}]}}"#).is_ok());
    let error = decode(r#"{"fly":{"id":9}}"#).unwrap_err();
    assert_eq!(error, DecodeError::Unknown { name: "fly".into(), id: RequestId::new(9) });
}

#[test]
fn a_wrong_type_is_told_with_the_request_it_belongs_to() {
    for text in [
        r#"{"subscribe":{"id":3,"channel":5}}"#,
        r#"{"subscribe":{"id":3,"channel":"nonamespace"}}"#,
        r#"{"subscribe":{"channel":"chat:1","id":3,"presence":"yes"}}"#,
    ] {
        let error = decode(text).unwrap_err();
        assert!(matches!(error, DecodeError::Invalid { .. }), "{text}: {error}");
        assert_eq!(error.id(), RequestId::new(3), "{text}");
    }
    assert_eq!(decode(r#"{"subscribe":{"id":0,"channel":"chat:1"}}"#).unwrap_err().id(), None);
}

#[test]
fn what_is_no_frame_is_malformed() {
    for text in ["", "{", "[]", "7", "{}", r#"{"pong":{"seq":1},"emit":{}}"#, r#""publish""#] {
        assert!(matches!(decode(text), Err(DecodeError::Malformed(_))), "{text:?}");
    }
    for bytes in [&b""[..], &[0x81], &[0xc1], &[0x81, 0xa1, 0xff, 0x00], &[0x93, 1, 2, 3]] {
        let result = Encoding::MessagePack.decode_client(bytes);
        assert!(matches!(result, Err(DecodeError::Malformed(_))), "{bytes:?}: {result:?}");
    }
}

#[test]
fn depth_without_end_is_an_error_and_no_overflow() {
    let deep = "[".repeat(60_000);
    assert!(decode(&format!(r#"{{"publish":{{"id":7,"channel":"chat:1","data":{deep}"#)).is_err());
    let closed = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let error =
        decode(&format!(r#"{{"publish":{{"id":7,"channel":"chat:1","data":{closed}}}}}"#)).unwrap_err();
    assert_eq!(error.id(), RequestId::new(7));
    let mut msgpack = vec![0x81, 0xa3, b'f', b'l', b'y'];
    msgpack.extend(std::iter::repeat_n(0x91, 60_000));
    assert!(Encoding::MessagePack.decode_client(&msgpack).is_err());
}

#[test]
fn a_text_message_holds_one_frame_or_an_array() {
    assert_eq!(split_json(r#"{"a":1}"#).unwrap().len(), 1);
    assert_eq!(split_json(r#" [{"a":1}, {"b":2}] "#).unwrap().len(), 2);
    assert!(split_json("[{").is_err());
    assert!(split_json("").is_err());
}

proptest::proptest! {
    #[test]
    fn any_bytes_decode_or_fail_cleanly(bytes: Vec<u8>) {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let _ = encoding.decode_client(&bytes);
            let _ = encoding.decode_server(&bytes);
        }
    }
}
