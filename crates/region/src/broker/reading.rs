//! Reads channels' histories, page by page, and plays them from a position on.

mod asking;
mod hand;

use super::{
    entry::Entry,
    marks::{Marks, Next},
    progress::Progress,
    recovery::{ChunkLimit, Head, Playback, Search, Starts, step_before},
    unavailable,
};
use crate::keys::RegionKeys as _;
use asking::Part;
use hand::{Hand, Room};
use redis::Value;
use skywave_channels::broker::{BrokerError, Chunk, MAX_CHUNK, Page, PageLimit};
use skywave_protocol::{Channel, Position, Text, position::Origin};
use skywave_redis::{Commands, Keys, Redis, Request, StreamId, reply};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub(crate) use asking::{is_of, point_of};

/// The most entries that are read at once.
const PAGE: usize = 128;
/// The most payload bytes in one chunk: a session takes half of that at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A channel's history as its readers see it.
#[derive(Clone)]
pub(crate) struct Reading {
    pub commands: Commands,
    /// Where calls are made while that connection is being made anew.
    pub spare: Commands,
    pub keys: Keys,
    pub own: Origin,
    /// The other regions, and the Redis of each.
    pub others: BTreeMap<Origin, Redis>,
    /// Their names, separated by commas.
    pub(crate) other_names: String,
    pub marks: Arc<Marks>,
    pub progress: Arc<Progress>,
}

/// Why no more is read.
pub enum Halt {
    Failed(BrokerError),
    /// What the reader saw is to be judged first, by where the channel stands.
    Doubted(Box<Head>),
}

impl From<BrokerError> for Halt {
    fn from(error: BrokerError) -> Self {
        Self::Failed(error)
    }
}

impl From<Halt> for BrokerError {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Failed(error) => error,
            Halt::Doubted(_) => Self::Unavailable,
        }
    }
}

/// A channel and how long its publications are retained; nothing is retained without an age.
#[derive(Debug, Clone)]
pub(crate) struct Retained {
    pub channel: Channel,
    pub age: Option<Duration>,
    pub(crate) position_age: Duration,
    /// Where the reader stands in epochs of other regions that are over, though their names are later ones.
    pub over: Position,
}

impl Reading {
    /// Where the channel stands.
    pub(crate) async fn head(&self, retained: &Retained) -> Result<Chunk, BrokerError> {
        let Head { position, coming, .. } = self.ask(retained, Part::Nothing, Room::of(0, 0)).await?.head;
        Ok(Chunk { start: position, coming, complete: true, ..Chunk::default() })
    }

    /// The last `count`, or the oldest of them that fit.
    pub(crate) async fn latest(&self, retained: &Retained, count: usize) -> Result<Chunk, BrokerError> {
        let mut part = Part::Before(None);
        let (mut in_hand, mut first, mut head) = (Hand::new(CHUNK_BYTES), None, None);
        let (mut start, mut found) = (None, 0);
        loop {
            let rest = (count - found).min(PAGE);
            let answer = self.ask(retained, part, in_hand.room(rest)).await?;
            let start = start.get_or_insert_with(|| answer.head.position.clone());
            answer.entries.iter().for_each(|entry| step_before(start, entry));
            head.get_or_insert(answer.head);
            found += answer.entries.len();
            first = answer.entries.last().map(|entry| entry.id).or(first);
            in_hand.take(answer.entries, answer.whole);
            match answer.last {
                Some(oldest) if !answer.exhausted && found < count => part = Part::Before(Some(oldest)),
                _ => break,
            }
        }
        let (Some(head), Some(start)) = (head, start) else { return Err(BrokerError::Unavailable) };
        let first = first.unwrap_or(StreamId::MIN);
        let mut playback = Playback::new(start, Starts::at(first), CHUNK);
        let Some(entries) = in_hand.oldest_first() else {
            return Ok(self.forward(retained, playback, first, |_| Ok(())).await?.0);
        };
        Ok(match play(&mut playback, &entries) {
            None => playback.complete(&head),
            Some(_) => self.part(retained, playback, &head, first),
        })
    }

    /// What follows `position`, and where the channel stood when that was all. As soon as it is known where it stands,
    /// `judge` says whether more is read.
    ///
    /// # Errors
    /// Also what `judge` says.
    pub(crate) async fn after(
        &self,
        retained: &Retained,
        position: Position,
        limit: ChunkLimit,
        judge: impl Fn(&Head) -> Result<(), Halt>,
    ) -> Result<(Chunk, Head), Halt> {
        let mark = self.marks.find(&retained.channel, &position).filter(|_| retained.over.is_empty());
        if let Some(mark) = mark {
            let playback = Playback::new(position, mark.starts, limit);
            return self.forward(retained, playback, mark.from, judge).await;
        }
        let (mut search, mut seen) = (None, None);
        let mut in_hand = Hand::new(limit.bytes);
        let (mut part, mut head) = (Part::Missing(&position), None);
        loop {
            let answer = self.ask(retained, part, in_hand.room(PAGE)).await?;
            if head.is_none() {
                judge(&answer.head)?;
            }
            let head = head.get_or_insert(answer.head);
            let seen = seen.get_or_insert_with(|| head.placed(&position));
            let search = search.get_or_insert_with(|| Search::new(seen, head));
            for entry in &answer.entries {
                search.visit(entry.id, &entry.publication, seen);
            }
            let oldest = answer.last;
            in_hand.take(answer.entries, answer.whole);
            match oldest {
                Some(oldest) if !answer.exhausted && !search.is_done() => part = Part::Before(Some(oldest)),
                _ => break,
            }
        }
        let (Some(search), Some(head)) = (search, head) else { return Err(BrokerError::Unavailable.into()) };
        let (first, starts) = search.finish();
        let mut playback = Playback::new(position, starts, limit);
        playback.place(&head);
        let Some(first) = first else { return Ok((playback.complete(&head), head)) };
        let Some(entries) = in_hand.oldest_first() else {
            return self.forward(retained, playback, first, judge).await;
        };
        let chunk = match play(&mut playback, &entries) {
            None => playback.complete(&head),
            Some(_) => self.part(retained, playback, &head, first),
        };
        Ok((chunk, head))
    }

