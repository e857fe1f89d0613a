//! The stream for requests and replies, which the client opens.

use super::{
    handshake::HEADERS_FRAME,
    strays::{BIDIRECTIONAL_HEADER, Strays},
    streams::{READ_CHUNK_BYTES, Writing, poll_read},
    window::with_reserve,
};
use crate::{hub::outbox::Outbox, session::connection::Incoming};
use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream, WriteError};
use skywave_protocol::{
    CloseCode, Encoding,
    framing::{FrameBuffer, read_varint},
};
use std::task::{Context, Poll, ready};

const PRIORITY: i32 = 1;

/// The control stream, once the client has opened it.
pub(crate) struct ControlStream {
    session_id: u64,
    encoding: Encoding,
    open: Option<Open>,
    received: FrameBuffer,
    /// What is still to be written of a frame.
    unwritten: Bytes,
}

struct Open {
    send: SendStream,
    receive: RecvStream,
    /// Of the stream's header, as long as it is incomplete.
    header: Option<BytesMut>,
    /// Whether this frame was offered to the reserve. Once is enough: the stream itself may be what blocks it.
    tried_reserve: bool,
}

impl ControlStream {
    pub(crate) fn new(session_id: u64, encoding: Encoding, max_frame_bytes: usize) -> Self {
        let received = FrameBuffer::new(max_frame_bytes);
        Self { session_id, encoding, open: None, received, unwritten: Bytes::new() }
    }

    /// The first stream that the client opens is the control stream; any other is refused.
    pub(crate) fn take(&mut self, send: SendStream, receive: RecvStream, strays: &mut Strays) {
        if self.open.is_some() {
            strays.refuse(send, receive);
            return;
        }
        // It fails only on a stream that the peer stopped already, which shows when it is written to.
        let _ = send.set_priority(PRIORITY);
        self.open = Some(Open { send, receive, header: Some(BytesMut::new()), tried_reserve: false });
    }

    // ---- reading ----

    /// The next frame. Ready only when there is one, or the stream is at fault.
    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>, strays: &mut Strays) -> Poll<Incoming> {
        let Some(open) = &mut self.open else { return Poll::Pending };
        loop {
            if open.header.is_none() {
                match self.received.next_frame() {
                    Ok(Some(frame)) => return Poll::Ready(self.encoding.read_client(&frame).into()),
                    Ok(None) => {}
                    Err(_) => return Poll::Ready(Incoming::Broken(CloseCode::FrameTooLarge)),
                }
            }
            let chunk = match ready!(poll_read(&mut open.receive, context, READ_CHUNK_BYTES)) {
                Ok(Some(chunk)) => chunk,
                // The control stream is the session: without it nothing can be asked any more.
                Ok(None) | Err(_) => return Poll::Ready(Incoming::Gone),
            };
            let Some(header) = &mut open.header else {
                self.received.extend(&chunk);
                continue;
            };
            header.extend_from_slice(&chunk);
            match strip_header(header, self.session_id) {
                Ok(true) => {
                    self.received.extend(header);
                    open.header = None;
                }
                Ok(false) => {}
                Err(HEADERS_FRAME) => {
                    if let Some(Open { send, receive, .. }) = self.open.take() {
                        strays.reject_request(send, receive);
                    }
                    return Poll::Pending;
                }
                Err(_) => return Poll::Ready(Incoming::Broken(CloseCode::BadFrame)),
            }
        }
    }

    // ---- writing ----

    /// How many bytes are still to be written of a frame.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    /// Writes what the outbox has for it, as far as the peer takes it.
    pub(crate) fn flush(&mut self, writing: &mut Writing<'_, '_>) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        loop {
            let mut written = writing.poll_write(&mut open.send, &mut self.unwritten);
            if written.is_pending() && !std::mem::replace(&mut open.tried_reserve, true) {
                let quic = writing.quic;
                written = with_reserve(quic, || writing.poll_write(&mut open.send, &mut self.unwritten));
            }
            match written {
                Poll::Ready(written) => written?,
                Poll::Pending => return Ok(()),
            }
            match writing.outbox.take_control() {
                Some(frame) => self.unwritten = frame,
                None => return Ok(()),
            }
            writing.has_written = true;
            open.tried_reserve = false;
        }
    }

    /// Takes a lane's frame, once all is written that was queued for this stream: order says here to which subscription
    /// a frame belongs.
    pub(crate) fn carry(
        &mut self,
        writing: &mut Writing<'_, '_>,
        frame: &mut Bytes,
    ) -> Result<Poll<()>, WriteError> {
        self.flush(writing)?;
        let Some(open) = self.open.as_mut().filter(|_| self.unwritten.is_empty()) else {
            return Ok(Poll::Pending);
        };
        self.unwritten = std::mem::take(frame);
        let _ = writing.poll_write(&mut open.send, &mut self.unwritten)?;
        Ok(Poll::Ready(()))
    }

    /// Writes what is left, and ends the stream.
    pub(crate) async fn finish(&mut self, outbox: &Outbox) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.send.write_chunk(std::mem::take(&mut self.unwritten)).await?;
        while let Some(frame) = outbox.take_control() {
            open.send.write_chunk(frame).await?;
        }
        let _ = open.send.finish();
        Ok(())
    }

    /// Waits until the peer has all of it, or takes no more.
    pub(crate) async fn is_taken(&self) {
        if let Some(open) = &self.open {
            let _ = open.send.stopped().await;
        }
    }
}

/// Takes the header of a client's bidirectional stream off `bytes`; `false` while it is incomplete.
///
/// # Errors
/// What it is instead of a stream of this session.
fn strip_header(bytes: &mut BytesMut, session_id: u64) -> Result<bool, u64> {
    let Some((kind, kind_size)) = read_varint(bytes) else { return Ok(false) };
    if kind != BIDIRECTIONAL_HEADER {
        return Err(kind);
    }
    let Some((session, session_size)) = read_varint(&bytes[kind_size..]) else { return Ok(false) };
    if session != session_id {
        return Err(kind);
    }
    bytes.advance(kind_size + session_size);
    Ok(true)
}
