//! Frames to bytes and back, in JSON and MessagePack.

use crate::{
    Channel,
    frame::{ClientFrame, RequestId, ServerFrame},
    framing::{MAX_PREFIX_BYTES, write_prefix},
    salvage::Salvaged,
};
use bytes::{Buf as _, Bytes};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned, IgnoredAny},
};
use serde_json::value::RawValue;
use std::{collections::HashMap, fmt};

/// The deepest nesting of a MessagePack frame. A payload is a leaf there, so this is about fields
/// that nobody knows.
const MAX_MSGPACK_DEPTH: usize = 64;

/// How frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    Json,
    MessagePack,
}

/// A frame could not be written; it does not happen to the frames of this crate.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode frame: {0}")]
pub struct EncodeError(String);

/// Why bytes are not a frame that the reader knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON or MessagePack, or not a map with one entry: the stream cannot be trusted further.
    #[error("not a frame: {0}")]
    Malformed(String),
    /// A frame, but of a name that the reader does not know.
    #[error("unknown frame `{name}`")]
    Unknown { name: String, id: Option<RequestId> },
    /// A known frame with a field that is missing, of the wrong type or out of bounds.
    #[error("bad `{name}`: {message}")]
    Invalid { name: String, id: Option<RequestId>, channel: Option<Channel>, message: String },
}

impl DecodeError {
    /// The request's id, where it could be read.
    pub fn id(&self) -> Option<RequestId> {
        match self {
            Self::Malformed(_) => None,
            Self::Unknown { id, .. } | Self::Invalid { id, .. } => *id,
        }
    }
}

/// What a client sent that cannot be read as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    pub error: DecodeError,
    /// What can be kept of it, if it is a `connect` of which only some subscriptions make no sense.
    pub salvaged: Option<Box<Salvaged>>,
}

/// An encoded frame with its length prefix; shared, not copied, by all who get it.
#[derive(Clone, Debug, Default)]
pub struct EncodedFrame {
    bytes: Bytes,
    prefix: u8,
}

impl EncodedFrame {
    /// Prefix and frame, as on a stream or in a binary message.
    pub fn prefixed(&self) -> Bytes {
        self.bytes.clone()
    }

    /// As [`Self::prefixed`], for who needs nothing else: no holder more is counted.
    pub fn into_prefixed(self) -> Bytes {
        self.bytes
    }

    /// The frame alone, as in a text message or a datagram.
    pub fn bare(&self) -> Bytes {
        self.clone().into_bare()
    }

    /// As [`Self::bare`], for who needs nothing else.
    pub fn into_bare(mut self) -> Bytes {
        self.bytes.advance(usize::from(self.prefix));
        self.bytes
    }

    /// Bytes with the prefix; what an outbox counts.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Encoding {
    /// # Errors
    /// `EncodeError` when a value cannot be written in this encoding.
    pub fn encode<T: Serialize>(self, frame: &T) -> Result<EncodedFrame, EncodeError> {
        // The body goes after room for the longest prefix; the real one is then put right before it.
        let mut buffer = Vec::with_capacity(256);
        buffer.extend_from_slice(&[0; MAX_PREFIX_BYTES]);
        match self {
            Self::Json => {
                serde_json::to_writer(&mut buffer, frame).map_err(|error| EncodeError(error.to_string()))?;
            }
            Self::MessagePack => {
                let mut serializer = rmp_serde::Serializer::new(&mut buffer).with_struct_map();
                frame.serialize(&mut serializer).map_err(|error| EncodeError(error.to_string()))?;
            }
        }
        let mut prefix = [0; MAX_PREFIX_BYTES];
        let size = write_prefix(buffer.len() - MAX_PREFIX_BYTES, &mut prefix);
        buffer[..MAX_PREFIX_BYTES].copy_from_slice(&prefix);
        let bytes = Bytes::from(buffer).slice(MAX_PREFIX_BYTES - size..);
        Ok(EncodedFrame { bytes, prefix: size as u8 })
    }

