//! Where things stand in Redis: a channel's partition, and the names of keys and of pub/sub channels.

use skywave_protocol::{Channel, frame::Key};

/// Between channel and idempotency key. A channel has no control characters, so that no two pairs share a name.
const KEY_SEPARATOR: char = '\u{1f}';

/// Names keys. All keys of a partition share a hash tag, so that a script may touch them in Redis Cluster.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
    /// Of pub/sub channels.
    said: String,
    partitions: u16,
}

impl Keys {
    pub fn new(prefix: String, partitions: u16) -> Self {
        Self { said: prefix.clone(), prefix, partitions: partitions.max(1) }
    }

    /// The same in a database of this number. Keys are its own; what is said is heard in all databases of a server, so that
    /// pub/sub channels have the number in their names.
    pub fn in_database(self, number: u32) -> Self {
        let said = if number == 0 { self.prefix.clone() } else { format!("{}:db{number}", self.prefix) };
        Self { said, ..self }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// FNV-1a of the channel's name, modulo the number of partitions. All versions of all nodes must agree.
    pub fn partition(&self, channel: &Channel) -> u16 {
        partition_of(channel, self.partitions)
    }

    fn name(&self, partition: u16, rest: &str) -> String {
        format!("{}:{{{partition}}}:{rest}", self.prefix)
    }

    fn channel(&self, partition: u16, rest: &str) -> String {
        format!("{}:{{{partition}}}:{rest}", self.said)
    }

    /// Hash: which life the partition is in.
    pub fn life(&self, partition: u16) -> String {
        self.name(partition, "life")
    }

    /// Stream: the region's publications.
    pub fn log(&self, partition: u16) -> String {
        self.name(partition, "log")
    }

    /// Bitmap: which channels have got a position in the present epoch.
    pub fn begun(&self, partition: u16) -> String {
        self.name(partition, "begun")
    }

    /// Pub/sub channel of events.
    pub fn event(&self, partition: u16) -> String {
        self.channel(partition, "event")
    }

    /// Pub/sub channel of what the region accepts, for the other regions.
    pub fn out(&self, partition: u16) -> String {
        self.channel(partition, "out")
    }

    /// Hash: other region → how much of its log was applied here.
    pub fn cursor(&self, partition: u16) -> String {
        self.name(partition, "cursor")
    }

    /// Hash: who holds a lease.
    pub fn lease(&self, name: &str) -> String {
        format!("{}:lease:{name}", self.prefix)
    }

    /// Stream: the beats of another region.
    pub fn link(&self, from: &str) -> String {
        format!("{}:link:{from}", self.prefix)
    }

    /// What the region knows of its link to another.
    pub fn link_state(&self, to: &str) -> String {
        format!("{}:linkstate:{to}", self.prefix)
    }

    /// Hash: origin → `epoch:offset`.
    pub fn position(&self, channel: &Channel) -> String {
        self.name(self.partition(channel), &format!("pos:{}", &**channel))
    }

    /// What the keys of all positions match.
    pub fn positions(&self) -> String {
        format!("{}:{{*}}:pos:*", self.prefix)
    }

    /// The partition and the channel whose position has this key.
    pub fn channel_of_position(&self, key: &str) -> Option<(u16, Channel)> {
        let rest = key.strip_prefix(&*self.prefix)?.strip_prefix(":{")?;
        let (partition, channel) = rest.split_once("}:pos:")?;
        let (partition, channel) = (partition.parse().ok()?, Channel::new(channel).ok()?);
        (self.partition(&channel) == partition).then_some((partition, channel))
    }

    /// Stream: the channel's retained publications.
    pub fn history(&self, channel: &Channel) -> String {
        self.name(self.partition(channel), &format!("hist:{}", &**channel))
    }

    /// The position that an idempotency key got.
    pub fn idempotency(&self, channel: &Channel, key: &Key) -> String {
        self.name(self.partition(channel), &format!("key:{}{KEY_SEPARATOR}{}", &**channel, &**key))
    }

    /// A node's record, for whoever looks: it expires when the node is gone.
    pub fn node(&self, id: &str) -> String {
        format!("{}:node:{id}", self.prefix)
    }

    /// Hash: the records of all nodes by id.
    pub fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    /// Pub/sub channel that says that one of them changed.
    pub fn nodes_news(&self) -> String {
        format!("{}:nodes", self.said)
    }

    /// The partition of a session, like that of a channel.
    pub fn partition_of_session(&self, session: &str) -> u16 {
        partition_of_name(session, self.partitions)
    }

    /// Which transport of which node has a session.
    pub fn session(&self, session: &str) -> String {
        self.name(self.partition_of_session(session), &format!("session:{session}"))
    }

    /// Hash: how often a node was told of the partition's sessions.
    pub fn told(&self, partition: u16, node: &str) -> String {
        self.name(partition, &format!("told:{node}"))
    }

    /// Pub/sub channel of what is for one node.
    pub fn inbox(&self, node: &str) -> String {
        format!("{}:inbox:{node}", self.said)
    }

    /// Pub/sub channel of what is for all nodes.
    pub fn inbox_of_all(&self) -> String {
        format!("{}:inbox", self.said)
    }

    /// Pub/sub channel of changes of the partition's presence.
    pub fn presence_news(&self, partition: u16) -> String {
        self.channel(partition, "presence")
    }

    /// Hash: session → who is there.
    pub fn room(&self, channel: &Channel) -> String {
        self.name(self.partition(channel), &format!("presence:{}", &**channel))
    }

    /// Set: the channels and sessions that a holder of presence holds.
    pub fn held_by(&self, partition: u16, holder: &str) -> String {
        self.name(partition, &format!("presence-of:{holder}"))
    }

    /// Sorted set: holder of presence → until when.
    pub fn holders(&self, partition: u16) -> String {
        self.name(partition, "presence-holders")
    }

    /// Pub/sub channel on which a subscription is tried.
    pub fn probe(&self, number: u64) -> String {
        format!("{}:probe:{number:016x}", self.said)
    }

    /// How many partitions the deployment has.
    pub fn partition_count(&self) -> String {
        format!("{}:partitions", self.prefix)
    }

    /// The name of the region whose Redis it is, on the server that has [`Self::partition_count`].
    pub fn region(&self) -> String {
        format!("{}:{{{}}}:region", self.prefix, self.partition_count())
    }
}

/// The partition of a channel where there are so many, at least one.
pub fn partition_of(channel: &Channel, partitions: u16) -> u16 {
    partition_of_name(channel, partitions)
}

fn partition_of_name(name: &str, partitions: u16) -> u16 {
    // The remainder is smaller than a u16.
    (fnv1a(name.as_bytes()) % u64::from(partitions.max(1))) as u16
}

/// The 64-bit FNV-1a hash (draft-eastlake-fnv).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::slot_of;
    use skywave_protocol::Text;

