//! What a session says is to be done.

use crate::{ConnectError, ConnectionId, RequestError, Status, SubscriptionId, Target};
use skywave_protocol::{Channel, ServerFrame, codec::EncodedFrame};
use std::{borrow::Cow, time::Duration};

/// How a frame travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// In order, never lost while the connection lives.
    Reliable,
    /// May be lost, never queued behind anything. A frame too large for a datagram, and every frame
    /// on a WebSocket, goes the reliable way.
    Datagram,
}

/// What whoever drives a session knows a request of the application by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Handshakes to begin; the first one to complete is the connection.
#[derive(Debug)]
pub struct Dial {
    /// Names the attempt, and the connection that comes of it.
    pub connection: ConnectionId,
    /// Whom to try, in that order: at least one.
    pub targets: Vec<Target>,
    /// By how much the first one is ahead of the others.
    pub head_start: Duration,
    /// What one attempt may take, and getting the token.
    pub timeout: Duration,
    /// A token is to be had first.
    pub needs_token: bool,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Open a connection, and say [`Session::dialed`](crate::Session::dialed). One that was begun before and has not led to
    /// a connection is given up.
    Dial(Dial),
    /// Write out what waits there, and close it; or give up the attempt that it was to come of. It may be gone already.
    Close { connection: ConnectionId },
    /// Write this; in vain where that connection is gone.
    Send { connection: ConnectionId, frame: EncodedFrame, lane: Lane },
    /// Have a new token, and say [`Session::fetched`](crate::Session::fetched).
    FetchToken,
    /// This connection carries the session from now on; or none does.
    Carry(Option<ConnectionId>),
    /// Tell the application what the session is doing.
    Status(Status),
    /// Tell whoever looks when the token expires, in milliseconds since 1970. It is no change of what the session is doing.
    Expires(Option<u64>),
    /// Tell whoever waits for the first session what came of it.
    Opened(Result<(), ConnectError>),
    /// Tell whoever asked for another transport what came of it.
    Switched(Result<(), ConnectError>),
    /// Tell the application what came of its request, which ends with this.
    Answer { ticket: Ticket, answer: Result<ServerFrame, RequestError> },
    /// Say [`Traffic::resume`](crate::Traffic::resume) once the reader of this subscription has much room again.
    AwaitRoom { channel: Channel, id: SubscriptionId },
    /// The session is over for good; all its connections were closed.
    End { code: Option<u16>, reason: Cow<'static, str> },
}
