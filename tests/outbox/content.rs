//! What goes into an outbox.

use crate::region::Name;
use skywave::{
    broadcast::{Broadcast, Event, PresenceChanged, Publication},
    broker::{Chunk, Lost},
};
use skywave_protocol::{Channel, Json, Point, Position, Text, frame};
use std::sync::Arc;

pub fn publication(offset: u64) -> Arc<Publication> {
    sized_publication(offset, 1)
}

pub fn sized_publication(offset: u64, size: usize) -> Arc<Publication> {
    publication_of("e", offset, size)
}

pub fn publication_of(epoch: &str, offset: u64, size: usize) -> Arc<Publication> {
    Broadcast::new(frame::Publication {
        channel: Channel::new("chat:1").unwrap(),
        origin: Text::new("eu").unwrap(),
        epoch: Text::new(epoch).unwrap(),
        offset,
        time_ms: 0,
        key: None,
        user: None,
        data: Json::parse(format!("\"{}\"", "x".repeat(size))).unwrap().into(),
    })
}

pub fn event(session: &str, slot: Option<&str>, number: u64) -> Arc<Event> {
    Broadcast::new(frame::Event {
        channel: Channel::new("chat:1").unwrap(),
        session: Text::new(session).unwrap(),
        user: None,
        slot: slot.map(|slot| Text::new(slot).unwrap()),
        data: Json::parse(number.to_string()).unwrap().into(),
    })
}

pub fn changed() -> Arc<PresenceChanged> {
    changed_to(1, 1)
}

/// One more is there now, with details of this size.
pub fn changed_to(count: u64, size: usize) -> Arc<PresenceChanged> {
    let data = Some(Json::parse(format!("\"{}\"", "x".repeat(size))).unwrap());
    let member = frame::Member { session: Text::new("one").unwrap(), user: None, data, since_ms: 0 };
    let (joined, left) = (vec![member], Vec::new());
    Broadcast::new(frame::PresenceChanged { channel: Channel::new("chat:1").unwrap(), count, joined, left })
}

pub fn at(offset: u64) -> Position {
    let point = Point { epoch: Text::new("e").unwrap(), offset };
    [(Text::new("eu").unwrap(), point)].into_iter().collect()
}

/// All that there is, after what is lost.
pub fn whole(lost: &[Lost], publications: impl IntoIterator<Item = Arc<Publication>>) -> Chunk {
    Chunk { complete: true, ..part(lost, publications) }
}

/// More is to be read.
pub fn part(lost: &[Lost], publications: impl IntoIterator<Item = Arc<Publication>>) -> Chunk {
    let publications = publications.into_iter().collect();
    Chunk { lost: lost.to_vec(), publications, ..Chunk::default() }
}

/// The whole history.
pub fn history(offsets: std::ops::RangeInclusive<u64>) -> Chunk {
    whole(&[], offsets.map(publication))
}

/// What is after the last publication seen is lost, up to this one.
pub fn gap(epoch: &str, offset: u64) -> Lost {
    let point = Point { epoch: Text::new(epoch).unwrap(), offset };
    Lost { origin: Text::new("eu").unwrap(), reason: frame::GapReason::Trimmed, point }
}

pub fn named(name: Name, size: usize) -> Arc<Publication> {
    Broadcast::new(frame::Publication {
        channel: Channel::new("chat:1").unwrap(),
        origin: name.origin(),
        epoch: name.point().epoch,
        offset: name.offset,
        time_ms: 0,
        key: None,
        user: None,
        data: Json::parse(format!("\"{}\"", "x".repeat(size))).unwrap().into(),
    })
}
