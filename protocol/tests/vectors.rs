//! The golden vectors: what every reader and writer of the protocol, in any language, agrees on.
//!
//! `UPDATE_GOLDEN=1 cargo test -p skywave-protocol --test vectors both_encodings` writes the MessagePack of the frames
//! anew from their JSON.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod schema;
mod vector_files;

use serde::Deserialize;
use skywave_protocol::{
    Admission, DecodeError, Encoding, Position,
    codec::split_json,
    framing::{FrameBuffer, FrameTooLarge, MAX_PREFIX_BYTES, read_varint, split_frames, write_prefix},
    position::{Epoch, Origin},
};
use std::collections::BTreeSet;
use vector_files::{Direction, Frame, from_hex, list, read, to_hex};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

#[test]
fn every_frame_and_no_other_has_vectors() {
    for (direction, shapes) in
        [(Direction::Client, schema::client_frames()), (Direction::Server, schema::server_frames())]
    {
        let names: Vec<&str> = shapes.iter().map(|shape| shape.name).collect();
        assert_eq!(names, direction.names(), "NAMES lists the frames of {direction:?} in their order");
        let mut sorted = names;
        sorted.sort_unstable();
        assert_eq!(list(direction.directory()), sorted, "{direction:?}");
    }
}

#[test]
fn every_field_is_used_by_some_vector() {
    for (direction, shapes) in
        [(Direction::Client, schema::client_frames()), (Direction::Server, schema::server_frames())]
    {
        for shape in shapes {
            let mut used = BTreeSet::new();
            for case in direction.cases(shape.name) {
                let frame: serde_json::Value = serde_json::from_str(&case.json).unwrap();
                used.extend(frame[shape.name].as_object().unwrap().keys().cloned());
            }
            for field in shape.fields {
                assert!(used.contains(*field), "no vector of `{}` has `{field}`", shape.name);
            }
        }
    }
}

#[test]
fn every_field_of_a_structure_is_used_by_some_vector() {
    let mut used = BTreeSet::new();
    for direction in Direction::BOTH {
        for name in direction.names() {
            for case in direction.cases(name) {
                collect_keys(&serde_json::from_str(&case.json).unwrap(), &mut used);
            }
        }
    }
    for shape in schema::structures() {
        assert!(!shape.fields.is_empty(), "{}", shape.name);
        for field in shape.fields {
            assert!(used.contains(*field), "no vector has `{field}` of `{}`", shape.name);
        }
    }
}

fn collect_keys(value: &serde_json::Value, keys: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                keys.insert(key.clone());
                collect_keys(value, keys);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

#[test]
fn a_frame_knows_the_id_of_its_request() {
    for direction in Direction::BOTH {
        for name in direction.names() {
            for case in direction.cases(name) {
                let fields = serde_json::from_str::<serde_json::Value>(&case.json).unwrap();
                let frame = direction.decode(Encoding::Json, case.json.as_bytes()).unwrap();
                let id = frame.id().map(|id| u64::from(id.get()));
                assert_eq!(id, fields[name]["id"].as_u64(), "{direction:?} {name}: {}", case.name);
            }
        }
    }
}

#[test]
fn names_of_cases_are_unique() {
    for direction in Direction::BOTH {
        for name in direction.names() {
            let cases = direction.cases(name);
            let unique: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
            assert_eq!(unique.len(), cases.len(), "{direction:?} {name}");
        }
    }
}

#[test]
fn both_encodings_of_a_frame_are_the_same_value_and_are_written_exactly_so() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        update_message_pack();
    }
    for direction in Direction::BOTH {
        for name in direction.names() {
            for case in direction.cases(name) {
                let context = format!("{direction:?} {name}: {}", case.name);
                let frames: Vec<Frame> = ENCODINGS
                    .iter()
                    .map(|encoding| direction.decode(*encoding, &case.bytes(*encoding)).expect(&context))
                    .collect();
                assert_eq!(frames[0], frames[1], "{context}");
                if case.canonical {
                    let json = frames[0].encode(Encoding::Json).bare();
                    assert_eq!(std::str::from_utf8(&json).unwrap(), case.json, "{context}");
                    let msgpack = frames[0].encode(Encoding::MessagePack).bare();
                    assert_eq!(to_hex(&msgpack), case.msgpack, "{context}");
                }
            }
        }
    }
}

fn update_message_pack() {
    for direction in Direction::BOTH {
        for name in direction.names() {
            let mut cases = direction.cases(name);
            for case in cases.iter_mut().filter(|case| case.canonical) {
                let frame = direction.decode(Encoding::Json, case.json.as_bytes()).expect(&case.name);
                case.msgpack = to_hex(&frame.encode(Encoding::MessagePack).bare());
            }
            direction.write_cases(name, &cases);
        }
    }
}

