//! A frame for many receivers, encoded at most once per encoding.

use serde::Serialize;
use skywave_protocol::{
    Encoding, ErrorCode, ServerFrame,
    codec::EncodedFrame,
    frame::{self, Error},
};
use std::sync::{Arc, OnceLock};

/// A publication on its way to its subscribers.
pub type Publication = Broadcast<frame::Publication>;
/// An event on its way to its subscribers.
pub type Event = Broadcast<frame::Event>;
/// A change of presence on its way to those who asked.
pub type PresenceChanged = Broadcast<frame::PresenceChanged>;

/// A frame and its encoded forms, shared by reference.
#[derive(Debug)]
pub struct Broadcast<F> {
    frame: F,
    json: OnceLock<EncodedFrame>,
    msgpack: OnceLock<EncodedFrame>,
}

/// A frame's fields together with its name on the wire.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Named<'a, F> {
    Publication(&'a F),
    Event(&'a F),
    PresenceChanged(&'a F),
}

/// A frame that is sent to many.
pub trait Broadcastable: Serialize + Sized {
    fn encode(&self, encoding: Encoding) -> EncodedFrame;
}

impl Broadcastable for frame::Publication {
    fn encode(&self, encoding: Encoding) -> EncodedFrame {
        encode(&Named::Publication(self), encoding)
    }
}

impl Broadcastable for frame::Event {
    fn encode(&self, encoding: Encoding) -> EncodedFrame {
        encode(&Named::Event(self), encoding)
    }
}

impl Broadcastable for frame::PresenceChanged {
    fn encode(&self, encoding: Encoding) -> EncodedFrame {
        encode(&Named::PresenceChanged(self), encoding)
    }
}

impl<F: Broadcastable> Broadcast<F> {
    pub fn new(frame: F) -> Arc<Self> {
        Arc::new(Self { frame, json: OnceLock::new(), msgpack: OnceLock::new() })
    }

    pub fn frame(&self) -> &F {
        &self.frame
    }

    /// The encoded frame; the first caller pays for it, all share it.
    pub fn encoded(&self, encoding: Encoding) -> &EncodedFrame {
        let form = match encoding {
            Encoding::Json => &self.json,
            Encoding::MessagePack => &self.msgpack,
        };
        form.get_or_init(|| self.frame.encode(encoding))
    }
}

/// Encodes a frame for one receiver.
pub fn encode_frame(frame: &ServerFrame, encoding: Encoding) -> EncodedFrame {
    encode(frame, encoding)
}

/// As [`encode_frame`], for a frame of another type.
pub fn encode<T: Serialize>(frame: &T, encoding: Encoding) -> EncodedFrame {
    encoding.encode(frame).unwrap_or_else(|error| {
        // Our own frames always encode; should one not, its receiver is told rather than left waiting.
        tracing::error!(%error, "a frame could not be encoded");
        let told = ServerFrame::Error(Error::new(None, ErrorCode::Internal, "a frame could not be encoded"));
        encoding.encode(&told).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::{Channel, Json, Text};

    #[test]
    fn a_broadcast_reads_like_the_frame_and_is_encoded_once() {
        let publication = frame::Publication {
            channel: Channel::new("chat:1").unwrap(),
            origin: Text::new("eu").unwrap(),
            epoch: Text::new("e").unwrap(),
            offset: 1,
            time_ms: 2,
            key: None,
            user: None,
            data: Json::parse("[1]").unwrap().into(),
        };
        let broadcast = Broadcast::new(publication.clone());
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let bytes = broadcast.encoded(encoding).bare();
            assert_eq!(encoding.decode_server(&bytes), Ok(ServerFrame::Publication(publication.clone())));
            assert_eq!(bytes.as_ptr(), broadcast.encoded(encoding).bare().as_ptr());
        }
    }
}
