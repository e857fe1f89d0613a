//! What a session says is to be done.

use crate::{ConnectionId, RequestError, SubscriptionId};
use skywave_protocol::{Channel, ServerFrame, codec::EncodedFrame};

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

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Write this; in vain where that connection is gone.
    Send { connection: ConnectionId, frame: EncodedFrame, lane: Lane },
    /// Tell the application what came of its request, which ends with this.
    Answer { ticket: Ticket, answer: Result<ServerFrame, RequestError> },
    /// Nothing came there in time: give it up.
    Dead { connection: ConnectionId },
    /// Open another connection beside the one that is silent, and keep whichever says something first.
    SeekAnother,
    /// Say [`Traffic::resume`](crate::Traffic::resume) once the reader of this subscription has much room again.
    AwaitRoom { channel: Channel, id: SubscriptionId },
}
