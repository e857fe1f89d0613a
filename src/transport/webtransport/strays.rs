//! Streams beside a session: HTTP/3's own, which are read and thrown away, and strays, which are refused.

use super::streams::{READ_CHUNK_BYTES, read_varint_from};
use futures_util::{
    future::BoxFuture,
    stream::{FuturesUnordered, Stream},
};
use quinn::{RecvStream, SendStream, VarInt};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// Begin HTTP/3's control stream and QPACK's encoder and decoder streams (RFC 9114, section 6.2; RFC 9204, section
/// 4.2).
const HTTP3_STREAMS: [u64; 3] = [0x00, 0x02, 0x03];
/// Begins a bidirectional stream of a session, before the session's id (draft-ietf-webtrans-http3, section 4.3).
pub(crate) const BIDIRECTIONAL_HEADER: u64 = 0x41;
/// Begins a unidirectional stream of a session (section 4.2).
pub(crate) const UNIDIRECTIONAL_HEADER: u64 = 0x54;
/// `WT_BUFFERED_STREAM_REJECTED`
const STREAM_REJECTED: VarInt = VarInt::from_u32(0x3994_bd84);
/// `H3_STREAM_CREATION_ERROR`, for a stream of a type that is not known here (RFC 9114, section 6.2)
const UNKNOWN_STREAM: VarInt = VarInt::from_u32(0x0103);
/// `H3_REQUEST_REJECTED`: the request was not looked at.
const REQUEST_REJECTED: VarInt = VarInt::from_u32(0x010b);
/// Streams that nobody asked for; beyond it the peer is broken.
const MAX_STRAYS: u32 = 64;

/// The streams beside the session's. Their number is bounded by QUIC's credit, and each is woken by itself.
#[derive(Default)]
pub(crate) struct Strays {
    /// Each tells at its end whether nobody asked for it.
    open: FuturesUnordered<BoxFuture<'static, bool>>,
    refused: u32,
}

impl Strays {
    /// Takes a unidirectional stream. HTTP/3's own streams say nothing that matters here (the dynamic table is off).
    /// Left unread, they would take the credit of the session's requests.
    pub(crate) fn take(&mut self, stream: RecvStream) {
        self.open.push(Box::pin(discard(stream)));
    }

    /// Takes a bidirectional stream that is not the session's.
    pub(crate) fn refuse(&mut self, send: SendStream, receive: RecvStream) {
        self.open.push(Box::pin(refuse(send, receive)));
    }

    /// Refuses a request beside the one that the session came with.
    pub(crate) fn reject_request(&mut self, mut send: SendStream, mut receive: RecvStream) {
        let _ = (send.reset(REQUEST_REJECTED), receive.stop(REQUEST_REJECTED));
        self.refused += 1;
    }

    /// Goes on with all of them; ready when the peer has opened too many that nobody asked for.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(Some(is_stray)) = Pin::new(&mut self.open).poll_next(context) {
            self.refused += u32::from(is_stray);
        }
        if self.refused > MAX_STRAYS { Poll::Ready(()) } else { Poll::Pending }
    }
}

async fn discard(mut stream: RecvStream) -> bool {
    match read_varint_from(&mut stream).await {
        Ok(kind) if HTTP3_STREAMS.contains(&kind) => {
            // In order, as the beginning was read: what quinn reads out of order after that, it may count twice.
            while let Ok(Some(_)) = stream.read_chunk(READ_CHUNK_BYTES, true).await {}
            return false;
        }
        // Whether it can still be stopped matters to nobody.
        Ok(UNIDIRECTIONAL_HEADER) => drop(stream.stop(STREAM_REJECTED)),
        Ok(_) | Err(_) => drop(stream.stop(UNKNOWN_STREAM)),
    }
    true
}

async fn refuse(mut send: SendStream, mut receive: RecvStream) -> bool {
    let code = match read_varint_from(&mut receive).await {
        Ok(BIDIRECTIONAL_HEADER) | Err(_) => STREAM_REJECTED,
        // One session is all that this connection serves: the client may ask again on another one.
        Ok(_) => REQUEST_REJECTED,
    };
    let _ = (send.reset(code), receive.stop(code));
    true
}
