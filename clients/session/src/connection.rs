//! One connection, as far as it is known here: how frames are written there.

use crate::RequestError;
use skywave_protocol::{ClientFrame, Encoding, ErrorCode, codec::EncodedFrame};

/// Names a connection among all that a client has in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A connection, and what its node takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) encoding: Encoding,
    /// The largest frame in bytes; 0: of any size.
    pub(crate) frame_limit: u64,
    /// Whether its path is one that a NAT may forget while nothing is sent.
    pub(crate) over_udp: bool,
}

impl Connection {
    /// # Errors
    /// `bad_request` when it is larger than the node takes: it would end the session.
    pub(crate) fn encode(&self, frame: &ClientFrame) -> Result<EncodedFrame, RequestError> {
        let encoded = self
            .encoding
            .encode(frame)
            .map_err(|error| RequestError::local(ErrorCode::BadRequest, error.to_string()))?;
        let length = encoded.bare().len() as u64;
        if self.frame_limit > 0 && length > self.frame_limit {
            let message = format!("frame of {length} bytes, at most {} allowed", self.frame_limit);
            return Err(RequestError::local(ErrorCode::BadRequest, message));
        }
        Ok(encoded)
    }
}
