//! Length-prefixed frames on a byte stream; the prefix is a QUIC varint (RFC 9000, section 16).

use bytes::{Buf, Bytes, BytesMut};

/// The longest prefix: frames are at most 2³⁰−1 bytes.
pub const MAX_PREFIX_BYTES: usize = 4;
/// The largest length that a prefix of [`MAX_PREFIX_BYTES`] can hold.
pub const MAX_FRAME_BYTES: usize = (1 << 30) - 1;

/// The peer announced a frame over the limit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame of {length} bytes, at most {maximum} allowed")]
pub struct FrameTooLarge {
    pub length: u64,
    pub maximum: usize,
}

/// A binary message ended within a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("truncated frame")]
pub struct Truncated;

/// Writes the shortest prefix for `length` right-aligned into `space`; returns the bytes it took.
/// `length` is at most [`MAX_FRAME_BYTES`].
pub fn write_prefix(length: usize, space: &mut [u8; MAX_PREFIX_BYTES]) -> usize {
    let value = length as u32;
    let (size, tag) = match length {
        0..=0x3f => (1, 0u32),
        0x40..=0x3fff => (2, 0x4000),
        _ => (4, 0x8000_0000),
    };
    *space = (value | tag).to_be_bytes();
    size
}

/// Reads a QUIC varint: its value and how many bytes it took; `None` when `bytes` ends within it.
pub fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let size = 1usize << (first >> 6);
    let rest = bytes.get(1..size)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, size))
}

/// A frame without the prefix before it.
pub fn without_prefix(mut frame: Bytes) -> Bytes {
    let prefix = read_varint(&frame).map_or(0, |(_, size)| size);
    frame.advance(prefix);
    frame
}

/// Collects bytes of a stream and gives back whole frames.
#[derive(Debug)]
pub struct FrameBuffer {
    buffer: BytesMut,
    maximum: usize,
}

impl FrameBuffer {
    /// Refuses frames of more than `maximum` bytes before buffering them.
    pub fn new(maximum: usize) -> Self {
        Self { buffer: BytesMut::new(), maximum: maximum.min(MAX_FRAME_BYTES) }
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, without its prefix; `None` until more bytes come.
    ///
    /// # Errors
    /// `FrameTooLarge` as soon as the prefix announces more than the maximum.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameTooLarge> {
        let Some((length, prefix)) = read_varint(&self.buffer) else {
            return Ok(None);
        };
        if length > self.maximum as u64 {
            return Err(FrameTooLarge { length, maximum: self.maximum });
        }
        let length = length as usize;
        if self.buffer.len() < prefix + length {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        let frame = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            // An idle session keeps no buffer.
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }

    /// Whether bytes of an unfinished frame wait.
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }
}

/// Splits one message that holds whole prefixed frames.
///
/// # Errors
/// `Truncated` when the message ends within a frame.
pub fn split_frames(mut message: Bytes) -> Result<Vec<Bytes>, Truncated> {
    let mut frames = Vec::new();
    while !message.is_empty() {
        let (length, prefix) = read_varint(&message).ok_or(Truncated)?;
        message.advance(prefix);
        let length = usize::try_from(length).map_err(|_| Truncated)?;
        if message.len() < length {
            return Err(Truncated);
        }
        frames.push(message.split_to(length));
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefixed(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            let mut space = [0; MAX_PREFIX_BYTES];
            let size = write_prefix(frame.len(), &mut space);
            bytes.extend_from_slice(&space[MAX_PREFIX_BYTES - size..]);
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_of_the_stream(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..10),
            cut in 1usize..50,
        ) {
            let mut buffer = FrameBuffer::new(1000);
            let mut received = Vec::new();
            for piece in prefixed(&frames).chunks(cut) {
                buffer.extend(piece);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    received.push(frame.to_vec());
                }
            }
            prop_assert_eq!(&received, &frames);
            prop_assert!(!buffer.is_partial());
            let split = split_frames(prefixed(&frames).into()).unwrap();
            prop_assert_eq!(split.iter().map(|frame| frame.to_vec()).collect::<Vec<_>>(), frames);
        }

        #[test]
        fn prefixes_read_back(length in 0usize..=MAX_FRAME_BYTES) {
            let mut space = [0; MAX_PREFIX_BYTES];
            let size = write_prefix(length, &mut space);
            prop_assert_eq!(read_varint(&space[MAX_PREFIX_BYTES - size..]), Some((length as u64, size)));
        }

        #[test]
        fn any_bytes_are_split_or_refused(bytes: Vec<u8>) {
            let _ = split_frames(bytes.clone().into());
            let mut buffer = FrameBuffer::new(100);
            buffer.extend(&bytes);
            while let Ok(Some(_)) = buffer.next_frame() {}
        }
    }

    #[test]
    fn an_announced_giant_is_refused_before_it_is_buffered() {
        let mut buffer = FrameBuffer::new(100);
        buffer.extend(&[0x80, 0x01, 0x00, 0x00]);
        assert_eq!(buffer.next_frame(), Err(FrameTooLarge { length: 65536, maximum: 100 }));
    }
}
