//! A publication on its way from the region that accepted it to another one.

use crate::{
    broker::redis::entry::{self, Entry},
    redis::{Keys, Malformed, StreamId},
};
use redis::Value;
use skywave_protocol::position::Origin;

/// Scripts count in doubles, which are exact up to here.
const MAX_OFFSET: u64 = 1 << 53;

/// What one region says on pub/sub when it has accepted a publication.
#[derive(Debug)]
pub struct Heard {
    /// In which the log was.
    pub life: String,
    pub id: StreamId,
    /// Not checked yet.
    pub fields: Vec<Value>,
    /// Of the message.
    pub bytes: usize,
}

impl Heard {
    /// Reads parts of which each is preceded by its length, as `publish.lua` writes them.
    ///
    /// # Errors
    /// When it is cut short or lacks life or id.
    pub fn read(mut message: &[u8]) -> Result<Self, Malformed> {
        let bytes = message.len();
        let mut parts = Vec::new();
        while !message.is_empty() {
            let (length, rest) = message.split_first_chunk::<4>().ok_or(Malformed("message"))?;
            let (part, rest) =
                rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(Malformed("message"))?;
            parts.push(part);
            message = rest;
        }
        let [life, id, fields @ ..] = &parts[..] else { return Err(Malformed("message")) };
        let text = |part: &[u8]| String::from_utf8(part.to_vec()).map_err(|_| Malformed("text"));
        Ok(Self {
            life: text(life)?,
            id: StreamId::parse(&text(id)?).ok_or(Malformed("entry id"))?,
            fields: fields.iter().map(|part| Value::BulkString(part.to_vec())).collect(),
            bytes,
        })
    }
}

/// The publication that an entry of `origin`'s log holds.
///
/// # Errors
/// When it holds none that `origin` can have accepted in this partition.
pub fn check(
    id: StreamId,
    fields: Vec<Value>,
    origin: &Origin,
    keys: &Keys,
    partition: u16,
) -> Result<Entry, Malformed> {
    let publication = entry::publication(id, fields)?;
    let frame = publication.frame();
    if frame.origin != *origin {
        return Err(Malformed("origin"));
    }
    if !(1..MAX_OFFSET).contains(&frame.offset) {
        return Err(Malformed("offset"));
    }
    if frame.epoch.is_empty() {
        return Err(Malformed("epoch"));
    }
    if keys.partition(&frame.channel) != partition {
        return Err(Malformed("partition"));
    }
    Ok(Entry { id, publication })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::{Payload, Text};

    fn message(parts: &[&[u8]]) -> Vec<u8> {
        parts
            .iter()
            .flat_map(|part| [&u32::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat())
            .collect()
    }

    fn entry(parts: &[&[u8]]) -> Result<Entry, Malformed> {
        let keys = Keys::new("sky".into(), 1);
        let heard = Heard::read(&message(parts))?;
        check(heard.id, heard.fields, &Text::new("eu").unwrap(), &keys, 0)
    }

    #[test]
    fn a_message_carries_whatever_bytes_a_payload_has() {
        let payload: Vec<u8> = (0..=255).collect();
        let parts: &[&[u8]] = &[
            b"x", b"5-1", b"c", b"chat:1", b"o", b"eu", b"e", b"x.0", b"n", b"3", b"f", b"b", b"d", &payload,
        ];
        let entry = entry(parts).unwrap();
        assert_eq!(entry.id, StreamId { ms: 5, sequence: 1 });
        assert_eq!(entry.publication.frame().data, Payload::Binary(payload.into()));
        assert_eq!(entry.publication.frame().time_ms, 5);
    }

    #[test]
    fn what_the_region_cannot_have_accepted_is_refused() {
        let with = |origin: &[u8], offset: &[u8], epoch: &[u8]| {
            entry(&[
                b"x", b"5-1", b"c", b"chat:1", b"o", origin, b"e", epoch, b"n", offset, b"f", b"b", b"d", b"",
            ])
        };
        assert!(with(b"eu", b"3", b"e").is_ok());
        assert!(with(b"us", b"3", b"e").is_err());
        assert!(with(b"eu", b"0", b"e").is_err());
        assert!(with(b"eu", b"9007199254740992", b"e").is_err());
        assert!(with(b"eu", b"3", b"").is_err());
    }

    #[test]
    fn a_message_that_is_cut_short_is_refused() {
        let whole = message(&[b"x", b"5-1", b"c", b"chat:1"]);
        for length in 0..whole.len() {
            let read = Heard::read(&whole[..length]);
            assert!(read.is_err() || read.is_ok_and(|heard| heard.fields.len() < 2), "{length}");
        }
        assert!(Heard::read(&[0xff; 9]).is_err());
    }
}