#[test]
fn a_prefixed_frame_is_its_length_and_the_frame() {
    for direction in Direction::BOTH {
        for name in direction.names() {
            for case in direction.cases(name).iter().filter(|case| case.canonical) {
                for encoding in ENCODINGS {
                    let bytes = case.bytes(encoding);
                    let frame = direction.decode(encoding, &bytes).unwrap().encode(encoding);
                    assert_eq!(frame.len(), frame.prefixed().len());
                    assert_eq!(split_frames(frame.prefixed()).unwrap(), [frame.bare()]);
                    assert_eq!(frame.bare(), bytes);
                }
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalid {
    name: String,
    direction: Direction,
    encoding: String,
    text: Option<String>,
    hex: Option<String>,
    class: String,
    id: Option<u32>,
}

#[test]
fn invalid_input_is_told_apart_with_the_request_it_belongs_to() {
    for case in read::<Vec<Invalid>>("invalid.json") {
        let encoding = match case.encoding.as_str() {
            "json" => Encoding::Json,
            "msgpack" => Encoding::MessagePack,
            other => panic!("{}: encoding {other}", case.name),
        };
        let bytes = match (case.text, case.hex) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(hex)) => from_hex(&hex),
            _ => panic!("{}: either text or hex", case.name),
        };
        let error = match case.direction.decode(encoding, &bytes) {
            Err(error) => error,
            Ok(frame) => panic!("{}: decoded {frame:?}", case.name),
        };
        let class = match error {
            DecodeError::Malformed(_) => "malformed",
            DecodeError::Unknown { .. } => "unknown",
            DecodeError::Invalid { .. } => "invalid",
        };
        assert_eq!(
            (class, error.id().map(u32::from)),
            (case.class.as_str(), case.id),
            "{}: {error}",
            case.name
        );
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Framing {
    varints: Vec<Varint>,
    truncated_varints: Vec<String>,
    streams: Vec<Stream>,
    messages: Vec<Message>,
    texts: Vec<TextMessage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Varint {
    value: u64,
    hex: String,
    /// `false`: a longer form, which is read but not written.
    #[serde(default = "Varint::canonical")]
    canonical: bool,
}

impl Varint {
    fn canonical() -> bool {
        true
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stream {
    name: String,
    /// What arrives, piece by piece.
    pieces: Vec<String>,
    /// The frames that come out of it.
    frames: Vec<String>,
    /// Whether the stream ends within a frame.
    #[serde(default)]
    partial: bool,
    /// The largest frame allowed, in bytes.
    #[serde(default = "Stream::maximum")]
    maximum: usize,
    /// The length that is refused after `frames`.
    too_large: Option<u64>,
}

impl Stream {
    fn maximum() -> usize {
        65_536
    }
}

/// A binary message; without `frames` it is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    name: String,
    hex: String,
    frames: Option<Vec<String>>,
}

/// A text message; without `frames` it is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextMessage {
    name: String,
    text: String,
    frames: Option<Vec<String>>,
}

#[test]
fn lengths_are_quic_varints() {
    let framing: Framing = read("framing.json");
    for Varint { value, hex, canonical } in framing.varints {
        let bytes = from_hex(&hex);
        assert_eq!(read_varint(&bytes), Some((value, bytes.len())), "{hex}");
        let longer = [bytes.as_slice(), &[0xff]].concat();
        assert_eq!(read_varint(&longer), Some((value, bytes.len())), "{hex} and a byte more");
        if canonical {
            let mut space = [0; MAX_PREFIX_BYTES];
            let size = write_prefix(usize::try_from(value).unwrap(), &mut space);
            assert_eq!(to_hex(&space[MAX_PREFIX_BYTES - size..]), hex, "{value}");
        }
    }
    for hex in framing.truncated_varints {
        assert_eq!(read_varint(&from_hex(&hex)), None, "{hex}");
    }
}

#[test]
fn a_stream_gives_its_frames_however_it_is_cut() {
    for case in read::<Framing>("framing.json").streams {
        let mut buffer = FrameBuffer::new(case.maximum);
        let (mut frames, mut refused) = (Vec::new(), None);
        for piece in &case.pieces {
            buffer.extend(&from_hex(piece));
            loop {
                match buffer.next_frame() {
                    Ok(Some(frame)) => frames.push(to_hex(&frame)),
                    Ok(None) => break,
                    Err(FrameTooLarge { length, maximum }) => {
                        assert_eq!(maximum, case.maximum, "{}", case.name);
                        refused = Some(length);
                        break;
                    }
                }
            }
        }
        assert_eq!(frames, case.frames, "{}", case.name);
        assert_eq!(refused, case.too_large, "{}", case.name);
        assert_eq!(buffer.is_partial(), case.partial || refused.is_some(), "{}", case.name);
    }
}

#[test]
fn a_binary_message_holds_whole_frames() {
    for case in read::<Framing>("framing.json").messages {
        let frames = split_frames(from_hex(&case.hex).into())
            .ok()
            .map(|frames| frames.iter().map(|frame| to_hex(frame)).collect::<Vec<_>>());
        assert_eq!(frames, case.frames, "{}", case.name);
    }
}

#[test]
fn a_text_message_holds_a_frame_or_an_array_of_them() {
    for case in read::<Framing>("framing.json").texts {
        let frames = split_json(&case.text)
            .ok()
            .map(|frames| frames.iter().map(|frame| frame.get().to_owned()).collect::<Vec<_>>());
        assert_eq!(frames, case.frames, "{}", case.name);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arrival {
    name: String,
    position: Position,
    origin: Origin,
    epoch: Epoch,
    offset: u64,
    admission: String,
    /// The position once the publication is dealt with.
    after: Position,
}

#[test]
fn a_position_admits_exactly_the_publication_that_follows() {
    for case in read::<Vec<Arrival>>("position.json") {
        let mut position = case.position;
        let admission = position.admit(&case.origin, &case.epoch, case.offset);
        let name = match admission {
            Admission::Next => "next",
            Admission::Duplicate => "duplicate",
            Admission::Gap => "gap",
            Admission::NewEpoch => "new_epoch",
        };
        assert_eq!(name, case.admission, "{}", case.name);
        if admission == Admission::Next {
            position.advance(&case.origin, &case.epoch, case.offset);
        }
        assert_eq!(position, case.after, "{}", case.name);
    }
}
