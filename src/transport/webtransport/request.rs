//! The stream of the request that a session came with: its id names the session, and its end is the session's.

use super::{
    capsules::Capsules,
    handshake::close_capsule,
    streams::{READ_CHUNK_BYTES, poll_read},
};
use quinn::{RecvStream, SendStream, VarInt, WriteError};
use skywave_protocol::frame::Disconnect;
use std::task::{Context, Poll, ready};

pub(crate) struct RequestStream {
    send: SendStream,
    receive: RecvStream,
    capsules: Capsules,
}

impl RequestStream {
    pub(crate) fn new(send: SendStream, receive: RecvStream) -> Self {
        Self { send, receive, capsules: Capsules::default() }
    }

    /// The session's id.
    pub(crate) fn id(&self) -> u64 {
        VarInt::from(self.send.id()).into_inner()
    }

    /// Ready when the client ended the session: the stream is over, or says so.
    pub(crate) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Ok(Some(chunk)) = ready!(poll_read(&mut self.receive, context, READ_CHUNK_BYTES)) {
            if self.capsules.close(&chunk) {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Ends the session with a code.
    ///
    /// # Errors
    /// When the peer does not read it.
    pub(crate) async fn close(&mut self, disconnect: &Disconnect) -> Result<(), WriteError> {
        let capsule = close_capsule(u32::from(disconnect.code), &disconnect.reason);
        self.send.write_all(&capsule).await?;
        let _ = self.send.finish();
        Ok(())
    }

    /// Waits until the peer has all of it, or takes no more.
    pub(crate) async fn is_taken(&self) {
        let _ = self.send.stopped().await;
    }
}
