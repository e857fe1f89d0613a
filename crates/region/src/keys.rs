//! The names of what a region's nodes share, and of what it knows of the others.

use skywave_protocol::{Channel, frame::Key};
use skywave_redis::Keys;

/// Between channel and idempotency key. A channel has no control characters, so that no two pairs share a name.
const KEY_SEPARATOR: char = '\u{1f}';

/// Asked for like those that every Redis has.
pub trait RegionKeys {
    fn keys(&self) -> &Keys;

    /// Stream: the region's publications.
    fn log(&self, partition: u16) -> String {
        self.keys().of_partition(partition, "log")
    }

    /// Bitmap: which channels have got a position in the present epoch.
    fn begun(&self, partition: u16) -> String {
        self.keys().of_partition(partition, "begun")
    }

    /// Pub/sub channel of events.
    fn event(&self, partition: u16) -> String {
        self.keys().said_in(partition, "event")
    }

    /// Pub/sub channel of what the region accepts, for the other regions.
    fn out(&self, partition: u16) -> String {
        self.keys().said_in(partition, "out")
    }

    /// Hash: other region → how much of its log was applied here.
    fn cursor(&self, partition: u16) -> String {
        self.keys().of_partition(partition, "cursor")
    }

    /// Hash: who holds a lease.
    fn lease(&self, name: &str) -> String {
        self.keys().of_all(&format!("lease:{name}"))
    }

    /// Stream: the beats of another region.
    fn link(&self, from: &str) -> String {
        self.keys().of_all(&format!("link:{from}"))
    }

    /// What the region knows of its link to another.
    fn link_state(&self, to: &str) -> String {
        self.keys().of_all(&format!("linkstate:{to}"))
    }

    /// Hash: origin → `epoch:offset`.
    fn position(&self, channel: &Channel) -> String {
        self.keys().of_partition(self.keys().partition(channel), &format!("pos:{}", &**channel))
    }

    /// What the keys of all positions match.
    fn positions(&self) -> String {
        self.keys().of_all("{*}:pos:*")
    }

    /// The partition and the channel whose position has this key.
    fn channel_of_position(&self, key: &str) -> Option<(u16, Channel)> {
        let rest = key.strip_prefix(self.keys().prefix())?.strip_prefix(":{")?;
        let (partition, channel) = rest.split_once("}:pos:")?;
        let (partition, channel) = (partition.parse().ok()?, Channel::new(channel).ok()?);
        (self.keys().partition(&channel) == partition).then_some((partition, channel))
    }

    /// Stream: the channel's retained publications.
    fn history(&self, channel: &Channel) -> String {
        self.keys().of_partition(self.keys().partition(channel), &format!("hist:{}", &**channel))
    }

    /// The position that an idempotency key got.
    fn idempotency(&self, channel: &Channel, key: &Key) -> String {
        self.keys().of_partition(
            self.keys().partition(channel),
            &format!("key:{}{KEY_SEPARATOR}{}", &**channel, &**key),
        )
    }

    /// Pub/sub channel of changes of the partition's presence.
    fn presence_news(&self, partition: u16) -> String {
        self.keys().said_in(partition, "presence")
    }

    /// Hash: session → who is there.
    fn room(&self, channel: &Channel) -> String {
        self.keys().of_partition(self.keys().partition(channel), &format!("presence:{}", &**channel))
    }

    /// Set: the channels and sessions that a holder of presence holds.
    fn held_by(&self, partition: u16, holder: &str) -> String {
        self.keys().of_partition(partition, &format!("presence-of:{holder}"))
    }

    /// Sorted set: holder of presence → until when.
    fn holders(&self, partition: u16) -> String {
        self.keys().of_partition(partition, "presence-holders")
    }
}

impl RegionKeys for Keys {
    fn keys(&self) -> &Keys {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::Text;

    #[test]
    fn the_keys_of_a_channel_share_the_hash_tag_of_its_partition() {
        let keys = Keys::new("sky".into(), 16);
        let channel = Channel::new("chat:{x}").unwrap();
        let partition = keys.partition(&channel);
        let tag = format!("sky:{{{partition}}}:");
        for name in [keys.log(partition), keys.position(&channel), keys.history(&channel)] {
            assert!(name.starts_with(&tag), "{name}");
        }
    }

    #[test]
    fn the_key_of_a_position_tells_its_channel() {
        let keys = Keys::new("sky".into(), 16);
        for name in ["chat:1", "@alice", "chat:{x}:pos:y"] {
            let channel = Channel::new(name).unwrap();
            let told = keys.channel_of_position(&keys.position(&channel));
            assert_eq!(told, Some((keys.partition(&channel), channel)));
        }
        for foreign in ["other:{6}:pos:chat:1", "sky:{7}:pos:chat:1", "sky:{6}:hist:chat:1", "sky:{6}:pos:"] {
            assert_eq!(keys.channel_of_position(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn two_pairs_of_channel_and_key_never_share_a_name() {
        let keys = Keys::new("sky".into(), 1);
        let name = |channel, key| keys.idempotency(&Channel::new(channel).unwrap(), &Text::new(key).unwrap());
        assert_ne!(name("chat:1", "2:x"), name("chat:1:2", "x"));
    }
}
