//! What is asked of a Redis: a script or a command, and where it goes.

use crate::{script::Script, slot::slot_of};

/// Something to be asked of Redis.
#[derive(Debug)]
pub enum Request {
    /// The keys decide where it goes; they share a hash tag.
    Script { script: &'static Script, keys: Vec<String>, args: Vec<Vec<u8>> },
    /// A command of one key: its name, the key, the rest.
    Command(Vec<Vec<u8>>),
}

impl Request {
    /// A command as words.
    pub fn command<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> Self {
        Self::Command(words.into_iter().map(|word| word.as_ref().to_vec()).collect())
    }

    /// What metrics call it: a script by its name, pub/sub `say`, and other commands as Redis does.
    pub fn name(&self) -> &'static str {
        let words = match self {
            Self::Script { script, .. } => return script.name,
            Self::Command(words) => words,
        };
        match words.first().map(Vec::as_slice) {
            Some(b"PUBLISH") => "say",
            Some(b"GET") => "get",
            Some(b"SET") => "set",
            Some(b"DEL") => "del",
            Some(b"PTTL") => "pttl",
            Some(b"HGET") => "hget",
            Some(b"HSET") => "hset",
            Some(b"HDEL") => "hdel",
            Some(b"SADD") => "sadd",
            Some(b"SREM") => "srem",
            Some(b"SMEMBERS") => "smembers",
            Some(b"SSCAN") => "sscan",
            Some(b"SCAN") => "scan",
            Some(b"XADD") => "xadd",
            Some(b"XRANGE") => "xrange",
            Some(b"XREVRANGE") => "xrevrange",
            _ => "other",
        }
    }

    /// The key that decides where it goes. A pub/sub channel serves as one: what is said on any server of a cluster is
    /// heard on all.
    pub fn key(&self) -> &[u8] {
        let key = match self {
            Self::Script { keys, .. } => keys.first().map(String::as_bytes),
            Self::Command(words) => words.get(1).map(Vec::as_slice),
        };
        key.unwrap_or_default()
    }

    /// Whether one server of a cluster has all its keys.
    pub(crate) fn is_of_one_slot(&self) -> bool {
        match self {
            Self::Script { keys, .. } => {
                keys.iter().all(|key| slot_of(key.as_bytes()) == slot_of(self.key()))
            }
            Self::Command(_) => true,
        }
    }

    /// Roughly what it takes in memory.
    pub fn size(&self) -> usize {
        const OVERHEAD: usize = 128;
        let bytes = |words: &[Vec<u8>]| words.iter().map(Vec::len).sum::<usize>();
        OVERHEAD
            + match self {
                Self::Script { keys, args, .. } => keys.iter().map(String::len).sum::<usize>() + bytes(args),
                Self::Command(words) => bytes(words),
            }
    }
}
