//! Filling a subscription's lane from history, part by part, while its session goes on.

use super::{
    Session,
    connection::Connection,
    pending::{Done, Load},
    refusal::Refusal,
};
use crate::{
    broker::{Broker, BrokerError, Chunk, ReadFrom},
    hub::outbox::LaneId,
    node::Node,
    redis::backoff::Backoff,
};
use skywave_protocol::{Channel, Position};
use std::{ops::RangeInclusive, time::Duration};

/// Before a broker that cannot be reached is asked again.
const READ_PAUSE: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(2);

/// The partitions of which a channel's history is being read: one channel of each at a time. So a server that does not
/// answer holds up no other's channels, and what is read at once stays bounded.
#[derive(Default)]
pub(crate) struct Fills(Vec<u16>);

impl Fills {
    /// Whether the history of any channel may be read now.
    pub(crate) fn has_room(&self, broker: &dyn Broker) -> bool {
        self.0.len() < usize::from(broker.partitions())
    }

    /// Whether a channel's history may be read now. Asked for each that waits: it must cost the same however many there
    /// are.
    pub(crate) fn may_begin(&self, channel: &Channel, broker: &dyn Broker) -> bool {
        !self.0.contains(&broker.partition(channel))
    }
}

/// A part of a history that was read for a lane.
pub(crate) struct Filling {
    channel: Channel,
    partition: u16,
    /// Of the membership for which it was read.
    number: u64,
    outcome: Result<Chunk, BrokerError>,
}

/// What follows `position`. A broker that cannot be reached is asked again for as long as it takes: meanwhile the
/// subscription stands.
async fn read_on(node: &Node, channel: &Channel, position: Position) -> Result<Chunk, BrokerError> {
    // Many wait for the same broker.
    let mut backoff = Backoff::new(READ_PAUSE, &node.host.chance);
    loop {
        match node.broker.read(channel, ReadFrom::Position(position.clone())).await {
            Err(BrokerError::Unavailable) => {}
            outcome => return outcome,
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

impl<C: Connection> Session<C> {
    /// Begins to read the next part of a lane's history, from where its peer stands. The session goes on meanwhile.
    pub(super) fn start_filling(&mut self, lane: LaneId) {
        let (Some(channel), Some(position)) = (self.outbox.channel(lane), self.outbox.position(lane)) else {
            return;
        };
        let subscription = self.subscriptions.get(&channel).filter(|one| one.membership.lane() == lane);
        let Some(subscription) = subscription else { return };
        let (node, number) = (self.node.clone(), subscription.membership.number());
        let partition = node.broker.partition(&channel);
        self.fills.0.push(partition);
        self.pending.begin(Load::Reading, async move {
            let outcome = read_on(&node, &channel, position).await;
            Done::Read(Filling { channel, partition, number, outcome })
        });
    }

    pub(super) fn finish_filling(&mut self, filling: Filling) {
        let Filling { channel, partition, number, outcome } = filling;
        self.fills.0.retain(|reading| *reading != partition);
        // It may have been left meanwhile, and subscribed to again.
        let subscription = self.subscriptions.get(&channel);
        let Some(subscription) = subscription.filter(|one| one.membership.number() == number) else { return };
        match outcome {
            Ok(chunk) => {
                self.outbox.fill(subscription.membership.lane(), &chunk);
            }
            Err(error) => self.end_subscription(&channel, Refusal::from(error).code),
        }
    }
}
