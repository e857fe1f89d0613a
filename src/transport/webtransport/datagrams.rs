//! A session's datagrams: each holds one frame, behind the session's id.

use super::streams::write_varint;
use crate::{hub::outbox::Outbox, session::connection::Incoming};
use bytes::Bytes;
use skywave_protocol::{
    ClientFrame, CloseCode, DecodeError, Encoding,
    codec::Unreadable,
    framing::{read_varint, without_prefix},
};

pub(crate) struct Datagrams {
    /// A quarter of the session's id, which begins each of them.
    quarter: u64,
    encoding: Encoding,
    max_frame_bytes: usize,
}

impl Datagrams {
    pub(crate) fn new(session_id: u64, encoding: Encoding, max_frame_bytes: usize) -> Self {
        Self { quarter: session_id / 4, encoding, max_frame_bytes }
    }

    /// The frame in a datagram; `None` for one of no session.
    pub(crate) fn read(&self, datagram: &[u8]) -> Option<Incoming> {
        let (quarter, prefix) = read_varint(datagram)?;
        if quarter != self.quarter {
            return None;
        }
        let frame = &datagram[prefix..];
        if frame.len() > self.max_frame_bytes {
            return Some(Incoming::Broken(CloseCode::FrameTooLarge));
        }
        Some(self.encoding.read_client(frame).and_then(only_if_it_may_be_lost).into())
    }

    /// Sends all that may be lost. What is too large for a datagram goes with the answers.
    pub(crate) fn write(&self, quic: &quinn::Connection, outbox: &Outbox) {
        if let Some(frame) = outbox.take_latest()
            && !self.send(quic, &frame)
        {
            outbox.divert(frame);
        }
        while let Some(event) = outbox.take_event() {
            if !self.send(quic, &event) && !outbox.is_clogged() {
                outbox.divert(event);
            }
        }
    }

    fn send(&self, quic: &quinn::Connection, frame: &Bytes) -> bool {
        let frame = without_prefix(frame.clone());
        let mut datagram = Vec::with_capacity(frame.len() + 8);
        write_varint(self.quarter, &mut datagram);
        datagram.extend_from_slice(&frame);
        quic.send_datagram(datagram.into()).is_ok()
    }
}

/// Requests travel on the control stream: what is asked there waits while its answers do.
fn only_if_it_may_be_lost(frame: ClientFrame) -> Result<ClientFrame, Unreadable> {
    match frame {
        ClientFrame::Emit(_) | ClientFrame::Pong(_) => Ok(frame),
        _ => Err(Unreadable {
            error: DecodeError::Invalid {
                name: frame.name().to_owned(),
                id: frame.id(),
                channel: None,
                message: "only `emit` and `pong` may travel in a datagram".to_owned(),
            },
            salvaged: None,
        }),
    }
}
