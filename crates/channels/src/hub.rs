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
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

const SHARDS: usize = 64;

type Shard = RwLock<HashMap<Channel, Audience>>;

/// All subscriptions of this node.
pub struct Hub {
    shards: Vec<Shard>,
    hasher: RandomState,
    joined: AtomicU64,
}

/// The subscribers of a channel. To come, to leave, and to ask whether anybody is told of presence cost the same
/// however many there are.
struct Audience {
    all: Vec<Subscriber>,
    /// How many want to be told who comes and goes.
    watching: usize,
}

struct Subscriber {
    outbox: Arc<Outbox>,
    lane: LaneId,
    /// Wants to be told who comes and goes.
    presence: bool,
    place: Place,
}

/// Where a subscriber stands among all of its channel. It changes under the lock of these only.
type Place = Arc<AtomicUsize>;

impl Audience {
    fn push(&mut self, subscriber: Subscriber) {
        subscriber.place.store(self.all.len(), Ordering::Relaxed);
        self.watching += usize::from(subscriber.presence);
        self.all.push(subscriber);
    }

    fn remove(&mut self, place: &Place) {
        let index = place.load(Ordering::Relaxed);
        let subscriber = self.all.swap_remove(index);
        self.watching -= usize::from(subscriber.presence);
        if let Some(moved) = self.all.get(index) {
            moved.place.store(index, Ordering::Relaxed);
        }
        if self.all.len() * 4 < self.all.capacity() {
            self.all.shrink_to(self.all.len() * 2);
        }
    }
}

/// A subscription; dropping it ends it.
pub struct Membership {
    hub: Arc<Hub>,
    outbox: Arc<Outbox>,
    channel: Channel,
    lane: LaneId,
    number: u64,
    place: Place,
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
        self.hub.leave(&self.channel, &self.place);
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
        let place = Place::default();
        let subscriber = Subscriber { outbox: outbox.clone(), lane, presence, place: place.clone() };
        let mut channels = self.shard(&channel).write();
        match channels.get_mut(&channel) {
            Some(audience) => audience.push(subscriber),
            None => {
                // Most channels have but one.
                let mut audience = Audience { all: Vec::with_capacity(1), watching: 0 };
                audience.push(subscriber);
                channels.insert(channel.clone(), audience);
            }
        }
        drop(channels);
        Membership { hub: self.clone(), outbox: outbox.clone(), channel, lane, number, place }
    }

    fn leave(&self, channel: &Channel, place: &Place) {
        let mut channels = self.shard(channel).write();
        let Some(audience) = channels.get_mut(channel) else { return };
        audience.remove(place);
        if audience.all.is_empty() {
            channels.remove(channel);
        }
    }

    fn each(&self, channel: &Channel, mut deliver: impl FnMut(&Subscriber)) {
        if let Some(audience) = self.shard(channel).read().get(channel) {
            audience.all.iter().for_each(&mut deliver);
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
        self.shard(channel).read().get(channel).is_some_and(|audience| audience.watching > 0)
    }

    /// How many sessions of this node are subscribed to `channel`.
    pub fn subscribers(&self, channel: &Channel) -> usize {
        self.shard(channel).read().get(channel).map_or(0, |audience| audience.all.len())
    }

    /// How many channels have at least one subscriber on this node.
    pub fn channel_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// All channels with at least one subscriber on this node, with their number.
    pub fn channels(&self) -> Vec<(Channel, usize)> {
        let of_shard = |shard: &Shard| -> Vec<_> {
            shard.read().iter().map(|(channel, audience)| (channel.clone(), audience.all.len())).collect()
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
            for (_, audience) in shard.read().iter().filter(|(channel, _)| is_affected(channel)) {
                audience.all.iter().for_each(|subscriber| subscriber.outbox.doubt(subscriber.lane));
            }
        }
    }

    fn is_followed(&self, channel: &Channel) -> bool {
        self.subscribers(channel) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::form;
    use std::collections::HashSet;

    #[test]
    fn those_who_stay_are_found_in_whatever_order_others_leave() {
        let hub: Arc<Hub> = Arc::default();
        let channel = Channel::new("chat:1").unwrap();
        let join = |presence| {
            let outbox = Arc::new(Outbox::new(&form::JSON, 65_536));
            let membership = hub.join(channel.clone(), &outbox, presence);
            (outbox, membership)
        };
        let mut joined: Vec<_> = (0..64).map(|number| join(number % 8 == 0)).collect();
        // First, last and in between, one by one.
        for turn in 0..60 {
            drop(joined.swap_remove([0, joined.len() - 1, joined.len() / 2][turn % 3]));
            let mut found = Vec::new();
            hub.each(&channel, |subscriber| {
                found.push((Arc::as_ptr(&subscriber.outbox), subscriber.presence))
            });
            let expected = joined.iter().map(|(outbox, _)| Arc::as_ptr(outbox)).collect::<HashSet<_>>();
            assert_eq!(found.len(), joined.len());
            assert!(found.iter().all(|(outbox, _)| expected.contains(outbox)));
            assert_eq!(hub.is_watched(&channel), found.iter().any(|(_, presence)| *presence));
        }
        drop(joined);
        assert_eq!((hub.subscribers(&channel), hub.channel_count()), (0, 0));
    }
}
