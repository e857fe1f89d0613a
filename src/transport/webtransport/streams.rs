//! Polling and framing of QUIC streams.

use crate::hub::outbox::Outbox;
use bytes::Bytes;
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use skywave_protocol::framing::read_varint;
use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll},
};

/// `H3_NO_ERROR`
pub(crate) const NO_ERROR: VarInt = VarInt::from_u32(0x0100);
/// What is read of a stream at once, at most.
pub(crate) const READ_CHUNK_BYTES: usize = 16 * 1024;

/// One pass over a session's streams, and what came of it.
pub(crate) struct Writing<'a, 'waker> {
    pub context: &'a mut Context<'waker>,
    pub quic: &'a quinn::Connection,
    pub outbox: &'a Outbox,
    /// Something that is delivered reliably was handed to QUIC.
    pub(crate) has_written: bool,
    /// A stream that was full took more.
    pub(crate) has_taken: bool,
    /// How many bytes QUIC took.
    pub(crate) taken: u64,
}

impl Writing<'_, '_> {
    /// Writes of `chunk` what the stream takes now; ready once all is written.
    pub(crate) fn poll_write(
        &mut self,
        stream: &mut SendStream,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), WriteError>> {
        while !chunk.is_empty() {
            let before = chunk.len();
            // The future keeps nothing between polls: the stream knows whom to wake.
            let written = pin!(stream.write_chunks(std::slice::from_mut(chunk))).poll(self.context);
            self.taken += (before - chunk.len()) as u64;
            match written {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The next bytes of the stream, at most `max`; `None` at its end.
pub(crate) fn poll_read(
    stream: &mut RecvStream,
    context: &mut Context<'_>,
    max: usize,
) -> Poll<Result<Option<Bytes>, ReadError>> {
    let reading = pin!(stream.read_chunk(max, true));
    reading.poll(context).map_ok(|chunk| chunk.map(|chunk| chunk.bytes))
}

/// Reads a QUIC varint (RFC 9000, section 16).
pub(crate) async fn read_varint_from(stream: &mut RecvStream) -> Result<u64, ReadExactError> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes[..1]).await?;
    let size = 1 << (bytes[0] >> 6);
    stream.read_exact(&mut bytes[1..size]).await?;
    Ok(read_varint(&bytes[..size]).map_or(0, |(value, _)| value))
}

/// Appends `value` as a QUIC varint. Values over 2⁶²−1 do not occur: ids and lengths are far below.
pub(crate) fn write_varint(value: u64, to: &mut Vec<u8>) {
    match value {
        0..=0x3f => to.push(value as u8),
        0x40..=0x3fff => to.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => to.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => to.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_read_back(value in 0u64..(1 << 62)) {
            let mut bytes = Vec::new();
            write_varint(value, &mut bytes);
            prop_assert_eq!(read_varint(&bytes), Some((value, bytes.len())));
        }
    }
}
