//! A publication on its way from the region that accepted it to another one.

use crate::broker::entry::{self, Carried};
use redis::Value;
use skywave_protocol::position::Origin;
use skywave_redis::{Keys, Malformed, StreamId};

/// Scripts count in doubles, which are exact up to here.
const MAX_OFFSET: u64 = 1 << 53;

/// What one region says on pub/sub when it has accepted a publication.
#[derive(Debug)]
pub(crate) struct Heard {
    /// In which the log was.
    pub life: String,
    pub id: StreamId,
    /// How many publications the region has accepted with it; the version before this one does not say.
    pub count: Option<u64>,
    /// Not checked yet.
    pub fields: Vec<Value>,
    /// Of the message.
    pub bytes: usize,
}

impl Heard {
    /// Reads what `publish.lua` of `origin` writes: life, id, channel, the rest of the epoch, offset, flags, key and
    /// user, each behind its length in one byte; the payload behind its length in four bytes; the count and the origin
    /// behind theirs in one. The version before this one does not say the origin.
    ///
    /// # Errors
    /// When it is cut short or has no id.
    pub(crate) fn read(message: &[u8], origin: &Origin) -> Result<Self, Malformed> {
        let mut parts = Parts(message);
        let (life, id) = (text(parts.short()?)?, text(parts.short()?)?);
        let channel = parts.short()?;
        let epoch = format!("{life}.{}", text(parts.short()?)?);
        let (offset, flags, key, user) = (parts.short()?, parts.short()?, parts.short()?, parts.short()?);
        let payload = parts.long()?;
        let count = parts.short().ok().and_then(|count| text(count).ok()?.parse().ok());
        let said_by = parts.short().unwrap_or(origin.as_bytes());
        // What comes behind is of a later version.
        let fields = [
            (b"c", channel),
            (b"o", said_by),
            (b"e", epoch.as_bytes()),
            (b"n", offset),
            (b"f", flags),
            (b"k", key),
            (b"u", user),
            (b"d", payload),
        ];
        let value = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        Ok(Self {
            id: StreamId::parse(&id).ok_or(Malformed("entry id"))?,
            life,
            count,
            fields: fields.into_iter().flat_map(|(name, content)| [value(name), value(content)]).collect(),
            bytes: message.len(),
        })
    }
}

/// What of a message was not read yet.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn short(&mut self) -> Result<&'a [u8], Malformed> {
        let (length, rest) = self.0.split_first().ok_or(Malformed("message"))?;
        self.split(usize::from(*length), rest)
    }

    fn long(&mut self) -> Result<&'a [u8], Malformed> {
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or(Malformed("message"))?;
        self.split(u32::from_be_bytes(*length) as usize, rest)
    }

    fn split(&mut self, length: usize, rest: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let (part, rest) = rest.split_at_checked(length).ok_or(Malformed("message"))?;
        self.0 = rest;
        Ok(part)
    }
}

fn text(part: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(part.to_vec()).map_err(|_| Malformed("text"))
}

/// The publication that an entry of `origin`'s log holds.
///
/// # Errors
/// When it holds none that `origin` can have accepted in this partition.
pub(crate) fn check(
    id: StreamId,
    fields: Vec<Value>,
    origin: &Origin,
    keys: &Keys,
    partition: u16,
) -> Result<Carried, Malformed> {
    let carried = entry::carried(id, fields)?;
    if carried.origin != *origin {
        return Err(Malformed("origin"));
    }
    if !(1..MAX_OFFSET).contains(&carried.offset) {
        return Err(Malformed("offset"));
    }
    if carried.epoch.is_empty() {
        return Err(Malformed("epoch"));
    }
    if keys.partition(&carried.channel) != partition {
        return Err(Malformed("partition"));
    }
    Ok(carried)
}

