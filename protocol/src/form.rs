//! Forms: how frames are written and framed for a wire. All wires of one form share the same bytes.

use crate::{
    codec::{EncodeError, EncodedFrame, Encoding},
    codes::ErrorCode,
    frame::{Event, PresenceChanged, Publication, ServerFrame},
};
use bytes::Bytes;
use serde::Serialize;
use std::fmt;

/// How frames are written and framed. Who sends frames knows no more of a form than that it turns them into bytes;
/// whoever has the wire knows what they are.
pub struct Form {
    name: &'static str,
    write: fn(Outgoing<'_>) -> Result<Bytes, EncodeError>,
}

/// JSON alone: a text message of a WebSocket.
pub static JSON_TEXT: Form = Form::new("JSON text", |frame| json(frame).map(EncodedFrame::into_bare));
/// JSON behind its length: on a stream.
pub static JSON: Form = Form::new("JSON", |frame| json(frame).map(EncodedFrame::into_prefixed));
/// MessagePack behind its length: on a stream, and as a binary message of a WebSocket.
pub static MESSAGE_PACK: Form =
    Form::new("MessagePack", |frame| Encoding::MessagePack.encode(&frame).map(EncodedFrame::into_prefixed));

fn json(frame: Outgoing<'_>) -> Result<EncodedFrame, EncodeError> {
    Encoding::Json.encode(&frame)
}

impl Form {
    /// `name` is for developers. Each form is one `static`: it is known by its address.
    pub const fn new(name: &'static str, write: fn(Outgoing<'_>) -> Result<Bytes, EncodeError>) -> Self {
        Self { name, write }
    }

    /// # Errors
    /// `EncodeError` when a value cannot be written so.
    pub fn write(&self, frame: Outgoing<'_>) -> Result<Bytes, EncodeError> {
        (self.write)(frame)
    }

    /// Whether both are one.
    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// A frame on its way out. What goes to many is no [`ServerFrame`] by itself, and reads like one.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outgoing<'a> {
    Publication(&'a Publication),
    Event(&'a Event),
    PresenceChanged(&'a PresenceChanged),
    #[serde(rename = "unsubscribed")]
    NoChannel(NoChannel<'a>),
    #[serde(untagged)]
    Frame(&'a ServerFrame),
}

/// An `unsubscribed` for what may be no name of a channel.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NoChannel<'a> {
    channel: &'a str,
    code: u16,
    reason: &'static str,
}

impl<'a> NoChannel<'a> {
    pub fn new(channel: &'a str) -> Self {
        Self { channel, code: ErrorCode::BadRequest.code(), reason: ErrorCode::BadRequest.reason() }
    }
}

impl<'a> From<&'a Publication> for Outgoing<'a> {
    fn from(publication: &'a Publication) -> Self {
        Self::Publication(publication)
    }
}

impl<'a> From<&'a Event> for Outgoing<'a> {
    fn from(event: &'a Event) -> Self {
        Self::Event(event)
    }
}

impl<'a> From<&'a PresenceChanged> for Outgoing<'a> {
    fn from(change: &'a PresenceChanged) -> Self {
        Self::PresenceChanged(change)
    }
}

impl<'a> From<&'a ServerFrame> for Outgoing<'a> {
    fn from(frame: &'a ServerFrame) -> Self {
        Self::Frame(frame)
    }
}

impl<'a> From<NoChannel<'a>> for Outgoing<'a> {
    fn from(frame: NoChannel<'a>) -> Self {
        Self::NoChannel(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Channel,
        frame::{Ping, Unsubscribed},
        framing::without_prefix,
    };

    fn reads(frame: Outgoing<'_>) -> [ServerFrame; 3] {
        let text = JSON_TEXT.write(frame).unwrap();
        let json = without_prefix(JSON.write(frame).unwrap());
        let msgpack = without_prefix(MESSAGE_PACK.write(frame).unwrap());
        [
            Encoding::Json.decode_server(&text).unwrap(),
            Encoding::Json.decode_server(&json).unwrap(),
            Encoding::MessagePack.decode_server(&msgpack).unwrap(),
        ]
    }

    #[test]
    fn what_goes_out_reads_like_the_frame_in_every_form() {
        let ping = ServerFrame::Ping(Ping { seq: 1, interval_ms: 2, timeout_ms: 3 });
        assert!(reads((&ping).into()).iter().all(|read| *read == ping));
        let change = PresenceChanged {
            channel: Channel::new("chat:1").unwrap(),
            count: 1,
            joined: Vec::new(),
            left: Vec::new(),
        };
        let read = reads((&change).into());
        assert!(read.iter().all(|read| *read == ServerFrame::PresenceChanged(change.clone())));
        let read = reads(NoChannel::new("chat:1").into());
        let is_refused = |frame: &ServerFrame| match frame {
            ServerFrame::Unsubscribed(Unsubscribed { code, .. }) => {
                *code == Some(ErrorCode::BadRequest.code())
            }
            _ => false,
        };
        assert!(read.iter().all(is_refused), "{read:?}");
    }

    #[test]
    fn a_form_is_itself_and_no_other() {
        let all = [&JSON_TEXT, &JSON, &MESSAGE_PACK];
        for (index, form) in all.iter().enumerate() {
            assert!(all.iter().enumerate().all(|(other, one)| form.is(one) == (index == other)));
        }
    }
}
