//! Which of a cluster's 16,384 slots a key is in.

use std::sync::Arc;

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;
/// In [`Slots`]: no server has it.
const NOBODY: u16 = u16::MAX;

/// CRC-16/XMODEM, byte by byte: polynomial 0x1021, from zero, not reflected.
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The slot of a key: CRC16 of its hash tag, or of the whole key, modulo 16,384 (Redis Cluster specification, "Key
/// distribution model" and "Hash tags").
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    let crc = hash_tag(key)
        .iter()
        .fold(0u16, |crc, byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) ^ u16::from(*byte))]);
    crc % SLOTS
}

/// What stands between the first `{` and the first `}` behind it; the whole key if that is nothing.
fn hash_tag(key: &[u8]) -> &[u8] {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|byte| *byte == b'}').map(|length| &rest[..length])
    });
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// Which of several servers has which slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots(Owners);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Owners {
    One,
    /// The number of each slot's server.
    Several(Arc<[u16]>),
}

impl Slots {
    /// One server has all.
    pub fn of_one() -> Self {
        Self(Owners::One)
    }

    /// From the first and the last slot of each range, and the number of its server. `None` when a slot is nobody's.
    pub(crate) fn of_ranges(ranges: impl IntoIterator<Item = (u16, u16, u16)>) -> Option<Self> {
        let mut owners = vec![NOBODY; usize::from(SLOTS)];
        for (first, last, server) in ranges {
            owners.get_mut(usize::from(first)..=usize::from(last))?.fill(server);
        }
        (!owners.contains(&NOBODY)).then(|| Self(Owners::Several(owners.into())))
    }

    /// The number of the server that has a key.
    pub fn server_of(&self, key: &[u8]) -> usize {
        match &self.0 {
            Owners::One => 0,
            Owners::Several(owners) => usize::from(owners[usize::from(slot_of(key))]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // Its own check value: 0x31c3.
        assert_eq!(slot_of(b"123456789"), 0x31c3);
        // As CLUSTER KEYSLOT answers.
        assert_eq!([slot_of(b"foo"), slot_of(b"sky:{6}:log"), slot_of(b"")], [12_182, slot_of(b"6"), 0]);
    }

    #[test]
    fn only_a_hash_tag_counts_where_there_is_one() {
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"foo{bar"), b"foo{bar");
    }

    #[test]
    fn a_slot_that_is_nobodys_is_noticed() {
        assert_eq!(Slots::of_ranges([(0, 8_000, 0), (8_002, 16_383, 1)]), None);
        assert_eq!(Slots::of_ranges([(0, 16_384, 0)]), None);
        assert_eq!(Slots::of_ranges([(5, 4, 0)]), None);
        let slots = Slots::of_ranges([(0, 12_181, 0), (12_182, 16_383, 1)]).unwrap();
        assert_eq!([slots.server_of(b"foo"), slots.server_of(b"")], [1, 0]);
    }
}