/// A message as `publish.lua` of the version before wrote it: all parts but the payload, and the payload.
#[cfg(test)]
pub(crate) fn uncounted(parts: [&[u8]; 8], payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for part in parts {
        message.push(u8::try_from(part.len()).unwrap());
        message.extend(part);
    }
    message.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    message.extend(payload);
    message
}

/// A message as `publish.lua` of eu writes it.
#[cfg(test)]
pub(crate) fn message(parts: [&[u8]; 8], payload: &[u8], count: &[u8]) -> Vec<u8> {
    let length = u8::try_from(count.len()).unwrap();
    [&uncounted(parts, payload), &[length][..], count, b"\x02eu"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::Text;

    fn origin() -> Origin {
        Text::new("eu").unwrap()
    }

    fn carried(message: &[u8]) -> Result<Carried, Malformed> {
        let keys = Keys::new("sky".into(), 1);
        let heard = Heard::read(message, &origin())?;
        check(heard.id, heard.fields, &origin(), &keys, 0)
    }

    fn whole(offset: &[u8], payload: &[u8]) -> Vec<u8> {
        message([b"x", b"5-1", b"chat:1", b"0", offset, b"bku", b"key", b"ann"], payload, b"41")
    }

    #[test]
    fn a_message_carries_whatever_bytes_a_payload_has() {
        let payload: Vec<u8> = (0..=255).collect();
        let carried = carried(&whole(b"3", &payload)).unwrap();
        assert_eq!(carried.id, StreamId { ms: 5, sequence: 1 });
        assert_eq!((&*carried.origin, &*carried.channel), ("eu", "chat:1"));
        let expected: [&[u8]; 7] = [b"x.0", b"3", b"5", b"bku", b"key", b"ann", &payload];
        assert_eq!(carried.arguments(), expected);
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let longer = [whole(b"3", b"[]"), b"more".to_vec()].concat();
        assert_eq!(Heard::read(&longer, &origin()).unwrap().count, Some(41));
        assert_eq!(carried(&longer).unwrap().arguments()[6], b"[]");
    }

    #[test]
    fn a_message_of_the_version_before_is_the_same_without_its_count() {
        let parts = [&b"x"[..], b"5-1", b"chat:1", b"0", b"3", b"j", b"", b""];
        let (before, now) = (uncounted(parts, b"[1]"), message(parts, b"[1]", b"7"));
        // That version reads so far, and passes over what comes behind.
        assert!(now.starts_with(&before));
        let count = |message: &[u8]| Heard::read(message, &origin()).unwrap().count;
        assert_eq!((count(&before), count(&now)), (None, Some(7)));
        assert_eq!(carried(&before).unwrap().arguments(), carried(&now).unwrap().arguments());
    }

    #[test]
    fn what_the_region_cannot_have_accepted_is_refused() {
        for offset in [&b"0"[..], b"9007199254740992", b"-1", b""] {
            assert!(carried(&whole(offset, b"")).is_err());
        }
        let keys = Keys::new("sky".into(), 1);
        let heard = Heard::read(&whole(b"3", b""), &origin()).unwrap();
        assert!(check(heard.id, heard.fields, &Text::new("us").unwrap(), &keys, 0).is_err());
    }

    #[test]
    fn what_a_region_accepts_under_another_name_is_refused() {
        let keys = Keys::new("sky".into(), 1);
        let before: Origin = Text::new("us").unwrap();
        let heard = Heard::read(&whole(b"3", b""), &before).unwrap();
        assert!(check(heard.id, heard.fields, &before, &keys, 0).is_err());
    }

    #[test]
    fn a_message_that_is_cut_short_is_refused() {
        let whole = uncounted([b"x", b"5-1", b"chat:1", b"0", b"3", b"bku", b"key", b"ann"], b"payload");
        for length in 0..whole.len() {
            assert!(Heard::read(&whole[..length], &origin()).is_err(), "{length}");
        }
        assert!(Heard::read(&[0xff; 9], &origin()).is_err());
    }
}
