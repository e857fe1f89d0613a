//! One WebSocket as a session's connection.

use super::{NAME, outlet::Outlet};
use crate::{
    hub::outbox::Outbox,
    session::connection::{Connection, Flow, Incoming},
};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use skywave_protocol::{
    CloseCode, Encoding, Form, codec::split_json, form, frame::Disconnect, framing::split_frames,
    heartbeat::PathKind,
};
use std::{
    collections::VecDeque,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding},
    },
};

/// Small, because there are many of them and most are idle.
const READ_BUFFER_BYTES: usize = 1024;
const WRITE_BUFFER_BYTES: usize = 4096;
/// A message may hold several frames, up to so many times the largest frame.
const FRAMES_PER_MESSAGE: usize = 4;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct WebSocketConnection<S> {
    socket: WebSocketStream<Outlet<S>>,
    encoding: Encoding,
    address: SocketAddr,
    max_frame_bytes: usize,
    /// Frames of a message that are still to be handed over.
    received: VecDeque<Bytes>,
    /// Whether anything was written since that was last noted in the flow.
    has_written: bool,
    flow: Flow,
    /// What the peer broke of WebSocket's own rules, as it is told of that.
    fault: Option<CloseFrame>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> WebSocketConnection<S> {
    /// Takes over a stream on which the handshake is done.
    pub(crate) async fn new(
        stream: S,
        encoding: Encoding,
        address: SocketAddr,
        max_frame_bytes: usize,
    ) -> Self {
        let max_message = max_frame_bytes * FRAMES_PER_MESSAGE;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let socket = WebSocketStream::from_raw_socket(Outlet::new(stream), Role::Server, Some(config)).await;
        Self {
            socket,
            encoding,
            address,
            max_frame_bytes,
            received: VecDeque::new(),
            has_written: false,
            flow: Flow::default(),
            fault: None,
        }
    }

    fn message(&self, frame: Bytes) -> Message {
        match self.encoding {
            Encoding::MessagePack => Message::Binary(frame),
            // Our JSON is UTF-8; the check costs little beside the copy into the socket's buffer.
            Encoding::Json => Message::Text(Utf8Bytes::try_from(frame).unwrap_or_default()),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, outbox: &Outbox) -> Poll<Result<(), Error>> {
        // Registered first: what comes while we write wakes us again.
        outbox.register(context);
        ready!(Pin::new(&mut self.socket).poll_ready(context))?;
        while let Some(frame) = outbox.next() {
            ready!(self.write(context, frame))?;
        }
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// Hands a frame to the socket's buffer. Pending: it was taken, but the next one has to wait.
    fn write(&mut self, context: &mut Context<'_>, frame: Bytes) -> Poll<Result<(), Error>> {
        let message = self.message(frame);
        Pin::new(&mut self.socket).start_send(message)?;
        self.has_written = true;
        Pin::new(&mut self.socket).poll_ready(context)
    }

    fn note_flow(&mut self) {
        let now = || Some(tokio::time::Instant::now().into_std());
        let outlet = self.socket.get_mut();
        if std::mem::take(&mut self.has_written) {
            self.flow.last_sent = now();
        }
        if outlet.took_again() {
            self.flow.last_taken = now();
        }
        self.flow.taken = outlet.taken();
        self.flow.is_full = outlet.is_full();
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            if let Some(frame) = self.received.pop_front() {
                return Poll::Ready(self.encoding.read_client(&frame).into());
            }
            let incoming = match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(message)) => self.take(message),
                Some(Err(error)) => Some(self.failure(&error)),
                None => Some(Incoming::Gone),
            };
            if matches!(incoming, Some(Incoming::Gone | Incoming::Cut)) {
                // Sends the answer to the peer's close; it may be gone already, which is as well.
                let _ = Pin::new(&mut self.socket).poll_flush(context);
            }
            if let Some(incoming) = incoming {
                return Poll::Ready(incoming);
            }
        }
    }

    /// Takes a message apart; `None` when it held frames, which are then in `received`.
    fn take(&mut self, message: Message) -> Option<Incoming> {
        let frames = match message {
            Message::Text(text) if self.encoding == Encoding::Json => json_frames(&text),
            Message::Binary(bytes) => split_frames(bytes).ok(),
            Message::Ping(_) | Message::Pong(_) => return Some(Incoming::Alive),
            Message::Close(_) => return Some(Incoming::Gone),
            Message::Text(_) | Message::Frame(_) => None,
        };
        let Some(frames) = frames else { return Some(Incoming::Broken(CloseCode::BadFrame)) };
        if frames.iter().any(|frame| frame.len() > self.max_frame_bytes) {
            return Some(Incoming::Broken(CloseCode::FrameTooLarge));
        }
        self.received = frames.into();
        None
    }

    /// What a failed connection is to the session.
    fn failure(&mut self, error: &Error) -> Incoming {
        match error {
            Error::Capacity(_) => Incoming::Broken(CloseCode::FrameTooLarge),
            // No JSON, as it would be over any other transport.
            Error::Utf8(_) => Incoming::Broken(CloseCode::BadFrame),
            Error::Io(_) | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Incoming::Cut,
            Error::Protocol(ProtocolError::SendAfterClosing | ProtocolError::ReceivedAfterClosing) => {
                Incoming::Gone
            }
            Error::Protocol(fault) => {
                let reason = fault.to_string().into();
                self.fault = Some(CloseFrame { code: coding::CloseCode::Protocol, reason });
                Incoming::Broken(CloseCode::BadFrame)
            }
            _ => Incoming::Gone,
        }
    }

    async fn write_end(&mut self, outbox: &Outbox, disconnect: Disconnect) -> Result<(), Error> {
        let close = match self.fault.take() {
            // Nothing else is said to whoever does not speak WebSocket (RFC 6455, section 7.1.7).
            Some(fault) => fault,
            None => {
                while let Some(frame) = outbox.take_control() {
                    self.socket.feed(self.message(frame)).await?;
                }
                let Disconnect { code, reason, .. } = disconnect;
                CloseFrame { code: code.into(), reason: reason.into_owned().into() }
            }
        };
        self.socket.send(Message::Close(Some(close))).await?;
        // The peer's answer. With it, it waits for us to end the connection (RFC 6455, section 7.1.1).
        while let Some(Ok(_)) = self.socket.next().await {}
        let stream = self.socket.get_mut();
        stream.shutdown().await?;
        // Whatever is still on its way: a socket that is closed with bytes unread sends a reset, which could overtake
        // what was just sent.
        tokio::io::copy(stream, &mut tokio::io::sink()).await?;
        Ok(())
    }
}

