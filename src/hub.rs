//! Channels → subscribers on this node, and the fan-out to them. It never learns where publications come from.

pub mod outbox;

use crate::{
    broadcast::{Event, PresenceChanged, Publication},
    broker::Delivery,
};
use outbox::{LaneId, Outbox};
use parking_lot::RwLock;
use skywave_protocol::Channel;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const SHARDS: usize = 64;

type Shard = RwLock<HashMap<Channel, Vec<Subscriber>>>;

/// All subscriptions of this node.
pub struct Hub {
    shards: Vec<Shard>,
    hasher: RandomState,
    joined: AtomicU64,
}

struct Subscriber {
    outbox: Arc<Outbox>,
    lane: LaneId,
    /// Wants to be told who comes and goes.
    presence: bool,
}

/// A subscription; dropping it ends it.
pub struct Membership {
    hub: Arc<Hub>,
    outbox: Arc<Outbox>,
    channel: Channel,
    lane: LaneId,
    number: u64,
}

impl Membership {
    /// No other subscription of this node has it; later ones have larger ones.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn lane(&self) -> LaneId {
        self.lane
    }

    pub fn channel(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.hub.leave(&self.channel, &self.outbox, self.lane);
        self.outbox.close_lane(self.lane);
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
            joined: AtomicU64::new(0),
        }
    }
}

impl Hub {
    fn shard(&self, channel: &Channel) -> &Shard {
        &self.shards[self.hasher.hash_one(channel) as usize % SHARDS]
    }

    /// Subscribes; publications gather in the new lane until it is filled.
    pub fn join(self: &Arc<Self>, channel: Channel, outbox: &Arc<Outbox>, presence: bool) -> Membership {
        let number = self.joined.fetch_add(1, Ordering::Relaxed);
        let lane = outbox.open_lane(channel.clone(), number);
        let subscriber = Subscriber { outbox: outbox.clone(), lane, presence };
        let mut channels = self.shard(&channel).write();
        match channels.get_mut(&channel) {
            Some(subscribers) => subscribers.push(subscriber),
            None => {
                channels.insert(channel.clone(), vec![subscriber]);
            }
        }
        drop(channels);
        Membership { hub: self.clone(), outbox: outbox.clone(), channel, lane, number }
    }

    fn leave(&self, channel: &Channel, outbox: &Arc<Outbox>, lane: LaneId) {
        let mut channels = self.shard(channel).write();
        let Some(subscribers) = channels.get_mut(channel) else { return };
        let found = subscribers.iter().position(|one| one.lane == lane && Arc::ptr_eq(&one.outbox, outbox));
        if let Some(index) = found {
            subscribers.swap_remove(index);
        }
        if subscribers.is_empty() {
            channels.remove(channel);
        } else if subscribers.len() * 4 < subscribers.capacity() {
            let keep = subscribers.len() * 2;
            subscribers.shrink_to(keep);
        }
    }

    fn each(&self, channel: &Channel, mut deliver: impl FnMut(&Subscriber)) {
        if let Some(subscribers) = self.shard(channel).read().get(channel) {
            for subscriber in subscribers {
                deliver(subscriber);
            }
        }
    }

    /// Tells those who asked who came and went.
    pub fn presence_changed(&self, change: &Arc<PresenceChanged>) {
        self.each(&change.frame().channel, |subscriber| {
            if subscriber.presence {
                subscriber.outbox.presence_changed(subscriber.lane, change);
            }
        });
    }

    /// Whether any session of this node is told who comes and goes on `channel`.
    pub fn is_watched(&self, channel: &Channel) -> bool {
        let subscribers = self.shard(channel).read();
        subscribers.get(channel).is_some_and(|all| all.iter().any(|subscriber| subscriber.presence))
    }

    /// How many sessions of this node are subscribed to `channel`.
    pub fn subscribers(&self, channel: &Channel) -> usize {
        self.shard(channel).read().get(channel).map_or(0, Vec::len)
    }

    /// How many channels have at least one subscriber on this node.
    pub fn channel_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// All channels with at least one subscriber on this node, with their number.
    pub fn channels(&self) -> Vec<(Channel, usize)> {
        let of_shard = |shard: &Shard| -> Vec<_> {
            shard.read().iter().map(|(channel, subscribers)| (channel.clone(), subscribers.len())).collect()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }
}

impl Delivery for Hub {
    fn publication(&self, publication: &Arc<Publication>) {
        self.each(&publication.frame().channel, |subscriber| {
            subscriber.outbox.publication(subscriber.lane, publication);
        });
    }

    fn event(&self, event: &Arc<Event>) {
        self.each(&event.frame().channel, |subscriber| subscriber.outbox.event(event));
    }

    fn uncertain(&self, is_affected: &dyn Fn(&Channel) -> bool) {
        for shard in &self.shards {
            for (_, subscribers) in shard.read().iter().filter(|(channel, _)| is_affected(channel)) {
                subscribers.iter().for_each(|subscriber| subscriber.outbox.doubt(subscriber.lane));
            }
        }
    }

    fn is_followed(&self, channel: &Channel) -> bool {
        self.subscribers(channel) > 0
    }
}
