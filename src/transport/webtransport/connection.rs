//! One WebTransport session as a session's connection: control stream, a stream per channel, datagrams.

use super::{
    NAME,
    control::ControlStream,
    datagrams::Datagrams,
    handshake::Established,
    lanes::Lanes,
    parameters::peer_idle_timeout,
    request::RequestStream,
    strays::Strays,
    streams::{NO_ERROR, Writing},
};
use crate::{
    hub::outbox::Outbox,
    session::connection::{Connection, Flow, Incoming},
    transport::canonical,
};
use bytes::Bytes;
use quinn::{ConnectionError, SendStream, WriteError};
use skywave_protocol::{CloseCode, Encoding, Form, form, frame::Disconnect, heartbeat::PathKind};
use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The part of it that the control stream may take.
const LAST_FRAMES_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) struct WebTransportConnection {
    quic: quinn::Connection,
    encoding: Encoding,
    address: SocketAddr,
    streams: Streams,
}

/// What travels on the connection.
struct Streams {
    _settings: SendStream,
    request: RequestStream,
    control: ControlStream,
    lanes: Lanes,
    datagrams: Datagrams,
    strays: Strays,
    flow: Flow,
}

impl WebTransportConnection {
    pub(crate) fn new(quic: quinn::Connection, established: Established, max_frame_bytes: usize) -> Self {
        Self {
            address: canonical(quic.remote_address()),
            quic,
            encoding: established.encoding,
            streams: Streams::new(established, max_frame_bytes),
        }
    }
}

impl Streams {
    fn new(established: Established, max_frame_bytes: usize) -> Self {
        let Established { settings, session_send, session_receive, encoding } = established;
        let request = RequestStream::new(session_send, session_receive);
        let id = request.id();
        Self {
            _settings: settings,
            request,
            control: ControlStream::new(id, encoding, max_frame_bytes),
            lanes: Lanes::new(id),
            datagrams: Datagrams::new(id, encoding, max_frame_bytes),
            strays: Strays::default(),
            flow: Flow::default(),
        }
    }

    /// Goes on with all that is due; ready when that brought something.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        quic: &quinn::Connection,
        outbox: &Outbox,
    ) -> Poll<Incoming> {
        if self.write(context, quic, outbox).is_err() {
            return Poll::Ready(Incoming::Gone);
        }
        if self.strays.poll(context).is_ready() {
            return Poll::Ready(Incoming::Broken(CloseCode::BadFrame));
        }
        if !outbox.takes_requests() {
            return Poll::Pending;
        }
        if let Poll::Ready(incoming) = self.control.poll_frame(context, &mut self.strays) {
            return Poll::Ready(incoming);
        }
        self.request.poll_end(context).map(|()| Incoming::Gone)
    }

    /// Writes what the outbox has, as far as the peer takes it.
    fn write(
        &mut self,
        context: &mut Context<'_>,
        quic: &quinn::Connection,
        outbox: &Outbox,
    ) -> Result<(), WriteError> {
        // Registered first: what comes while we write wakes us again.
        outbox.register(context);
        while let Some(id) = outbox.take_closed_lane() {
            self.lanes.close(id);
        }
        self.datagrams.write(quic, outbox);
        let mut writing = Writing { context, quic, outbox, has_written: false, has_taken: false, taken: 0 };
        let waited = self.control.unwritten();
        self.control.flush(&mut writing)?;
        writing.has_taken = waited > 0 && self.control.unwritten() != waited;
        self.lanes.write(&mut writing, &mut self.control)?;
        let now = || Some(tokio::time::Instant::now().into_std());
        if writing.has_taken {
            self.flow.last_taken = now();
        }
        if writing.has_written {
            self.flow.last_sent = now();
        }
        self.flow.taken += writing.taken;
        self.flow.is_full = self.control.unwritten() > 0 || self.lanes.are_blocked();
        Ok(())
    }

    async fn end(&mut self, outbox: &Outbox, disconnect: &Disconnect) -> Result<(), WriteError> {
        // The code goes on the request's stream as well. So a peer that does not read the control stream, or has
        // stopped it, learns of it all the same. It goes second: with it the session is over for the peer.
        let told = tokio::time::timeout(LAST_FRAMES_TIMEOUT, self.control.finish(outbox)).await;
        self.request.close(disconnect).await?;
        if let Ok(Ok(())) = told {
            self.control.is_taken().await;
        }
        self.request.is_taken().await;
        // What was acknowledged has not been read yet: whoever has read the capsule ends the request's stream in
        // turn (draft-ietf-webtrans-http3, section 6). QUIC's close before that would hide the code.
        poll_fn(|context| self.request.poll_end(context)).await;
        Ok(())
    }
}

/// The next datagram, while there is room for an answer. Those that nobody takes QUIC drops, the oldest first.
async fn next_datagram(quic: &quinn::Connection, outbox: &Outbox) -> Result<Bytes, ConnectionError> {
    let mut reading = pin!(quic.read_datagram());
    // Whoever takes answers wakes this task, which then looks again.
    poll_fn(|context| if outbox.takes_requests() { reading.as_mut().poll(context) } else { Poll::Pending })
        .await
}

impl Connection for WebTransportConnection {
    fn transport(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> PathKind {
        PathKind::Udp
    }

    fn form(&self) -> &'static Form {
        match self.encoding {
            Encoding::Json => &form::JSON,
            Encoding::MessagePack => &form::MESSAGE_PACK,
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn rtt(&self) -> Option<Duration> {
        Some(self.quic.rtt())
    }

    fn idle_timeout(&self) -> Option<Duration> {
        peer_idle_timeout(&self.quic)
    }

    fn flow(&self) -> Flow {
        self.streams.flow
    }

    async fn drive(&mut self, outbox: &Outbox) -> Incoming {
        loop {
            let Self { quic, streams, address, .. } = self;
            let incoming = tokio::select! {
                biased;
                incoming = poll_fn(|context| {
                    // Looked at whenever there is anything to do, since nobody is woken for it.
                    let now_at = canonical(quic.remote_address());
                    if *address != now_at {
                        *address = now_at;
                        return Poll::Ready(Incoming::Moved(now_at));
                    }
                    streams.poll(context, quic, outbox)
                }) => Some(incoming),
                datagram = next_datagram(quic, outbox) => match datagram {
                    Ok(datagram) => streams.datagrams.read(&datagram),
                    Err(_) => Some(Incoming::Gone),
                },
                stream = quic.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        streams.control.take(send, receive, &mut streams.strays);
                        None
                    }
                    Err(_) => Some(Incoming::Gone),
                },
                stream = quic.accept_uni() => match stream {
                    Ok(stream) => {
                        streams.strays.take(stream);
                        None
                    }
                    Err(_) => Some(Incoming::Gone),
                },
            };
            match incoming {
                // Nobody said a word: the path did not survive a pause that QUIC allows.
                Some(Incoming::Gone) if self.quic.close_reason() == Some(ConnectionError::TimedOut) => {
                    return Incoming::Cut;
                }
                Some(incoming) => return incoming,
                None => {}
            }
        }
    }

    async fn close(mut self, outbox: &Outbox, disconnect: Disconnect) {
        match tokio::time::timeout(CLOSE_TIMEOUT, self.streams.end(outbox, &disconnect)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(address = %self.address, %error, "the peer did not wait"),
            Err(_) => tracing::debug!(address = %self.address, "the peer did not take the close"),
        }
        self.quic.close(NO_ERROR, b"");
    }
}
