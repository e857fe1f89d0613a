//! What a transport gives to a session: frames in, frames out of its outbox, and an end with a code.

use crate::hub::outbox::Outbox;
use skywave_protocol::{
    ClientFrame, CloseCode, Form, codec::Unreadable, frame::Disconnect, heartbeat::PathKind,
};
use std::{
    future::Future,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// What came from the peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    Frame(ClientFrame),
    /// What cannot be read as a frame.
    Unreadable(Unreadable),
    /// A sign of life that is no frame.
    Alive,
    /// The peer goes on from another address.
    Moved(SocketAddr),
    /// The peer broke the transport's rules; the session ends with this code.
    Broken(CloseCode),
    /// The peer ended the transport, or had gone already.
    Gone,
    /// The transport broke without a word from the peer: something on the path may have closed it.
    Cut,
}

/// How what is written leaves for the peer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    /// When something was last written that the transport delivers reliably.
    pub last_sent: Option<Instant>,
    /// When the transport last took more after it had been full: then the peer reads, slowly.
    pub last_taken: Option<Instant>,
    /// How many bytes it took so far.
    pub taken: u64,
    /// Whether it takes no more for now.
    pub is_full: bool,
}

/// A transport that was established and on which a session may run.
pub trait Connection: Send {
    /// Its name in metrics, logs and the API.
    fn transport(&self) -> &'static str;
    fn path(&self) -> PathKind;
    /// How frames are written and framed for it.
    fn form(&self) -> &'static Form;
    fn address(&self) -> SocketAddr;
    /// The path's round-trip time, where the transport measures it.
    fn rtt(&self) -> Option<Duration> {
        None
    }

    /// After how long the peer itself gives the transport up when nothing comes, where it says so.
    fn idle_timeout(&self) -> Option<Duration> {
        None
    }

    /// How far the peer takes what is written.
    fn flow(&self) -> Flow;

    /// Writes what the outbox has, as fast as the peer takes it, and waits for what comes in. May be dropped and called
    /// again at any time without loss. While the outbox [takes no requests](Outbox::takes_requests) nothing is read.
    fn drive(&mut self, outbox: &Outbox) -> impl Future<Output = Incoming> + Send;

    /// Writes what is left on the control lane, of which `disconnect` is the last frame already, and closes the
    /// transport with the same code. Takes a second at most, whatever the peer does.
    fn close(self, outbox: &Outbox, disconnect: Disconnect) -> impl Future<Output = ()> + Send;
}

impl From<Result<ClientFrame, Unreadable>> for Incoming {
    fn from(read: Result<ClientFrame, Unreadable>) -> Self {
        read.map_or_else(Self::Unreadable, Self::Frame)
    }
}
