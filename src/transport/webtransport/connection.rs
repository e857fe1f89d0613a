//! One WebTransport session as a session's connection: control stream, a stream per channel, datagrams.

use super::{
    SEND_RESERVE, SEND_WINDOW,
    capsules::Capsules,
    handshake::{Established, HEADERS_FRAME, close_capsule},
    parameters::peer_idle_timeout,
    strays::{BIDIRECTIONAL_HEADER, Strays, UNIDIRECTIONAL_HEADER},
    streams::{poll_read, poll_write, write_varint},
};
use crate::{
    hub::outbox::{LANE_TURN, LaneId, Outbox},
    session::connection::{Connection, Incoming},
    transport::canonical,
};
use bytes::{Buf, Bytes, BytesMut};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt, WriteError};
use skywave_protocol::{
    CloseCode, Encoding, Form, form,
    frame::Disconnect,
    framing::{FrameBuffer, read_varint, without_prefix},
    heartbeat::PathKind,
};
use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

/// `H3_NO_ERROR`
const NO_ERROR: VarInt = VarInt::from_u32(0x0100);
const CONTROL_PRIORITY: i32 = 1;
const READ_CHUNK_BYTES: usize = 16 * 1024;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The part of it that the control stream may take.
const LAST_FRAMES_TIMEOUT: Duration = Duration::from_millis(500);

pub struct WebTransportConnection {
    quic: quinn::Connection,
    address: SocketAddr,
    streams: Streams,
}

/// The session's streams, and what is under way on them.
struct Streams {
    /// The id of the request's stream; a quarter of it begins each datagram.
    session_id: u64,
    encoding: Encoding,
    _settings: SendStream,
    session_send: SendStream,
    session_receive: RecvStream,
    capsules: Capsules,
    control: Option<Control>,
    received: FrameBuffer,
    max_frame_bytes: usize,
    strays: Strays,
    /// What the control stream still has to write of a frame.
    unwritten: Bytes,
    lanes: Vec<Option<LaneStream>>,
    /// Lanes whose stream takes no more for now; whoever had least of late is first.
    blocked: Vec<LaneId>,
    /// Whether anything was written since [`Self::last_sent`] was set.
    has_written: bool,
    last_sent: Option<Instant>,
    last_taken: Option<Instant>,
}

/// The stream for requests and replies, opened by the client.
struct Control {
    send: SendStream,
    receive: RecvStream,
    /// Of the stream's header, as long as it is incomplete.
    header: Option<BytesMut>,
    /// See [`LaneStream`].
    tried_reserve: bool,
}

/// A channel's stream.
struct LaneStream {
    carrier: Carrier,
    /// The frame that is being written, whole, and what the stream has yet to take of it.
    frame: Bytes,
    unwritten: Bytes,
    /// Whether this frame was offered to the reserve. Once is enough: the stream itself may be what blocks it.
    tried_reserve: bool,
    /// Whether the stream took anything when it was written to last.
    has_moved: bool,
}

enum Carrier {
    Stream(SendStream),
    /// The peer grants no stream: publications ride the control stream, from the first on.
    Control,
}

impl WebTransportConnection {
    pub fn new(quic: quinn::Connection, established: Established, max_frame_bytes: usize) -> Self {
        Self {
            address: canonical(quic.remote_address()),
            quic,
            streams: Streams::new(established, max_frame_bytes),
        }
    }
}

impl Streams {
    fn new(established: Established, max_frame_bytes: usize) -> Self {
        Self {
            session_id: VarInt::from(established.session_send.id()).into_inner(),
            encoding: established.encoding,
            _settings: established.settings,
            session_send: established.session_send,
            session_receive: established.session_receive,
            capsules: Capsules::default(),
            control: None,
            received: FrameBuffer::new(max_frame_bytes),
            max_frame_bytes,
            strays: Strays::default(),
            unwritten: Bytes::new(),
            lanes: Vec::new(),
            blocked: Vec::new(),
            has_written: false,
            last_sent: None,
            last_taken: None,
        }
    }

    // ---- reading ----

