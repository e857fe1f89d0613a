//! Presence of the nodes that share a Redis.
//!
//! Redis knows who is on a channel, and which node holds each of them. Each node says what changes by its own sessions,
//! in calls that nobody waits for. It hears from Redis what changes by all nodes, its own changes among them. What a
//! node failed to say it says again later; what it failed to hear it finds out by comparing (see [`upkeep`]).

mod answers;
mod held;
mod holding;
mod lease;
mod lists;
pub mod mirror;
mod partition;
mod requests;
mod rooms;
pub mod scripts;
mod upkeep;

use crate::{broker::unavailable, keys::RegionKeys as _};
use answers::{Claimed, Listing};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use held::News;
use lists::Lists;
use parking_lot::Mutex;
use partition::Partition;
use redis::Value;
use requests::{Announce, Hold, Release, Requests};
use rooms::{Footing, Rooms};
use skywave_channels::{
    broker::BrokerError,
    claim::Claim,
    hub::Hub,
    namespace::Namespaces,
    presence::{
        Presence, Roster,
        residents::{Resident, Residents, Shards},
        telling::Telling,
    },
};
use skywave_protocol::{
    Channel,
    frame::{Members, SessionId},
};
use skywave_redis::{
    CallError, ConnectError, Malformed, Redis,
    keys::partition_of,
    subscription::{self, Subscription},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};

pub use lease::lease;

/// When Redis lost what it knew, all nodes have said again by now what they hold.
const RESTORED: Duration = Duration::from_secs(12);
/// The most calls that wait to be followed; one that is not is made good by comparing.
const MAX_CALLS: usize = 16_384;
/// The most calls that are followed at a time.
const MAX_UNDER_WAY: usize = 4_096;

/// Presence of a node that shares its channels with those that use the same Redis. When the node is gone, its members
/// leave after `lease` (see [`lease`]).
///
/// # Errors
/// See [`ConnectError`]. Once connected, a connection that breaks is made anew for as long as it takes.
pub async fn start(
    hub: Arc<Hub>,
    namespaces: Namespaces,
    redis: Redis,
    node: &str,
    lease: Duration,
    tasks: &mut JoinSet<()>,
) -> Result<Arc<Presence>, ConnectError> {
    let shards = Arc::new(Shards::new(redis.keys.partitions(), partition_of));
    let telling = Arc::new(Telling::new(hub.clone(), namespaces.clone()));
    // A node that is started again does not hold what it held before.
    let holder = format!("{node}.{:010x}", redis.chance().any::<u64>() >> 24).into();
    let parts = (shards.clone(), hub, telling.clone());
    let clock = redis.endpoint.host.clock.clone();
    let roster = Box::new(RedisRoster::start(redis, holder, lease, parts, tasks).await?);
    Ok(Presence::new(clock, namespaces, shards, telling, roster))
}

/// A region's presence, by one of its nodes.
#[derive(Clone)]
struct RedisRoster(Arc<Shared>);

/// What the node's calls, its listener and its upkeep share.
struct Shared {
    redis: Redis,
    requests: Requests,
    shards: Arc<Shards>,
    rooms: Rooms,
    lists: Lists,
    partitions: Vec<Mutex<Partition>>,
    calls: mpsc::Sender<Call>,
    /// The upkeep has something to do now.
    hurry: Notify,
}

/// A change that was sent to Redis.
struct Call {
    partition: u16,
    /// Whose answer is of interest.
    arrival: Option<Arrival>,
    outcome: BoxFuture<'static, Result<Value, CallError>>,
}

/// Which arrival a claim was made for.
struct Arrival {
    channel: Channel,
    session: SessionId,
    claim: Claim,
}

impl Arrival {
    fn of(channel: &Channel, resident: &Resident) -> Self {
        let session = resident.member.session.clone();
        Self { channel: channel.clone(), session, claim: resident.claim }
    }
}

impl RedisRoster {
    /// Begins to hear what changes, and to keep up what this node holds. `holder` names one life of one node; what it
    /// holds leaves when it has not renewed for `lease`.
    ///
    /// # Errors
    /// See [`ConnectError`]. Once connected, a connection that breaks is made anew for as long as it takes.
    async fn start(
        redis: Redis,
        holder: Arc<str>,
        lease: Duration,
        parts: (Arc<Shards>, Arc<Hub>, Arc<Telling>),
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, ConnectError> {
        let (shards, hub, telling) = parts;
        let keys = redis.keys.clone();
        let channels = (0..keys.partitions()).map(|partition| keys.presence_news(partition)).collect();
        let (sender, calls) = mpsc::channel(MAX_CALLS);
        let shared = Arc::new(Shared {
            requests: Requests { keys: keys.clone(), holder, lease },
            shards,
            rooms: Rooms::new(hub, telling),
            lists: Lists::default(),
            partitions: (0..keys.partitions()).map(|_| Mutex::default()).collect(),
            calls: sender,
            hurry: Notify::new(),
            redis,
        });
        let redis = &shared.redis;
        let reconnects = redis.metrics.reconnects.with_label_values(&["presence"]);
        tasks.spawn(Subscription::start(redis, channels, Listener(shared.clone()), reconnects).await?);
        tasks.spawn(shared.clone().follow_calls(calls));
        tasks.spawn(upkeep::run(shared.clone()));
        Ok(Self(shared))
    }
}

impl Roster for RedisRoster {
    fn arrived(&self, _residents: &Residents, channel: &Channel, resident: &Resident) {
        let partition = self.0.requests.keys.partition(channel);
        let hold = Hold::of(channel, resident);
        let request = self.0.requests.arrive(partition, Announce::Joined, vec![hold]);
        let outcome = Box::pin(self.0.redis.commands.call(request));
        self.0.follow(Call { partition, arrival: Some(Arrival::of(channel, resident)), outcome });
    }

