//! Hears what another region accepts and emits, on pub/sub, as it happens.

use super::{
    LANES,
    apply::{Applying, Outcome},
    course::{Interruption, Link},
    crossing::Heard,
};
use crate::{broker::events, keys::RegionKeys as _};
use futures_util::future;
use redis::Msg;
use skywave_redis::{ConnectError, Redis, subscription::Hearing};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// A connection is tried this often.
const TRIAL_INTERVAL: Duration = Duration::from_secs(1);
/// The most events that wait to be said here; more are dropped, as events may be.
const MAX_EVENTS: usize = 1_024;
/// The most events that are said at once.
const EVENTS_AT_ONCE: usize = 64;

/// What a channel carries.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Publications,
    Events,
}

/// A subscription to a share of what another region says to others: several are open side by side.
pub(crate) struct Listening {
    hearing: Hearing,
    channels: HashMap<String, (Kind, u16)>,
}

impl Listening {
    /// Subscriptions that are everything together.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn start(remote: &Redis) -> Result<Vec<Self>, ConnectError> {
        let lanes = 0..remote.keys.partitions().min(LANES);
        future::try_join_all(lanes.map(|lane| Self::to_lane(remote, lane))).await
    }

    async fn to_lane(remote: &Redis, lane: u16) -> Result<Self, ConnectError> {
        let keys = &remote.keys;
        let channels: HashMap<_, _> = (lane..keys.partitions())
            .step_by(usize::from(LANES))
            .flat_map(|partition| {
                [
                    (keys.out(partition), (Kind::Publications, partition)),
                    (keys.event(partition), (Kind::Events, partition)),
                ]
            })
            .collect();
        let names: Vec<_> = channels.keys().cloned().collect();
        Ok(Self { hearing: Hearing::open(remote, &names).await?, channels })
    }

    /// Hands on what is heard, never waiting for whom it is for; ends, and says why, when the connection does.
    pub(crate) async fn run(self, link: Arc<Link>, events: mpsc::Sender<Said>) -> &'static str {
        let Self { hearing, channels } = self;
        hearing.listen(TRIAL_INTERVAL, |message| hear(&channels, &link, &events, message)).await
    }
}

/// An event of another region.
pub(crate) struct Said {
    partition: u16,
    event: Vec<u8>,
}

fn hear(channels: &HashMap<String, (Kind, u16)>, link: &Link, events: &mpsc::Sender<Said>, message: &Msg) {
    let Some((kind, partition)) = channels.get(message.get_channel_name()) else { return };
    match kind {
        Kind::Publications => match Heard::read(message.get_payload_bytes(), &link.log.region) {
            Ok(heard) => link.desks[usize::from(*partition)].mailbox.push(heard),
            Err(error) => {
                tracing::error!(%error, region = link.region(), partition, "a message is passed over");
                link.metrics.malformed.inc();
            }
        },
        Kind::Events => {
            let event = message.get_payload_bytes();
            // What it has from others comes from them.
            if events::origin(event).is_ok_and(|origin| *origin == *link.region()) {
                let said = Said { partition: *partition, event: event.to_vec() };
                if events.try_send(said).is_err() {
                    link.metrics.events_dropped.inc();
                }
            }
        }
    }
}

/// Where events of another region wait to be said here.
pub(crate) fn events() -> (mpsc::Sender<Said>, mpsc::Receiver<Said>) {
    mpsc::channel(MAX_EVENTS)
}

/// Says here what another region's sessions emitted, until another leader was here.
pub(crate) async fn say_events(applying: &Applying, mut events: mpsc::Receiver<Said>) -> Interruption {
    let mut said = Vec::new();
    while events.recv_many(&mut said, EVENTS_AT_ONCE).await > 0 {
        let mut by_partition = BTreeMap::<u16, Vec<Vec<u8>>>::new();
        for Said { partition, event } in said.drain(..) {
            by_partition.entry(partition).or_default().push(event);
        }
        let calls = by_partition.into_iter().map(|(partition, events)| applying.say(partition, events));
        for outcome in future::join_all(calls).await {
            // An event that cannot be said is lost, as events may be.
            if let Ok(Outcome::Fenced(fence)) = outcome {
                return Interruption::Fenced(fence);
            }
        }
    }
    Interruption::Subscription("the task ended")
}