    /// The next frame of the control stream. Ready only when there is one, or the stream is at fault.
    fn poll_control(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        let Some(control) = &mut self.control else { return Poll::Pending };
        loop {
            if control.header.is_none() {
                match self.received.next_frame() {
                    Ok(Some(frame)) => return Poll::Ready(self.encoding.read_client(&frame).into()),
                    Ok(None) => {}
                    Err(_) => return Poll::Ready(Incoming::Broken(CloseCode::FrameTooLarge)),
                }
            }
            let chunk = match ready!(poll_read(&mut control.receive, context, READ_CHUNK_BYTES)) {
                Ok(Some(chunk)) => chunk,
                // The control stream is the session: without it nothing can be asked any more.
                Ok(None) | Err(_) => return Poll::Ready(Incoming::Gone),
            };
            match &mut control.header {
                None => self.received.extend(&chunk),
                Some(header) => {
                    header.extend_from_slice(&chunk);
                    match strip_header(header, self.session_id) {
                        Ok(true) => {
                            self.received.extend(header);
                            control.header = None;
                        }
                        Ok(false) => {}
                        Err(HEADERS_FRAME) => {
                            if let Some(Control { send, receive, .. }) = self.control.take() {
                                self.strays.reject_request(send, receive);
                            }
                            return Poll::Pending;
                        }
                        Err(_) => return Poll::Ready(Incoming::Broken(CloseCode::BadFrame)),
                    }
                }
            }
        }
    }

    /// The first stream that the client opens is the control stream; any other is refused.
    fn take_stream(&mut self, send: SendStream, receive: RecvStream) {
        if self.control.is_none() {
            // It fails only on a stream that the peer stopped already, which shows when it is written to.
            let _ = send.set_priority(CONTROL_PRIORITY);
            let header = Some(BytesMut::new());
            self.control = Some(Control { send, receive, header, tried_reserve: false });
        } else {
            self.strays.refuse(send, receive);
        }
    }

