//! What crosses from `us` to `eu`, as subscribers and histories tell it.

use crate::deployment::Deployment;
use skywave::broker::{Broker, ReadFrom};
use skywave_client::{ChannelEvent, Subscription};
use skywave_protocol::{Payload, frame::GapReason};
use skywave_testing::{node::broker::channel, soon};
use std::ops::RangeInclusive;

/// With history, and without.
pub const CHANNELS: [&str; 2] = ["chat:1", "bench:1"];

/// Publishes these numbers in `us`.
pub async fn publish(deployment: &Deployment, numbers: RangeInclusive<u64>) {
    for number in numbers {
        for channel in CHANNELS {
            deployment.region("us").publish(channel, number).await;
        }
    }
}

/// The next event, which is a gap: origin, reason, offset.
pub async fn gap(subscription: &mut Subscription) -> (String, GapReason, u64) {
    let event = soon(subscription.next()).await;
    let Some(ChannelEvent::Gap(gap)) = event else { panic!("{event:?}") };
    (gap.origin.to_string(), gap.reason, gap.offset)
}

/// The next events are these publications of `us`.
pub async fn expect(subscription: &mut Subscription, offsets: RangeInclusive<u64>) {
    for offset in offsets {
        let event = soon(subscription.next()).await;
        let Some(ChannelEvent::Publication(publication)) = event else { panic!("{offset}: {event:?}") };
        assert_eq!((&*publication.origin, publication.offset), ("us", offset));
    }
}

pub async fn history(deployment: &Deployment, name: &str) -> Vec<u64> {
    let chunk = deployment.region(name).ear.broker.read(&channel(), ReadFrom::Latest(100)).await.unwrap();
    chunk.publications.iter().map(|publication| publication.frame().offset).collect()
}

/// The number that was published.
pub fn number(data: &Payload) -> u64 {
    format!("{data:?}").trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}
