//! However a stream is cut, the same frames come out of it; messages are split or refused.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use skywave_protocol::{
    codec::split_json,
    framing::{FrameBuffer, FrameTooLarge, split_frames},
};

const MAX_FRAME_BYTES: usize = 1_000;

// Input: how many cuts, then the length of each piece, then the stream.
fuzz_target!(|input: &[u8]| {
    let Some((count, rest)) = input.split_first() else { return };
    let (cuts, bytes) = rest.split_at(rest.len().min(usize::from(*count)));
    let whole = read(&[bytes]);
    assert_eq!(read(&pieces(bytes, cuts)), whole);
    compare_with_message(bytes, whole);
    if let Ok(text) = std::str::from_utf8(bytes) {
        check_text(text);
    }
});

/// Cuts `bytes` into pieces of the lengths `cuts`; the rest is the last piece.
fn pieces<'a>(mut bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, rest) = bytes.split_at(bytes.len().min(usize::from(*cut)));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}

/// What comes out of a stream: its frames and whether it ends within one, or why it was refused.
#[derive(Debug, PartialEq)]
struct Received {
    frames: Vec<Bytes>,
    partial: bool,
    refused: Option<FrameTooLarge>,
}

fn read(pieces: &[&[u8]]) -> Received {
    let mut buffer = FrameBuffer::new(MAX_FRAME_BYTES);
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.extend(piece);
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return Received { frames, partial: true, refused: Some(error) },
            }
        }
    }
    Received { frames, partial: buffer.is_partial(), refused: None }
}

/// A binary message gives the frames that a stream of the same bytes gives, or is refused when it ends within one.
fn compare_with_message(bytes: &[u8], stream: Received) {
    match split_frames(Bytes::copy_from_slice(bytes)) {
        Ok(frames) if stream.refused.is_none() => {
            assert!(!stream.partial);
            assert_eq!(frames, stream.frames);
        }
        Ok(frames) => assert!(frames.iter().any(|frame| frame.len() > MAX_FRAME_BYTES)),
        Err(_) => assert!(stream.partial || stream.refused.is_some()),
    }
}

/// Every frame of a text message is JSON of its own, and an array of them splits into the same.
fn check_text(text: &str) {
    let Ok(frames) = split_json(text) else { return };
    let array = serde_json::to_string(&frames).expect("raw JSON can be written");
    let again = split_json(&array).expect("an array of JSON values is a message");
    assert!(frames.iter().map(|frame| frame.get()).eq(again.iter().map(|frame| frame.get())));
}
