//! A publication as an entry of a Redis Stream.

use bytes::Bytes;
use redis::Value;
use skywave_channels::broadcast::{Broadcast, Publication};
use skywave_protocol::{
    Channel, Json, Payload, Text, frame,
    frame::Key,
    position::{Epoch, Origin},
};
use skywave_redis::reply::{Malformed, StreamId, bytes};
use std::sync::Arc;

/// An entry of a log or of a channel's history.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: StreamId,
    pub publication: Arc<Publication>,
}

/// What was published, as scripts take it: flags, key, user, payload.
pub fn content(payload: &Payload, key: Option<&Key>, user: Option<&Arc<str>>) -> [Vec<u8>; 4] {
    [
        flags(payload, key, user).into_bytes(),
        key.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
        user.map(|user| user.as_bytes().to_vec()).unwrap_or_default(),
        payload_bytes(payload),
    ]
}

/// A publication on its way to another region's Redis, whatever its payload is: nodes there may know a kind that is not
/// known here.
#[derive(Debug, Clone)]
pub struct Carried {
    pub id: StreamId,
    pub channel: Channel,
    pub origin: Origin,
    pub epoch: Epoch,
    pub offset: u64,
    pub key: Option<Key>,
    time_ms: u64,
    flags: Vec<u8>,
    user: Vec<u8>,
    payload: Vec<u8>,
}

impl Carried {
    /// As scripts take it: epoch, offset, time, then its [`content`].
    pub fn arguments(&self) -> [Vec<u8>; 7] {
        [
            self.epoch.as_bytes().to_vec(),
            self.offset.to_string().into_bytes(),
            self.time_ms.to_string().into_bytes(),
            self.flags.clone(),
            self.key.as_ref().map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
            self.user.clone(),
            self.payload.clone(),
        ]
    }
}

/// What an entry of a log holds.
pub enum Logged {
    Publication(Arc<Publication>),
    /// Publications on this channel are lost for good, and nothing need follow that would show it.
    Lost(Channel),
    /// A publication that this node cannot read, as it may be a later version's.
    Unreadable(Channel, Malformed),
}

/// How to read an entry's fields: which of them are there, and what the payload is. With an `l` there is none.
fn flags(payload: &Payload, key: Option<&Key>, user: Option<&Arc<str>>) -> String {
    let mut flags = String::with_capacity(3);
    flags.push(match payload {
        Payload::Json(_) => 'j',
        Payload::Binary(_) => 'b',
    });
    if key.is_some() {
        flags.push('k');
    }
    if user.is_some() {
        flags.push('u');
    }
    flags
}

/// The payload's bytes as they stand in an entry.
fn payload_bytes(payload: &Payload) -> Vec<u8> {
    match payload {
        Payload::Json(json) => json.get().as_bytes().to_vec(),
        Payload::Binary(bytes) => bytes.to_vec(),
    }
}

/// The publication that an entry's fields hold.
///
/// # Errors
/// When a field is missing or malformed.
pub fn publication(id: StreamId, fields: Vec<Value>) -> Result<Arc<Publication>, Malformed> {
    Fields::read(fields)?.publication(id)
}

/// What an entry of this region's log holds.
///
/// # Errors
/// When a field is missing or malformed.
pub fn logged(id: StreamId, fields: Vec<Value>) -> Result<Logged, Malformed> {
    let fields = Fields::read(fields)?;
    if fields.flags.contains(&b'l') {
        return fields.channel().map(Logged::Lost);
    }
    let channel = fields.channel()?;
    let publication = fields.publication(id);
    Ok(publication.map_or_else(|error| Logged::Unreadable(channel, error), Logged::Publication))
}

/// The publication that an entry's fields hold, to be carried on.
///
/// # Errors
/// When a field but the payload is missing or malformed.
pub fn carried(id: StreamId, fields: Vec<Value>) -> Result<Carried, Malformed> {
    let fields = Fields::read(fields)?;
    if fields.flags.is_empty() {
        return Err(Malformed("flags"));
    }
    Ok(Carried {
        id,
        channel: fields.channel()?,
        origin: limited(fields.origin)?,
        epoch: limited(fields.epoch)?,
        offset: number(fields.offset)?,
        key: if fields.flags.contains(&b'k') { Some(limited(fields.key)?) } else { None },
        time_ms: if fields.time.is_empty() { id.ms } else { number(fields.time)? },
        flags: fields.flags,
        user: fields.user,
        payload: fields.payload,
    })
}

/// Where the publication that an entry holds stands among those of its origin, `epoch:offset`, if that is `origin`.
pub(crate) fn place_in(origin: &str, fields: Vec<Value>) -> Option<String> {
    let fields = Fields::read(fields).ok().filter(|fields| fields.origin == origin.as_bytes())?;
    Some(format!("{}:{}", utf8(fields.epoch).ok()?, number(fields.offset).ok()?))
}

#[derive(Default)]
struct Fields {
    channel: Vec<u8>,
    origin: Vec<u8>,
    epoch: Vec<u8>,
    offset: Vec<u8>,
    time: Vec<u8>,
    flags: Vec<u8>,
    key: Vec<u8>,
    user: Vec<u8>,
    payload: Vec<u8>,
}