    /// Reads what a client sent.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode_client(self, bytes: &[u8]) -> Result<ClientFrame, DecodeError> {
        self.decode(bytes, ClientFrame::NAMES)
    }

    /// As [`Self::decode_client`], with what can be kept of a `connect` that is refused: all but the subscriptions that
    /// make no sense.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn read_client(self, bytes: &[u8]) -> Result<ClientFrame, Unreadable> {
        self.decode_client(bytes).map_err(|error| {
            let is_connect = matches!(&error, DecodeError::Invalid { name, .. } if name == "connect");
            let salvaged = is_connect.then(|| self.parse(bytes).ok()).flatten().map(Box::new);
            Unreadable { error, salvaged }
        })
    }

    /// Reads what a node sent.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode_server(self, bytes: &[u8]) -> Result<ServerFrame, DecodeError> {
        self.decode(bytes, ServerFrame::NAMES)
    }

    fn decode<T: DeserializeOwned>(self, bytes: &[u8], names: &[&str]) -> Result<T, DecodeError> {
        let error = match self.parse::<T>(bytes) {
            Ok(frame) => return Ok(frame),
            Err(error) => error,
        };
        // Slow path, for the error only: is it a frame at all, and whose?
        if self == Self::Json && std::str::from_utf8(bytes).is_err() {
            // The probe would skip over it.
            return Err(DecodeError::Malformed("not UTF-8".to_owned()));
        }
        let probe: Probe = self.parse(bytes).map_err(DecodeError::Malformed)?;
        if names.contains(&probe.name.as_str()) {
            let channel = self.channel_of(bytes);
            Err(DecodeError::Invalid { name: probe.name, id: probe.id, channel, message: error })
        } else {
            Err(DecodeError::Unknown { name: shorten(probe.name), id: probe.id })
        }
    }

    /// The channel that a frame concerns, where that could be read.
    fn channel_of(self, frame: &[u8]) -> Option<Channel> {
        #[derive(Deserialize)]
        struct Concerned {
            channel: Channel,
        }
        let named: HashMap<String, Concerned> = self.parse(frame).ok()?;
        named.into_values().next().map(|concerned| concerned.channel)
    }

    fn parse<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, String> {
        match self {
            Self::Json => serde_json::from_slice(bytes).map_err(|error| shorten(error.to_string())),
            Self::MessagePack => {
                let mut deserializer = rmp_serde::Deserializer::new(bytes);
                deserializer.set_max_depth(MAX_MSGPACK_DEPTH);
                let value = T::deserialize(&mut deserializer).map_err(|error| shorten(error.to_string()))?;
                if deserializer.get_ref().is_empty() {
                    Ok(value)
                } else {
                    Err("bytes after the frame".to_owned())
                }
            }
        }
    }
}

/// Splits a JSON text message: one frame, or an array of frames.
///
/// # Errors
/// `Malformed` when it is neither.
pub fn split_json(message: &str) -> Result<Vec<&RawValue>, DecodeError> {
    let parsed = if message.trim_start().starts_with('[') {
        serde_json::from_str(message)
    } else {
        serde_json::from_str(message).map(|frame| vec![frame])
    };
    parsed.map_err(|error| DecodeError::Malformed(error.to_string()))
}

/// Bounds text that quotes the peer's input, before it is sent back or logged.
fn shorten(mut text: String) -> String {
    const MAX_BYTES: usize = 200;
    if text.len() > MAX_BYTES {
        let end = (0..=MAX_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The name of a frame and its id, whatever else is in it.
struct Probe {
    name: String,
    id: Option<RequestId>,
}

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Probe;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map with one entry, the frame's name")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Probe, A::Error> {
                let Some((name, IdOf(id))) = map.next_entry()? else {
                    return Err(de::Error::custom("an empty map"));
                };
                if map.next_key::<IgnoredAny>()?.is_some() {
                    return Err(de::Error::custom("more than one frame in a map"));
                }
                Ok(Probe { name, id })
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// The `id` of a frame's fields, if there is a good one.
struct IdOf(Option<RequestId>);

/// An id, if the value is one.
struct MaybeId(Option<RequestId>);

/// Visitor methods for all but integers and maps: values that are of no interest.
macro_rules! ignore_others {
    ($value:expr) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            while sequence.next_element::<IgnoredAny>()?.is_some() {}
            Ok($value)
        }
        // A MessagePack extension type.
        fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
            IgnoredAny::deserialize(inner)?;
            Ok($value)
        }
    };
}

impl<'de> Deserialize<'de> for IdOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = IdOf;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the fields of a frame")
            }
            ignore_others!(IdOf(None));
            fn visit_u64<E>(self, _: u64) -> Result<IdOf, E> {
                Ok(IdOf(None))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<IdOf, A::Error> {
                let mut id = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "id" {
                        id = map.next_value::<MaybeId>()?.0;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(IdOf(id))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for MaybeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = MaybeId;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("anything")
            }
            ignore_others!(MaybeId(None));
            fn visit_u64<E>(self, id: u64) -> Result<MaybeId, E> {
                Ok(MaybeId(u32::try_from(id).ok().and_then(RequestId::new)))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<MaybeId, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(MaybeId(None))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