fn json_frames(text: &Utf8Bytes) -> Option<Vec<Bytes>> {
    let bytes: &Bytes = text.as_ref();
    let frames = split_json(text).ok()?;
    Some(frames.into_iter().map(|frame| bytes.slice_ref(frame.get().as_bytes())).collect())
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for WebSocketConnection<S> {
    fn transport(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> PathKind {
        PathKind::Tcp
    }

    fn form(&self) -> &'static Form {
        match self.encoding {
            Encoding::Json => &form::JSON_TEXT,
            Encoding::MessagePack => &form::MESSAGE_PACK,
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn flow(&self) -> Flow {
        self.flow
    }

    async fn drive(&mut self, outbox: &Outbox) -> Incoming {
        poll_fn(|context| {
            let written = self.poll_write(context, outbox);
            self.note_flow();
            if let Poll::Ready(Err(error)) = written {
                return Poll::Ready(self.failure(&error));
            }
            if !outbox.takes_requests() {
                return Poll::Pending;
            }
            self.poll_read(context)
        })
        .await
    }

    async fn close(mut self, outbox: &Outbox, disconnect: Disconnect) {
        match tokio::time::timeout(CLOSE_TIMEOUT, self.write_end(outbox, disconnect)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(address = %self.address, %error, "the peer did not wait"),
            Err(_) => {
                tracing::debug!(address = %self.address, "the peer did not end its side of the connection")
            }
        }
    }
}
