//! The capsules on a request's stream (RFC 9297): of all of them, only the one that ends the session matters.

use skywave_protocol::framing::read_varint;

const DATA_FRAME: u64 = 0x00;
/// `WT_CLOSE_SESSION`
pub(crate) const CLOSE_SESSION: u64 = 0x2843;

/// Finds a peer's `WT_CLOSE_SESSION` in what comes on the request's stream, in whatever pieces. Nothing is kept but the
/// head of a frame and of a capsule.
#[derive(Default)]
pub(crate) struct Capsules {
    frames: Elements,
    capsules: Elements,
}

impl Capsules {
    /// Whether these bytes, after those before, close the session.
    pub(crate) fn close(&mut self, mut bytes: &[u8]) -> bool {
        while let Some((kind, mut payload)) = self.frames.next(&mut bytes) {
            while kind == DATA_FRAME
                && let Some((capsule, _)) = self.capsules.next(&mut payload)
            {
                if capsule == CLOSE_SESSION {
                    return true;
                }
            }
        }
        false
    }
}

/// What has a type and a length before it, as HTTP/3's frames have and capsules.
#[derive(Default)]
struct Elements {
    /// Type and length, as long as they are incomplete: at most 16 bytes.
    head: Vec<u8>,
    kind: u64,
    /// What is still to come of the present one's value.
    left: u64,
}

impl Elements {
    /// The type of the element that is under way and the next part of its value, which is empty when it begins.
    fn next<'bytes>(&mut self, bytes: &mut &'bytes [u8]) -> Option<(u64, &'bytes [u8])> {
        if self.left > 0 {
            if bytes.is_empty() {
                return None;
            }
            let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (part, rest) = bytes.split_at(size);
            *bytes = rest;
            self.left -= size as u64;
            return Some((self.kind, part));
        }
        loop {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            self.head.push(*first);
            if let Some((kind, size)) = read_varint(&self.head)
                && let Some((length, _)) = read_varint(&self.head[size..])
            {
                self.head.clear();
                (self.kind, self.left) = (kind, length);
                return Some((kind, &[]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::webtransport::{handshake::close_capsule, streams::write_varint};
    use proptest::prelude::*;

    fn element(kind: u64, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_varint(kind, &mut bytes);
        write_varint(value.len() as u64, &mut bytes);
        bytes.extend_from_slice(value);
        bytes
    }

    #[test]
    fn a_close_is_found_behind_other_frames_and_capsules() {
        let mut bytes = element(0x1f * 7 + 0x21, b"grease");
        bytes.extend(element(DATA_FRAME, &element(0x78ae, b"")));
        bytes.extend(element(DATA_FRAME, b""));
        assert!(!Capsules::default().close(&bytes));
        bytes.extend(close_capsule(7, "bye"));
        assert!(Capsules::default().close(&bytes));
    }

    #[test]
    fn what_looks_like_a_close_within_another_value_is_none() {
        let inner = close_capsule(7, "bye");
        assert!(!Capsules::default().close(&element(0x21, &inner)));
        assert!(!Capsules::default().close(&element(DATA_FRAME, &element(0x17, &inner))));
    }

    proptest! {
        #[test]
        fn the_pieces_in_which_it_comes_do_not_matter(
            before in prop::collection::vec((0_u64..200, prop::collection::vec(any::<u8>(), 0..80)), 0..4),
            closes in any::<bool>(),
            size in 1_usize..50,
        ) {
            let mut capsules: Vec<u8> =
                before.iter().flat_map(|(kind, value)| element(*kind, value)).collect();
            if closes {
                capsules.extend(element(CLOSE_SESSION, &[0, 0, 0, 7]));
            }
            // Capsules may be split over frames at any place.
            let bytes: Vec<u8> = capsules.chunks(size).flat_map(|part| element(DATA_FRAME, part)).collect();
            let mut reader = Capsules::default();
            let found = bytes.chunks(size.div_ceil(3)).any(|piece| reader.close(piece));
            prop_assert_eq!(found, closes);
        }
    }
}
