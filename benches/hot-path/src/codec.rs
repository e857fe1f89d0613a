//! Frames to bytes and back, and where a subscription stands.

use crate::{
    Case, Rounds, again, each,
    publications::{channel, frame, payload, publication, short},
};
use serde::Serialize;
use skywave_protocol::{
    ClientFrame, Encoding, Form, Position, ServerFrame,
    codec::EncodedFrame,
    form,
    frame::{Publish, RequestId},
    framing::FrameBuffer,
};
use std::hint::black_box;

const ORIGINS: [&str; 3] = ["ap", "eu", "us"];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        writing("encode a publication, JSON", &form::JSON),
        writing("encode a publication, MessagePack", &form::MESSAGE_PACK),
        reading("decode a publish, JSON", Encoding::Json),
        reading("decode a publish, MessagePack", Encoding::MessagePack),
        Case::new("take a frame from a stream", |_| stream()),
        Case::new("place a publication behind a position", |_| position()),
    ]
}

fn writing(name: &'static str, form: &'static Form) -> Case {
    Case::new(name, move |rounds| {
        let publications = (1..=rounds as u64).map(publication);
        each(publications, move |publication| {
            black_box(publication.written(form).len());
        })
    })
}

fn reading(name: &'static str, encoding: Encoding) -> Case {
    let publish =
        Publish { id: RequestId::MIN, channel: channel(), key: Some(short("k-1")), data: payload() };
    let bytes = written(encoding, &ClientFrame::Publish(publish)).bare();
    Case::new(name, move |_| {
        let bytes = bytes.clone();
        again(move || drop(black_box(encoding.decode_client(&bytes))))
    })
}

fn written<T: Serialize>(encoding: Encoding, frame: &T) -> EncodedFrame {
    encoding.encode(frame).unwrap_or_else(|error| unreachable!("{error}"))
}

/// As a client's stream brings frames: several in one piece.
fn stream() -> Rounds {
    let frame = ServerFrame::Publication(frame(1));
    let piece = written(Encoding::MessagePack, &frame).prefixed().repeat(8);
    let mut buffer = FrameBuffer::new(64 * 1024);
    let mut taken = 0;
    again(move || {
        if taken % 8 == 0 {
            buffer.extend(&piece);
        }
        taken += 1;
        drop(black_box(buffer.next_frame()));
    })
}

/// As each subscription does with each publication, where several regions publish.
fn position() -> Rounds {
    let origins = ORIGINS.map(short);
    let epoch = short("e");
    let mut position = Position::new();
    let mut count = 0;
    again(move || {
        let (origin, offset) = (&origins[count % origins.len()], (count / origins.len()) as u64 + 1);
        count += 1;
        black_box(position.admit(origin, &epoch, offset));
        position.advance(origin, &epoch, offset);
    })
}
