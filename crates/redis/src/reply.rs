//! What Redis answers: texts, bytes and the entries of streams.

use redis::Value;
use std::fmt;

/// The id of a stream's entry: milliseconds since 1970, and a number within them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    pub ms: u64,
    pub sequence: u64,
}

impl StreamId {
    pub const MIN: Self = Self { ms: 0, sequence: 0 };

    pub fn parse(text: &str) -> Option<Self> {
        let (ms, sequence) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, sequence: sequence.parse().ok()? })
    }

    /// The greatest id that is smaller.
    pub fn previous(self) -> Self {
        match self.sequence.checked_sub(1) {
            Some(sequence) => Self { sequence, ..self },
            None if self.ms == 0 => Self::MIN,
            None => Self { ms: self.ms - 1, sequence: u64::MAX },
        }
    }

    /// The smallest id that is greater.
    pub fn next(self) -> Self {
        match self.sequence.checked_add(1) {
            Some(sequence) => Self { sequence, ..self },
            None => Self { ms: self.ms.saturating_add(1), sequence: 0 },
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.ms, self.sequence)
    }
}

/// What stands in Redis is not what a node writes there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unexpected {0} in Redis")]
pub struct Malformed(pub &'static str);

/// The id and the fields of an entry.
///
/// # Errors
/// When it is no entry at all.
pub fn parts(entry: Value) -> Result<(StreamId, Vec<Value>), Malformed> {
    let Value::Array(parts) = entry else { return Err(Malformed("entry")) };
    let Ok([id, Value::Array(fields)]) = <[Value; 2]>::try_from(parts) else {
        return Err(Malformed("entry"));
    };
    let id = StreamId::parse(&text(id)?).ok_or(Malformed("entry id"))?;
    Ok((id, fields))
}

/// How many bytes the fields of an entry hold.
pub fn size(fields: &[Value]) -> usize {
    let of_one = |value: &Value| if let Value::BulkString(bytes) = value { bytes.len() } else { 0 };
    fields.iter().map(of_one).sum()
}

/// Whether a master answered ROLE.
pub(crate) fn is_of_master(answer: &Value) -> bool {
    let Value::Array(role) = answer else { return false };
    matches!(role.first(), Some(Value::BulkString(role)) if role == b"master")
}

/// The streams that a read gives, each with its name and its entries; none when nothing came in time.
///
/// # Errors
/// When it is something else.
pub fn streams(value: Value) -> Result<Vec<(String, Vec<Value>)>, Malformed> {
    let streams = match value {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(streams) => streams,
        _ => return Err(Malformed("reply")),
    };
    let one = |stream| {
        let Value::Array(parts) = stream else { return Err(Malformed("stream")) };
        let Ok([name, Value::Array(entries)]) = <[Value; 2]>::try_from(parts) else {
            return Err(Malformed("stream"));
        };
        Ok((text(name)?, entries))
    };
    streams.into_iter().map(one).collect()
}

/// The bytes of a reply.
///
/// # Errors
/// When it holds something else.
pub fn bytes(value: Value) -> Result<Vec<u8>, Malformed> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        _ => Err(Malformed("reply")),
    }
}

/// The text of a reply.
///
/// # Errors
/// When it holds something else.
pub fn text(value: Value) -> Result<String, Malformed> {
    String::from_utf8(bytes(value)?).map_err(|_| Malformed("text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_time_then_number() {
        let id = |text| StreamId::parse(text).unwrap();
        assert!(id("9-5") < id("10-0") && id("10-1") < id("10-2"));
        assert_eq!(id("10-0").next(), id("10-1"));
        assert_eq!(id("10-1").previous(), id("10-0"));
        assert_eq!(id("10-0").previous().next(), id("10-0"));
        assert_eq!(StreamId::MIN.previous(), StreamId::MIN);
        assert_eq!(id(&format!("9-{}", u64::MAX)).next(), id("10-0"));
        assert_eq!(StreamId::parse("10"), None);
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        assert!(parts(Value::Int(1)).is_err());
        assert!(streams(Value::Int(1)).is_err() && streams(Value::Array(vec![Value::Nil])).is_err());
        assert_eq!(streams(Value::Nil), Ok(Vec::new()));
        assert!(text(Value::BulkString(vec![0xff])).is_err());
    }
}
