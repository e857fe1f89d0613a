//! What a publication costs in memory does not grow with its subscribers.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use allocation_counter::{AllocationInfo, measure};
use futures_util::FutureExt;
use skywave::{
    broker::{Broker, Chunk, Delivery, Publish, memory::MemoryBroker},
    config::Config,
    host::Host,
    hub::{Hub, Membership, outbox::Outbox},
};
use skywave_protocol::{Channel, Json, Text, form};
use std::{
    sync::Arc,
    task::{Context, Waker},
};

/// A channel with subscribers in all forms, and the broker that delivers to them.
struct Room {
    broker: MemoryBroker,
    outboxes: Vec<Arc<Outbox>>,
    memberships: Vec<Membership>,
}

fn channel() -> Channel {
    Channel::new("chat:1").unwrap()
}

impl Room {
    fn new(subscribers: usize) -> Self {
        let environment: [(String, String); 0] = [];
        let config = Config::load(None, true, environment).unwrap();
        let hub = Arc::new(Hub::default());
        let delivery: Arc<dyn Delivery> = hub.clone();
        let broker = MemoryBroker::new(&Host::machine(), Text::new("eu").unwrap(), config.channels, delivery);
        let forms = [&form::MESSAGE_PACK, &form::JSON_TEXT, &form::JSON];
        let outboxes: Vec<_> = forms
            .into_iter()
            .cycle()
            .take(subscribers)
            .map(|form| Arc::new(Outbox::new(form, 1 << 20)))
            .collect();
        let memberships: Vec<_> = outboxes.iter().map(|outbox| hub.join(channel(), outbox, false)).collect();
        for (outbox, membership) in outboxes.iter().zip(&memberships) {
            outbox.fill(membership.lane(), &Chunk { complete: true, ..Chunk::default() });
        }
        Self { broker, outboxes, memberships }
    }

    /// Publishes, and takes the publication from every outbox as the transports do.
    fn publish(&self) {
        let data = Json::parse("\"the same for all\"").unwrap().into();
        let publish = Publish { channel: channel(), data, key: None, user: None };
        self.broker.publish(publish).now_or_never().unwrap().unwrap();
        let context = Context::from_waker(Waker::noop());
        for (outbox, membership) in self.outboxes.iter().zip(&self.memberships) {
            outbox.register(&context);
            assert_eq!(outbox.ready_lane(), Some(membership.lane()));
            assert!(outbox.take(membership.lane()).is_some());
            assert!(outbox.take(membership.lane()).is_none());
        }
    }

    /// What a publication allocates once all queues have been used.
    fn cost(&self) -> AllocationInfo {
        // The history is full by then, too.
        for _ in 0..300 {
            self.publish();
        }
        measure(|| self.publish())
    }
}

#[test]
fn a_publication_to_a_thousand_allocates_no_more_than_one_to_three() {
    let (three, thousand) = (Room::new(3).cost(), Room::new(1000).cost());
    assert_eq!(thousand.count_total, three.count_total);
    assert_eq!(thousand.bytes_total, three.bytes_total);
    assert!(three.count_total > 0, "nothing was measured");
}
