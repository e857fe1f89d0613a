//! Names of keys and pub/sub channels in Redis, and a channel's partition. Owners of keys name their own.

use skywave_protocol::Channel;

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

    /// The same in a database of this number. Keys are its own. What is said is heard in all databases of a server, so
    /// pub/sub channels have the number in their names.
    pub(crate) fn in_database(self, number: u32) -> Self {
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

    /// As [`Self::partition`], of what is spread as channels are.
    pub fn partition_of_name(&self, name: &str) -> u16 {
        partition_of_name(name, self.partitions)
    }

    /// A key of no partition.
    pub fn of_all(&self, rest: &str) -> String {
        format!("{}:{rest}", self.prefix)
    }

    /// A key of a partition.
    pub fn of_partition(&self, partition: u16, rest: &str) -> String {
        format!("{}:{{{partition}}}:{rest}", self.prefix)
    }

    /// A pub/sub channel of no partition.
    pub fn said(&self, rest: &str) -> String {
        format!("{}:{rest}", self.said)
    }

    /// A pub/sub channel of a partition.
    pub fn said_in(&self, partition: u16, rest: &str) -> String {
        format!("{}:{{{partition}}}:{rest}", self.said)
    }

    /// Hash: which life the partition is in.
    pub fn life(&self, partition: u16) -> String {
        self.of_partition(partition, "life")
    }

    /// Pub/sub channel on which a subscription is tried.
    pub fn probe(&self, number: u64) -> String {
        self.said(&format!("probe:{number:016x}"))
    }

    /// How many partitions the deployment has.
    pub(crate) fn partition_count(&self) -> String {
        self.of_all("partitions")
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

    #[test]
    fn channels_stay_in_their_partition_for_ever() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        let keys = Keys::new("sky".into(), 16);
        let partition = |name| keys.partition(&Channel::new(name).unwrap());
        assert_eq!([partition("chat:1"), partition("chat:2"), partition("@alice")], [6, 3, 9]);
    }

    #[test]
    fn what_is_said_in_a_database_has_a_name_of_its_own_and_what_stands_in_it_has_not() {
        let keys = |number| Keys::new("sky".into(), 16).in_database(number);
        let said = |keys: &Keys| [keys.said_in(3, "event"), keys.said("nodes"), keys.probe(7)];
        assert_eq!(said(&keys(0)), ["sky:{3}:event", "sky:nodes", "sky:probe:0000000000000007"]);
        assert_eq!(said(&keys(4)), ["sky:db4:{3}:event", "sky:db4:nodes", "sky:db4:probe:0000000000000007"]);
        assert_eq!((keys(0).life(3), keys(0).of_all("nodes")), (keys(4).life(3), keys(4).of_all("nodes")));
    }

    #[test]
    fn one_server_of_a_cluster_has_all_that_tells_whose_a_redis_is() {
        let keys = Keys::new("sky".into(), 16);
        let slot = |key: String| slot_of(key.as_bytes());
        assert_eq!(slot(keys.region()), slot(keys.partition_count()));
    }
}