impl Fields {
    fn read(fields: Vec<Value>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            found.set(&bytes(name)?, bytes(value)?);
        }
        Ok(found)
    }

    fn set(&mut self, name: &[u8], value: Vec<u8>) {
        let field = match name {
            b"c" => &mut self.channel,
            b"o" => &mut self.origin,
            b"e" => &mut self.epoch,
            b"n" => &mut self.offset,
            b"t" => &mut self.time,
            b"f" => &mut self.flags,
            b"k" => &mut self.key,
            b"u" => &mut self.user,
            b"d" => &mut self.payload,
            // Of a later version.
            _ => return,
        };
        *field = value;
    }

    fn channel(&self) -> Result<Channel, Malformed> {
        let name = std::str::from_utf8(&self.channel).map_err(|_| Malformed("text"))?;
        Channel::new(name).map_err(|_| Malformed("channel"))
    }

    fn publication(self, id: StreamId) -> Result<Arc<Publication>, Malformed> {
        let channel = self.channel()?;
        let flag = |flag: u8| self.flags.contains(&flag);
        let data = match flag(b'j') {
            true => Json::parse(utf8(self.payload)?).map_err(|_| Malformed("payload"))?.into(),
            false if flag(b'b') => Payload::Binary(Bytes::from(self.payload)),
            false => return Err(Malformed("flags")),
        };
        let key = if flag(b'k') { Some(limited(self.key)?) } else { None };
        let user = if flag(b'u') { Some(Arc::from(utf8(self.user)?)) } else { None };
        let time_ms = if self.time.is_empty() { id.ms } else { number(self.time)? };
        Ok(Broadcast::new(frame::Publication {
            channel,
            origin: limited(self.origin)?,
            epoch: limited(self.epoch)?,
            offset: number(self.offset)?,
            time_ms,
            key,
            user,
            data,
        }))
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String, Malformed> {
    String::from_utf8(bytes).map_err(|_| Malformed("text"))
}

fn limited<const MAX: usize>(bytes: Vec<u8>) -> Result<Text<MAX>, Malformed> {
    Text::new(utf8(bytes)?).map_err(|_| Malformed("text"))
}

fn number(bytes: Vec<u8>) -> Result<u64, Malformed> {
    utf8(bytes)?.parse().map_err(|_| Malformed("number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Vec<Value> {
        pairs
            .iter()
            .flat_map(|(name, value)| [name, value])
            .map(|text| Value::BulkString(text.as_bytes().to_vec()))
            .collect()
    }

    const PLAIN: &[(&str, &str)] =
        &[("c", "chat:1"), ("o", "eu"), ("e", "x.0"), ("n", "7"), ("t", ""), ("f", "j"), ("d", "[1]")];

    fn changed(name: &str, value: &str) -> Vec<Value> {
        let pairs: Vec<_> = PLAIN.iter().copied().chain([(name, value)]).collect();
        fields(&pairs)
    }

    #[test]
    fn an_entry_without_time_has_that_of_its_id() {
        let id = StreamId { ms: 1234, sequence: 1 };
        assert_eq!(publication(id, fields(PLAIN)).unwrap().frame().time_ms, 1234);
        assert_eq!(publication(id, changed("t", "99")).unwrap().frame().time_ms, 99);
    }

    #[test]
    fn an_empty_key_is_not_an_absent_one() {
        let absent = publication(StreamId::MIN, fields(PLAIN)).unwrap();
        let empty = publication(StreamId::MIN, changed("f", "jk")).unwrap();
        assert_eq!(absent.frame().key, None);
        assert_eq!(empty.frame().key.as_deref(), Some(""));
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        assert!(publication(StreamId::MIN, changed("new", "?")).is_ok());
    }

    #[test]
    fn a_log_tells_that_something_is_lost_and_a_history_does_not() {
        let lost = || changed("f", "l");
        assert!(matches!(logged(StreamId::MIN, lost()), Ok(Logged::Lost(channel)) if *channel == *"chat:1"));
        assert!(matches!(logged(StreamId::MIN, fields(PLAIN)), Ok(Logged::Publication(_))));
        assert!(publication(StreamId::MIN, lost()).is_err());
    }

    #[test]
    fn a_payload_of_a_form_that_is_not_known_here_is_carried_as_it_is() {
        let later = || fields(&[PLAIN, &[("f", "zku"), ("k", "key"), ("u", "ann"), ("d", "?")]].concat());
        let Ok(Logged::Unreadable(channel, _)) = logged(StreamId::MIN, later()) else { panic!() };
        assert_eq!(*channel, *"chat:1");
        let id = StreamId { ms: 9, sequence: 0 };
        let arguments = carried(id, later()).unwrap().arguments();
        assert_eq!(
            arguments.map(|one| String::from_utf8(one).unwrap()),
            ["x.0", "7", "9", "zku", "key", "ann", "?"]
        );
    }

    #[test]
    fn what_no_node_wrote_is_refused() {
        for (name, value) in [("c", "no channel"), ("n", "-1"), ("f", ""), ("d", "{"), ("t", "soon")] {
            assert!(publication(StreamId::MIN, changed(name, value)).is_err(), "{name}");
            assert_eq!(carried(StreamId::MIN, changed(name, value)).is_err(), name != "d", "{name}");
        }
        let unknown_epoch = "e".repeat(33);
        assert!(publication(StreamId::MIN, changed("e", &unknown_epoch)).is_err());
    }
}
