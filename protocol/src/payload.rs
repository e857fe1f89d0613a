//! Payloads, opaque to the node: JSON text or bytes.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;
use std::{fmt, sync::Arc};

/// The deepest nesting of arrays and objects that a JSON payload may have. It leaves room for the
/// frame around it under the limit of 128 that many parsers have.
pub const MAX_JSON_DEPTH: usize = 100;

/// Valid JSON text, shared and not parsed further.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

/// Why a text is not a JSON payload.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJson {
    #[error("not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("JSON nested deeper than {MAX_JSON_DEPTH} levels")]
    TooDeep,
}

impl Json {
    /// # Errors
    /// `Syntax` when `text` is not one JSON value, `TooDeep` beyond [`MAX_JSON_DEPTH`].
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidJson> {
        // Surrounding white space is not part of a value, and RawValue refuses it.
        let text = text.into();
        let trimmed = text.trim_matches([' ', '\t', '\n', '\r']);
        let raw = if trimmed.len() == text.len() {
            RawValue::from_string(text)?
        } else {
            RawValue::from_string(trimmed.to_owned())?
        };
        Self::from_raw(raw)
    }

    fn from_raw(raw: Box<RawValue>) -> Result<Self, InvalidJson> {
        if depth(raw.get()) > MAX_JSON_DEPTH {
            return Err(InvalidJson::TooDeep);
        }
        Ok(Self(Arc::from(raw)))
    }

    /// # Errors
    /// As for [`Json::parse`]; also when `value` cannot be written as JSON.
    pub fn of(value: &impl Serialize) -> Result<Self, InvalidJson> {
        Self::from_raw(serde_json::value::to_raw_value(value)?)
    }

    pub fn get(&self) -> &str {
        self.0.get()
    }
}

/// The nesting depth of valid JSON text.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.get())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.serialize(serializer)
        } else {
            serializer.serialize_str(self.get())
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let raw = Box::<RawValue>::deserialize(deserializer)?;
            Self::from_raw(raw).map_err(de::Error::custom)
        } else {
            Self::parse(String::deserialize(deserializer)?).map_err(de::Error::custom)
        }
    }
}

/// What a message carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    Json(Json),
    Binary(Bytes),
}

impl Payload {
    /// Its size in bytes, as MessagePack carries it.
    pub fn size(&self) -> usize {
        match self {
            Self::Json(json) => json.get().len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// What stands in the fields `data` and `data_b64` of a frame in JSON or in MessagePack.
    pub(crate) fn fields(&self, human_readable: bool) -> (Option<AsData<'_>>, Option<AsBase64<'_>>) {
        match self {
            Self::Binary(bytes) if human_readable => (None, Some(AsBase64(bytes))),
            payload => (Some(AsData(payload)), None),
        }
    }

    /// The payload of a frame's two fields.
    ///
    /// # Errors
    /// When neither is there, or both are.
    pub fn from_fields(data: Option<Data>, data_b64: Option<Base64>) -> Result<Self, &'static str> {
        match (data, data_b64) {
            (Some(Data(payload)), None) => Ok(payload),
            (None, Some(Base64(bytes))) => Ok(Self::Binary(bytes)),
            (None, None) => Err("missing field `data`"),
            (Some(_), Some(_)) => Err("`data` and `data_b64` exclude each other"),
        }
    }
}

impl From<Json> for Payload {
    fn from(json: Json) -> Self {
        Self::Json(json)
    }
}

/// The field `data`. `null` is a value like any other, so the field is read with [`present`].
#[derive(Debug)]
pub struct Data(Payload);

/// Reads a field that is there; keeps serde from taking `null` for an absent one.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A payload as it is written in the field `data`.
pub(crate) struct AsData<'a>(&'a Payload);

impl Serialize for AsData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Payload::Json(json) => json.serialize(serializer),
            Payload::Binary(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Data;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a str of JSON text or a bin")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Data, E> {
                Json::parse(text).map(|json| Data(json.into())).map_err(E::custom)
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Data, E> {
                Ok(Data(Payload::Binary(Bytes::copy_from_slice(bytes))))
            }
        }
        if deserializer.is_human_readable() {
            Json::deserialize(deserializer).map(|json| Self(json.into()))
        } else {
            deserializer.deserialize_any(Visitor)
        }
    }
}

/// The field `data_b64`: bytes in a JSON frame.
#[derive(Debug)]
pub struct Base64(Bytes);

/// Bytes as they are written in the field `data_b64`.
pub(crate) struct AsBase64<'a>(&'a Bytes);

impl Serialize for AsBase64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Err(de::Error::custom("`data_b64` is for JSON; here `data` may be a bin"));
        }
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(|bytes| Self(bytes.into())).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Json::parse(nested(MAX_JSON_DEPTH)).is_ok());
        assert!(matches!(Json::parse(nested(MAX_JSON_DEPTH + 1)), Err(InvalidJson::TooDeep)));
        assert!(Json::parse(format!("\"\\\"{}\"", "[".repeat(1000))).is_ok());
        assert!(matches!(Json::parse(nested(1_000_000)), Err(InvalidJson::TooDeep)));
    }

    #[test]
    fn only_one_whole_value_is_json() {
        for text in ["", "1 2", "{", "nul", "{\"a\":}"] {
            assert!(matches!(Json::parse(text), Err(InvalidJson::Syntax(_))), "{text:?}");
        }
        assert_eq!(Json::parse(" null\n").unwrap().get(), "null");
    }
}
