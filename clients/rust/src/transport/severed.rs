//! A TCP stream that can be cut so that the peer hears nothing, as when a network vanishes.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::sleep,
};

/// How long a cut socket is kept open without a word; after that its end becomes visible.
const SILENCE: Duration = Duration::from_secs(120);

/// Cuts its stream, from anywhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Knife(Arc<Cut>);

#[derive(Debug, Default)]
struct Cut {
    done: AtomicBool,
    told: Notify,
}

impl Knife {
    pub(crate) fn cut(&self) {
        self.0.done.store(true, Ordering::Release);
        self.0.told.notify_one();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.done.load(Ordering::Acquire)
    }

    /// Completes once the stream is cut. For one waiter.
    pub(crate) async fn wait(&self) {
        while !self.is_cut() {
            self.0.told.notified().await;
        }
    }
}

/// The stream: after the cut it fails here and stays silent there.
#[derive(Debug)]
pub(super) struct Severable {
    stream: Option<TcpStream>,
    knife: Knife,
}

impl Severable {
    pub(crate) fn new(stream: TcpStream, knife: Knife) -> Self {
        Self { stream: Some(stream), knife }
    }

    fn open(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.stream {
            Some(stream) if !self.knife.is_cut() => Ok(Pin::new(stream)),
            _ => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut")),
        }
    }
}

impl Drop for Severable {
    fn drop(&mut self) {
        // Closing the socket would tell the peer, so it outlives this stream for a while.
        if let (Some(stream), true, Ok(runtime)) =
            (self.stream.take(), self.knife.is_cut(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                sleep(SILENCE).await;
                drop(stream);
            });
        }
    }
}

impl AsyncRead for Severable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.open()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Severable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open()?.poll_shutdown(context)
    }
}