    /// Ready when the client ended the session: its request stream is over, or says so.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        while let Ok(Some(chunk)) = ready!(poll_read(&mut self.session_receive, context, READ_CHUNK_BYTES)) {
            if self.capsules.close(&chunk) {
                break;
            }
        }
        Poll::Ready(Incoming::Gone)
    }

    /// The frame in a datagram; `None` for one of no session.
    fn take_datagram(&self, mut datagram: Bytes) -> Option<Incoming> {
        let (quarter, prefix) = read_varint(&datagram)?;
        if quarter != self.session_id / 4 {
            return None;
        }
        datagram.advance(prefix);
        if datagram.len() > self.max_frame_bytes {
            return Some(Incoming::Broken(CloseCode::FrameTooLarge));
        }
        Some(self.encoding.read_client(&datagram).into())
    }

    // ---- writing ----

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        quic: &quinn::Connection,
        outbox: &Outbox,
    ) -> Poll<Incoming> {
        // Registered first: what comes while we write wakes us again.
        outbox.register(context);
        while let Some(id) = outbox.take_closed_lane() {
            self.close_lane(id);
        }
        if let Some(frame) = outbox.take_latest()
            && !self.send_datagram(quic, &frame)
        {
            outbox.divert(frame);
        }
        while let Some(event) = outbox.take_event() {
            if !self.send_datagram(quic, &event) && !outbox.is_clogged() {
                outbox.divert(event);
            }
        }
        let waited = self.unwritten.len();
        if self.flush_control(context, quic, outbox).is_err() {
            return Poll::Ready(Incoming::Gone);
        }
        let mut has_taken = waited > 0 && self.unwritten.len() != waited;
        for id in std::mem::take(&mut self.blocked) {
            if self.write_lane(context, quic, outbox, id).is_err() {
                return Poll::Ready(Incoming::Gone);
            }
            has_taken |= self.lanes[id].as_ref().is_some_and(|lane| lane.has_moved);
        }
        if has_taken {
            self.last_taken = Some(tokio::time::Instant::now().into_std());
        }
        while let Some(id) = outbox.ready_lane() {
            if self.write_lane(context, quic, outbox, id).is_err() {
                return Poll::Ready(Incoming::Gone);
            }
        }
        if std::mem::take(&mut self.has_written) {
            self.last_sent = Some(tokio::time::Instant::now().into_std());
        }
        // Whatever becomes free of the window goes to the others first.
        let lanes = &self.lanes;
        self.blocked.sort_by_key(|id| lanes[*id].as_ref().is_some_and(|lane| lane.has_moved));
        Poll::Pending
    }

    /// Sends a frame as a datagram, unless it is too large for one.
    fn send_datagram(&self, quic: &quinn::Connection, frame: &Bytes) -> bool {
        let frame = without_prefix(frame.clone());
        let mut datagram = Vec::with_capacity(frame.len() + 8);
        write_varint(self.session_id / 4, &mut datagram);
        datagram.extend_from_slice(&frame);
        quic.send_datagram(datagram.into()).is_ok()
    }

    fn flush_control(
        &mut self,
        context: &mut Context<'_>,
        quic: &quinn::Connection,
        outbox: &Outbox,
    ) -> Result<(), WriteError> {
        let Some(control) = &mut self.control else { return Ok(()) };
        loop {
            let mut written = poll_write(&mut control.send, context, &mut self.unwritten);
            if written.is_pending() && !std::mem::replace(&mut control.tried_reserve, true) {
                written = with_reserve(quic, || poll_write(&mut control.send, context, &mut self.unwritten));
            }
            match written {
                Poll::Ready(written) => written?,
                Poll::Pending => return Ok(()),
            }
            match outbox.take_control() {
                Some(frame) => self.unwritten = frame,
                None => return Ok(()),
            }
            self.has_written = true;
            control.tried_reserve = false;
        }
    }

    /// Writes what a lane has until it is empty, its stream is blocked, or its turn is over.
    fn write_lane(
        &mut self,
        context: &mut Context<'_>,
        quic: &quinn::Connection,
        outbox: &Outbox,
        id: LaneId,
    ) -> Result<(), WriteError> {
        if self.lanes.len() <= id {
            self.lanes.resize_with(id + 1, || None);
        }
        if let Some(lane) = &mut self.lanes[id] {
            lane.has_moved = false;
        }
        for turn in 0.. {
            let waits = self.lanes[id].as_ref().is_some_and(|lane| !lane.unwritten.is_empty());
            if !waits {
                if turn >= LANE_TURN {
                    outbox.put_back(id);
                    return Ok(());
                }
                let Some(frame) = outbox.take(id) else { return Ok(()) };
                self.queue(context, quic, outbox, id, frame);
            }
            let mut written = self.poll_lane(context, quic, outbox, id)?;
            if written.is_pending() && !outbox.has_backlog(id) && self.may_try_reserve(id) {
                written = with_reserve(quic, || self.poll_lane(context, quic, outbox, id))?;
            }
            if written.is_pending() {
                if let Some(lane) = &mut self.lanes[id] {
                    lane.has_moved |= turn > 0;
                }
                self.blocked.push(id);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a lane's frame has yet to be offered to the reserve; from now on it has been.
    fn may_try_reserve(&mut self, id: LaneId) -> bool {
        self.lanes[id].as_mut().is_some_and(|lane| !std::mem::replace(&mut lane.tried_reserve, true))
    }

    /// Puts a frame next on the lane, on a stream that is opened for its first one.
    fn queue(
        &mut self,
        context: &mut Context<'_>,
        quic: &quinn::Connection,
        outbox: &Outbox,
        id: LaneId,
        frame: Bytes,
    ) {
        self.has_written = true;
        if let Some(lane) = &mut self.lanes[id] {
            lane.frame = frame.clone();
            lane.unwritten = frame;
            lane.tried_reserve = false;
            return;
        }
        // Asked once, not awaited: while a publication is due nobody waits for stream credit.
        let opened = pin!(quic.open_uni()).poll(context);
        let (carrier, unwritten) = match opened {
            Poll::Ready(Ok(stream)) => {
                let opening = outbox.opening(id).unwrap_or_default();
                let mut first = Vec::with_capacity(opening.len() + frame.len() + 16);
                write_varint(UNIDIRECTIONAL_HEADER, &mut first);
                write_varint(self.session_id, &mut first);
                first.extend_from_slice(&opening);
                first.extend_from_slice(&frame);
                (Carrier::Stream(stream), first.into())
            }
            Poll::Ready(Err(_)) | Poll::Pending => (Carrier::Control, frame.clone()),
        };
        let lane = LaneStream { carrier, frame, unwritten, tried_reserve: false, has_moved: false };
        self.lanes[id] = Some(lane);
    }

    fn poll_lane(
        &mut self,
        context: &mut Context<'_>,
        quic: &quinn::Connection,
        outbox: &Outbox,
        id: LaneId,
    ) -> Result<Poll<()>, WriteError> {
        let Some(lane) = &mut self.lanes[id] else { return Ok(Poll::Ready(())) };
        if let Carrier::Stream(stream) = &mut lane.carrier {
            let before = lane.unwritten.len();
            let written = poll_write(stream, context, &mut lane.unwritten);
            lane.has_moved |= lane.unwritten.len() < before;
            match written {
                Poll::Ready(Err(WriteError::Stopped(_))) => {
                    // The peer does not want this stream: this frame and what follows come on the control stream.
                    lane.carrier = Carrier::Control;
                    lane.unwritten = lane.frame.clone();
                }
                Poll::Ready(written) => {
                    lane.frame = Bytes::new();
                    return written.map(Poll::Ready);
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        // What was queued for it comes first: order says there to which subscription a frame belongs.
        self.flush_control(context, quic, outbox)?;
        let (Some(control), Some(lane)) = (&mut self.control, &mut self.lanes[id]) else {
            return Ok(Poll::Pending);
        };
        if !self.unwritten.is_empty() {
            return Ok(Poll::Pending);
        }
        self.unwritten = std::mem::take(&mut lane.unwritten);
        lane.frame = Bytes::new();
        let _ = poll_write(&mut control.send, context, &mut self.unwritten)?;
        Ok(Poll::Ready(()))
    }

    fn close_lane(&mut self, id: LaneId) {
        self.blocked.retain(|blocked| *blocked != id);
        let Some(lane) = self.lanes.get_mut(id).and_then(Option::take) else { return };
        if let Carrier::Stream(mut stream) = lane.carrier {
            // Nobody waits for what is left of the subscription, which would only hold up the next one. It fails only on
            // a stream that the peer stopped already.
            let _ = stream.reset(NO_ERROR);
        }
    }

    // ---- ending ----

    async fn write_end(&mut self, outbox: &Outbox, disconnect: &Disconnect) -> Result<(), WriteError> {
        // The code is for the request's stream as well, so a peer that does not read the control stream, or has
        // stopped it, learns of it all the same. It goes second: with it the session is over for the peer.
        let last_frames = self.write_last_frames(outbox);
        let told = tokio::time::timeout(LAST_FRAMES_TIMEOUT, last_frames).await;
        let capsule = close_capsule(u32::from(disconnect.code), &disconnect.reason);
        self.session_send.write_all(&capsule).await?;
        let _ = self.session_send.finish();
        if let (Some(control), Ok(Ok(()))) = (&mut self.control, told) {
            let _ = control.send.stopped().await;
        }
        let _ = self.session_send.stopped().await;
        // What was acknowledged has not been read yet: whoever has read the capsule ends the request's stream in
        // turn (draft-ietf-webtrans-http3, section 6). QUIC's close before that would hide the code.
        poll_fn(|context| self.poll_end(context)).await;
        Ok(())
    }

    async fn write_last_frames(&mut self, outbox: &Outbox) -> Result<(), WriteError> {
        let Some(control) = &mut self.control else { return Ok(()) };
        control.send.write_chunk(std::mem::take(&mut self.unwritten)).await?;
        while let Some(frame) = outbox.take_control() {
            control.send.write_chunk(frame).await?;
        }
        let _ = control.send.finish();
        Ok(())
    }
}

/// Writes into the part of the send window that lanes with a backlog leave alone, so that what they have not got
/// through yet holds up no other lane, and no answer.
fn with_reserve<T>(quic: &quinn::Connection, write: impl FnOnce() -> T) -> T {
    quic.set_send_window(SEND_WINDOW + SEND_RESERVE);
    let written = write();
    quic.set_send_window(SEND_WINDOW);
    written
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

impl Connection for WebTransportConnection {
    fn transport(&self) -> &'static str {
        "webtransport"
    }

    fn path(&self) -> PathKind {
        PathKind::Udp
    }

    fn form(&self) -> &'static Form {
        match self.streams.encoding {
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

    fn last_sent(&self) -> Option<Instant> {
        self.streams.last_sent
    }

    fn last_taken(&self) -> Option<Instant> {
        self.streams.last_taken
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
                    if let Poll::Ready(incoming) = streams.poll_send(context, quic, outbox) {
                        return Poll::Ready(incoming);
                    }
                    if streams.strays.poll(context).is_ready() {
                        return Poll::Ready(Incoming::Broken(CloseCode::BadFrame));
                    }
                    if !outbox.takes_requests() {
                        return Poll::Pending;
                    }
                    if let Poll::Ready(incoming) = streams.poll_control(context) {
                        return Poll::Ready(incoming);
                    }
                    streams.poll_end(context)
                }) => Some(incoming),
                datagram = quic.read_datagram() => match datagram {
                    Ok(datagram) if outbox.takes_requests() => streams.take_datagram(datagram),
                    // Whoever reads no answers asks for no more, in whatever way. A datagram may be lost.
                    Ok(_) => Some(Incoming::Alive),
                    Err(_) => Some(Incoming::Gone),
                },
                stream = quic.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        streams.take_stream(send, receive);
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
        let ended =
            tokio::time::timeout(CLOSE_TIMEOUT, self.streams.write_end(outbox, &disconnect)).await;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(address = %self.address, %error, "the peer did not wait"),
            Err(_) => tracing::debug!(address = %self.address, "the peer did not take the close"),
        }
        self.quic.close(NO_ERROR, b"");
    }
}
