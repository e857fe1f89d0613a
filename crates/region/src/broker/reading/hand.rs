//! How much of a history is read at once, and what of it need not be read again.

use super::CHUNK_BYTES;
use crate::broker::entry::Entry;
use skywave_channels::broker::MAX_CHUNK;
use std::fmt;

/// The most payload bytes that a search looks at in one step; it needs none of them.
const LOOK_BYTES: usize = 1 << 20;

/// How much is read at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub entries: usize,
    /// Of their payloads.
    bytes: usize,
    /// Of payloads that are looked at; those for which there is no room are left out.
    look: usize,
}

impl Room {
    /// For so many entries, each of them whole: one in any case, the others while they fit.
    pub(crate) fn of(entries: usize, bytes: usize) -> Self {
        Self { entries, bytes: bytes.max(1), look: bytes }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.entries, self.bytes, self.look)
    }
}

/// Entries that a search read, the newest first, and that need not be read again: none once there are too many.
pub(crate) struct Hand {
    entries: Option<Vec<Entry>>,
    bytes: usize,
}

impl Hand {
    /// With room for so many bytes of payloads.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { entries: Some(Vec::new()), bytes: bytes.min(CHUNK_BYTES) }
    }

    /// For a search that goes on: payloads are of use while all of them fit.
    pub(crate) fn room(&self, entries: usize) -> Room {
        let bytes = if self.entries.is_some() { self.bytes } else { 0 };
        Room { entries, bytes, look: LOOK_BYTES }
    }

    pub(crate) fn take(&mut self, entries: Vec<Entry>, whole: bool) {
        let size = entries.iter().map(|entry| entry.publication.frame().data.size()).sum();
        self.bytes = self.bytes.saturating_sub(size);
        let fits = |held: &Vec<Entry>| whole && held.len() + entries.len() <= MAX_CHUNK;
        self.entries = self.entries.take().filter(fits);
        if let Some(held) = &mut self.entries {
            held.extend(entries);
        }
    }

    pub(crate) fn oldest_first(self) -> Option<Vec<Entry>> {
        let mut entries = self.entries?;
        entries.reverse();
        Some(entries)
    }
}