    fn returned(&self, residents: &Residents, channel: &Channel, resident: &Resident) {
        self.arrived(residents, channel, resident);
    }

    fn departed(&self, _residents: &Residents, channel: &Channel, resident: Resident) {
        let partition = self.0.requests.keys.partition(channel);
        let Resident { member, claim, stay, .. } = resident;
        let release = Release { channel: channel.clone(), session: member.session, claim: Some(claim), stay };
        let request = self.0.requests.depart(partition, vec![release]);
        let outcome = Box::pin(self.0.redis.commands.call(request));
        self.0.follow(Call { partition, arrival: None, outcome });
    }

    fn members(&self, channel: &Channel) -> BoxFuture<'static, Result<Members, BrokerError>> {
        let listing = self.0.list(channel);
        Box::pin(async { listing.await.map_err(unavailable) })
    }
}

impl Shared {
    fn partition(&self, partition: u16) -> &Mutex<Partition> {
        &self.partitions[usize::from(partition)]
    }

    /// Asks who is on the channel, after all that was called before.
    fn ask(&self, channel: &Channel) -> impl Future<Output = Result<Listing, CallError>> + Send + use<> {
        let call = self.redis.commands.call(self.requests.members(channel));
        async move { answers::listing(call.await?).map_err(unreadable) }
    }

    fn follow(&self, call: Call) {
        let partition = call.partition;
        if self.calls.try_send(call).is_err() {
            self.doubt(partition);
        }
    }

    /// Has the upkeep look at what Redis knows of this node.
    fn doubt(&self, partition: u16) {
        let before = std::mem::replace(&mut self.partition(partition).lock().doubtful, true);
        if !before {
            self.hurry.notify_one();
        }
    }

    async fn follow_calls(self: Arc<Self>, mut calls: mpsc::Receiver<Call>) {
        let mut under_way = FuturesUnordered::new();
        loop {
            let has_room = under_way.len() < MAX_UNDER_WAY;
            tokio::select! {
                biased;
                Some((partition, arrival, outcome)) = under_way.next() => {
                    self.answered(partition, arrival, outcome);
                }
                call = calls.recv(), if has_room => {
                    let Some(Call { partition, arrival, outcome }) = call else { return };
                    under_way.push(async move { (partition, arrival, outcome.await) });
                }
            }
        }
    }

    fn answered(&self, partition: u16, arrival: Option<Arrival>, outcome: Result<Value, CallError>) {
        let Ok(value) = outcome else { return self.doubt(partition) };
        let Some(arrival) = arrival else { return };
        match answers::claimed(value).as_deref() {
            Ok([claimed]) => self.claimed(&arrival, *claimed),
            _ => {
                unreadable(Malformed("claim"));
                self.doubt(partition);
            }
        }
    }

    fn claimed(&self, arrival: &Arrival, claimed: Claimed) {
        let Arrival { channel, session, claim } = arrival;
        self.shards.of(channel).lock().claimed(channel, session, *claim, claimed.stay, claimed.since_ms);
    }

    /// Takes note of the news of that number on a channel.
    fn follow_news(&self, partition: u16, number: u64, channel: &Channel) -> Footing {
        let mut known = self.partition(partition).lock();
        if known.news(number) {
            self.hurry.notify_one();
        }
        known.footing(channel)
    }

    /// How an answer about a channel from this life of its partition relates to what was told.
    fn footing(&self, channel: &Channel, life: &str) -> Footing {
        let partition = self.requests.keys.partition(channel);
        self.learn(partition, life);
        self.partition(partition).lock().footing(channel)
    }

    /// Takes note of the life of a partition.
    fn learn(&self, partition: u16, life: &str) {
        if self.partition(partition).lock().learn(life) {
            self.hurry.notify_one();
        }
    }
}

fn unreadable(error: Malformed) -> CallError {
    tracing::error!(%error, "an answer about presence cannot be read");
    CallError::Refused
}

/// Hears what changes by any node.
struct Listener(Arc<Shared>);

impl subscription::Listener for Listener {
    fn message(&mut self, _channel: &str, payload: &[u8]) {
        let news = match News::decode(payload) {
            Ok(news) => news,
            Err(error) => return tracing::error!(%error, "a change of presence is passed over"),
        };
        let shared = &self.0;
        let partition = shared.requests.keys.partition(&news.channel);
        shared.learn(partition, &news.life);
        for held in news.taken.iter().filter(|held| *held.holder != *shared.requests.holder) {
            let mut residents = shared.shards.of(&news.channel).lock();
            residents.taken(&news.channel, &held.member.session, held.claim, held.stay);
        }
        let footing = shared.follow_news(partition, news.number, &news.channel);
        shared.rooms.heard(news, footing);
    }

    fn resumed(&mut self) {
        self.0.partitions.iter().for_each(|partition| partition.lock().was_deaf());
        self.0.hurry.notify_one();
    }
}
