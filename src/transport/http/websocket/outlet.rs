//! The stream below a WebSocket, which notices when a peer that reads slowly takes more.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) struct Outlet<S> {
    stream: S,
    /// It took nothing when it was written to last.
    is_full: bool,
    took_again: bool,
    /// How many bytes it took so far.
    taken: u64,
}

impl<S> Outlet<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, is_full: false, took_again: false, taken: 0 }
    }

    /// Whether it took more after it had been full, since this was asked last.
    pub(crate) fn took_again(&mut self) -> bool {
        std::mem::take(&mut self.took_again)
    }

    /// Whether it takes no more for now.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.is_full = true,
            Poll::Ready(outcome) => {
                self.took_again |= std::mem::take(&mut self.is_full);
                self.taken += outcome.as_ref().map_or(0, |bytes| *bytes as u64);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outlet<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outlet<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_stream_that_was_full_and_takes_more_has_a_peer_that_reads() {
        let (stream, mut peer) = tokio::io::duplex(8);
        let mut outlet = Outlet::new(stream);
        outlet.write_all(&[0; 8]).await.unwrap();
        assert!(!outlet.took_again(), "it was never full");
        let mut writing = pin!(outlet.write(&[0; 8]));
        assert!(writing.as_mut().now_or_never().is_none());
        peer.read_exact(&mut [0; 4]).await.unwrap();
        assert_eq!(writing.await.unwrap(), 4);
        assert_eq!((outlet.took_again(), outlet.taken()), (true, 12));
        assert!(!outlet.took_again(), "it is told once");
    }
}