    #[test]
    fn channels_stay_in_their_partition_for_ever() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        let keys = Keys::new("sky".into(), 16);
        let partition = |name| keys.partition(&Channel::new(name).unwrap());
        assert_eq!([partition("chat:1"), partition("chat:2"), partition("@alice")], [6, 3, 9]);
    }

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
    fn what_is_said_in_a_database_has_a_name_of_its_own_and_what_stands_in_it_has_not() {
        let keys = |number| Keys::new("sky".into(), 16).in_database(number);
        let said = |keys: &Keys| {
            let partitioned = [keys.event(3), keys.out(3), keys.presence_news(3)];
            let others = [keys.nodes_news(), keys.inbox("a"), keys.inbox_of_all(), keys.probe(7)];
            [&partitioned[..], &others].concat()
        };
        let (first, other) = (said(&keys(0)), said(&keys(4)));
        assert_eq!(first[0], "sky:{3}:event");
        assert_eq!(other[0], "sky:db4:{3}:event");
        assert!(first.iter().all(|name| !other.contains(name)));
        assert_eq!((keys(0).log(3), keys(0).nodes()), (keys(4).log(3), keys(4).nodes()));
    }

    #[test]
    fn one_server_of_a_cluster_has_all_that_tells_whose_a_redis_is() {
        let keys = Keys::new("sky".into(), 16);
        let slot = |key: String| slot_of(key.as_bytes());
        assert_eq!(slot(keys.region()), slot(keys.partition_count()));
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