    /// Plays what stands from `first` on; as [`Self::after`].
    async fn forward(
        &self,
        retained: &Retained,
        mut playback: Playback,
        first: StreamId,
        judge: impl Fn(&Head) -> Result<(), Halt>,
    ) -> Result<(Chunk, Head), Halt> {
        let mut from = first;
        loop {
            let answer = self.ask(retained, Part::From(from), Room::of(PAGE, playback.room())).await?;
            let head = answer.head;
            judge(&head)?;
            playback.place(&head);
            if play(&mut playback, &answer.entries).is_some() {
                return Ok((self.part(retained, playback, &head, first), head));
            }
            match answer.last {
                Some(newest) if !answer.exhausted => from = newest.next(),
                _ => return Ok((playback.complete(&head), head)),
            }
        }
    }

    /// A chunk that is not the last one: whoever comes for the next need not search from the head again.
    fn part(&self, retained: &Retained, playback: Playback, head: &Head, first: StreamId) -> Chunk {
        let next = |from| Next { from, starts: playback.starts().clone() };
        // A session that has no room for the whole chunk comes back from within it.
        self.marks.set(&retained.channel, playback.start().clone(), next(first));
        if let Some(last) = playback.last() {
            self.marks.set(&retained.channel, playback.position().clone(), next(last.next()));
        }
        playback.part(head)
    }

    /// The page before `cursor`, or the last one.
    pub(crate) async fn page(
        &self,
        retained: &Retained,
        cursor: Option<StreamId>,
        limit: PageLimit,
    ) -> Result<Page, BrokerError> {
        let mut newest_first: Vec<Entry> = Vec::new();
        let (mut bytes, mut before) = (0, cursor);
        let more = 'pages: loop {
            // One more than is wanted tells whether a cursor leads further.
            let rest = limit.publications + 1 - newest_first.len();
            let room = Room::of(rest.min(PAGE), limit.bytes.saturating_sub(bytes));
            let answer = self.ask(retained, Part::Before(before), room).await?;
            for entry in answer.entries {
                bytes += entry.publication.frame().data.size();
                let full = newest_first.len() >= limit.publications
                    || bytes > limit.bytes && !newest_first.is_empty();
                if full {
                    break 'pages true;
                }
                newest_first.push(entry);
            }
            before = answer.last;
            if answer.cut {
                break true;
            }
            if answer.exhausted {
                break false;
            }
        };
        let cursor = newest_first.last().filter(|_| more).and_then(|oldest| cursor_at(&self.own, oldest.id));
        let publications = newest_first.into_iter().rev().map(|entry| entry.publication).collect();
        Ok(Page { publications, cursor, more })
    }

    /// The last entry of a partition's log, if it holds any.
    pub(crate) async fn newest_of_log(&self, partition: u16) -> Result<Option<StreamId>, BrokerError> {
        let log = self.keys.log(partition);
        let request = Request::command([b"XREVRANGE", log.as_bytes(), b"+", b"-", b"COUNT", b"1"]);
        let newest = self.commands.call(request).await.map_err(unavailable)?;
        let Value::Array(entries) = newest else { return Err(BrokerError::Unavailable) };
        let id = entries.into_iter().next().map(|entry| reply::parts(entry).map(|(id, _)| id)).transpose();
        id.map_err(|error| {
            tracing::error!(%error, partition, "the log's last entry cannot be read");
            BrokerError::Unavailable
        })
    }
}

/// What sessions get at once.
pub(crate) const CHUNK: ChunkLimit = ChunkLimit { publications: MAX_CHUNK, bytes: CHUNK_BYTES };

/// Offers entries, oldest first; gives the one before which the chunk ends.
fn play(playback: &mut Playback, entries: &[Entry]) -> Option<StreamId> {
    entries.iter().find(|entry| !playback.offer(entry)).map(|entry| entry.id)
}

/// A cursor says whose it is: in another region publications stand in another order.
fn cursor_at(own: &Origin, id: StreamId) -> Option<Text<128>> {
    Text::new(format!("{own}:{id}")).ok()
}

/// The entry to which a cursor of the region `own` leads.
///
/// # Errors
/// `BadCursor` when it is none, or another region's.
pub(crate) fn read_cursor(own: &Origin, cursor: &str) -> Result<StreamId, BrokerError> {
    let id = cursor.rsplit_once(':').filter(|(region, _)| *region == &**own).map(|(_, id)| id);
    // Nothing lies before 0-0, which Redis takes for no place at all.
    let id = id.and_then(StreamId::parse).filter(|id| (id.ms, id.sequence) != (0, 0));
    id.ok_or(BrokerError::BadCursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_before_which_nothing_can_be_is_none() {
        let own = Origin::new("eu").unwrap();
        assert!(read_cursor(&own, "eu:1718000000000-3").is_ok());
        for cursor in
            ["eu:0-0", "", "eu:", "eu:-", "eu:+", "eu:1-2-3", "1718000000000-3", "us:1718000000000-3"]
        {
            assert!(matches!(read_cursor(&own, cursor), Err(BrokerError::BadCursor)), "{cursor}");
        }
    }
}
