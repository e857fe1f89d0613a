//! The bridge from one other region: of all nodes here, the one that holds the lease brings its publications over.
//!
//! What the other region accepts is heard on pub/sub, so that it crosses in half a round trip. The log makes up for
//! whatever is not heard. The cursor moves in the same step of Redis in which the publications are applied, and only
//! for the latest holder of the lease: a node that takes over repeats nothing and skips nothing.

mod apply;
mod backlog;
mod carrying;
mod course;
mod crossing;
pub mod cursor;
mod listening;
mod mailbox;
pub mod metrics;
mod pull;
pub mod scripts;
mod slices;
mod survey;
mod telling;
mod watch;

use crate::{
    broker::doubts::Doubts,
    keys::RegionKeys as _,
    lease::{Candidate, Lease},
    link::{Links, MeasuredLag},
    regions::{Regions, Remote},
};
use apply::{Applying, Mode, Outcome};
use backlog::Backlog;
use carrying::Patience;
use course::{CATCHING_UP, Interruption, Link, done, is_trimmed};
use cursor::Cursor;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use listening::Listening;
use metrics::{LinkMetrics, LinksMetrics};
use parking_lot::Mutex;
use pull::{Head, RemoteLog};
use redis::Value;
use skywave_channels::namespace::Namespaces;
use skywave_redis::{
    Malformed, Redis, Request, StreamId,
    backoff::{Backoff, RECONNECT_PAUSE},
    reply,
    tasks::{again, pass_on},
};
use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};
use survey::{Purpose, survey};
use telling::Telling;
use tokio::{task::JoinSet, time::Instant};

/// The most connections to the other region over which partitions are spread, and the most subscriptions. A lost packet
/// holds up only a share of what crosses, and on a path with loss each connection has a bandwidth of its own.
const LANES: u16 = 32;
/// Whether a Redis can be reached again is looked at this often.
const AVAILABLE_INTERVAL: Duration = Duration::from_millis(50);
/// A leader that cannot reach the other region for so long lets another node try.
const REMOTE_PATIENCE: Duration = Duration::from_secs(5);
/// A link that held for so long is worth another try at once.
const HELD_WELL: Duration = Duration::from_secs(5);
/// How often a node that does not lead looks how far the bridge has got.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What was applied so long before, in milliseconds, has come to all nodes of the region. A leader that has not brought
/// the rest itself replays it, and whoever has it passes it over.
const REPLAYED_MS: u64 = 1_000;
/// How many partitions are asked at once.
const ASKED_AT_ONCE: usize = 64;

/// What the bridges of a node have in common.
pub struct Options {
    /// The node's id.
    pub node: Arc<str>,
    pub namespaces: Namespaces,
    /// How long the log is kept.
    pub log_age: Duration,
    pub metrics: LinksMetrics,
    pub links: Arc<Links>,
}

/// Brings one other region's publications here.
pub struct Bridge {
    remote: Remote,
    local: Redis,
    candidate: Candidate,
    namespaces: Namespaces,
    log_age: Duration,
    metrics: LinkMetrics,
    /// How far the bridge is known to have got, should this region's Redis forget it; by partition.
    reached: Mutex<HashMap<u16, Cursor>>,
    /// Of cursors in a later life than the other region's Redis tells of; by partition.
    doubts: Vec<Mutex<Doubts>>,
    links: Arc<Links>,
    lag: MeasuredLag,
}

/// Why a leader gives up its lease.
enum Yield {
    Lost,
    /// The next token has to exceed this.
    Fenced(u64),
    /// Another node may be better placed.
    Unreached,
}

impl Bridge {
    /// From all other regions.
    pub fn from_all(regions: &Regions, options: &Options) -> Vec<Self> {
        regions.remotes.iter().map(|remote| Self::new(remote, &regions.local, options)).collect()
    }

    /// From a region, to be run for as long as the node does.
    pub fn new(remote: &Remote, local: &Redis, options: &Options) -> Self {
        // Two nodes may have been given one id.
        let holder = format!("{} {:016x}", options.node, local.chance().any::<u64>());
        let lease = format!("bridge:{}", remote.name);
        Self {
            remote: remote.clone(),
            local: local.clone(),
            candidate: Candidate::new(local.clone(), &lease, holder.into()),
            namespaces: options.namespaces.clone(),
            log_age: options.log_age,
            metrics: options.metrics.of(&remote.name),
            reached: Mutex::default(),
            doubts: Doubts::of_all(local.keys.partitions()),
            links: options.links.clone(),
            lag: MeasuredLag::default(),
        }
    }

    /// Takes part in the bridge for as long as the node runs.
    pub async fn run(self) {
        let what = format!("the link to region {}", self.remote.name);
        match again(what, self.local.chance(), || self.take_part()).await {}
    }

    async fn take_part(&self) -> Infallible {
        let (mut at_least, mut telling) = (0, Telling::new(&self.remote.name));
        let mut patience = Patience::new();
        loop {
            let lease = tokio::select! {
                biased;
                lease = self.candidate.acquire(at_least) => lease,
                never = self.look_on() => match never {},
            };
            let leading = Leading::new(self);
            let why = tokio::select! {
                biased;
                () = lease.lost() => Yield::Lost,
                why = self.lead(&lease, &mut patience, &mut telling) => why,
                never = self.links.lead(&self.remote, &self.lag) => match never {},
            };
            drop((leading, lease));
            telling.yields();
            match why {
                Yield::Lost => {}
                Yield::Fenced(fence) => at_least = fence.saturating_add(1),
                Yield::Unreached => {
                    tokio::time::sleep(AVAILABLE_INTERVAL * self.local.chance().within(20..40)).await;
                }
            }
        }
    }

    /// Remembers how far the bridge gets under other leaders. If Redis loses the cursor, it loses the lease as well,
    /// and any node may lead.
    async fn look_on(&self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let ask = |partition| async move { (partition, self.cursor(partition).await) };
            let cursors = stream::iter(0..self.local.keys.partitions()).map(ask).buffered(ASKED_AT_ONCE);
            let cursors: Vec<_> = cursors.collect().await;
            let mut reached = self.reached.lock();
            for (partition, stored) in cursors {
                // What cannot be asked, or was lost, leaves what is known.
                let Some(cursor) = stored.ok().and_then(|stored| Cursor::parse(&stored)) else { continue };
                let looked = cursor.back_by(REPLAYED_MS);
                match reached.get(&partition) {
                    Some(known) if known.life == looked.life && known.id >= looked.id => {}
                    _ => drop(reached.insert(partition, looked)),
                }
            }
        }
    }

    async fn lead(&self, lease: &Lease, patience: &mut Patience, telling: &mut Telling<'_>) -> Yield {
        let mut backoff = Backoff::new(RECONNECT_PAUSE, self.local.chance());
        loop {
            if tokio::time::timeout(REMOTE_PATIENCE, self.reachable()).await.is_err() {
                telling.is_away();
                return Yield::Unreached;
            }
            telling.leads(lease.token());
            let begun = Instant::now();
            let Err(interruption) = self.cross(lease, patience, telling).await;
            self.metrics.interruptions.inc();
            if begun.elapsed() > HELD_WELL {
                backoff = Backoff::new(RECONNECT_PAUSE, self.local.chance());
                telling.holds_well();
            }
            telling.begins_anew(&interruption);
            match interruption {
                Interruption::Fenced(fence) => return Yield::Fenced(fence),
                Interruption::Unreached => return Yield::Unreached,
                _ => {}
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Waits until both ends can be reached, at least in part.
    async fn reachable(&self) {
        while !(self.remote.redis.commands.is_reachable() && self.local.commands.is_reachable()) {
            tokio::time::sleep(AVAILABLE_INTERVAL).await;
        }
    }

    /// Carries publications across until something is in the way of the whole link.
    async fn cross(
        &self,
        lease: &Lease,
        patience: &mut Patience,
        telling: &mut Telling<'_>,
    ) -> Result<Infallible, Interruption> {
        let Redis { endpoint, keys, metrics, .. } = &self.remote.redis;
        let applying = Applying {
            local: self.local.clone(),
            region: self.remote.name.clone(),
            token: lease.token(),
            namespaces: self.namespaces.clone(),
            log_age: self.log_age,
        };
        // Before anything is heard: what this leader hears, no earlier one says.
        shut_out(&applying).await?;
        let listening = Listening::start(&self.remote.redis).await?;
        let log = RemoteLog::new(endpoint, keys.clone(), self.remote.name.clone(), metrics);
        let link = Arc::new(Link::new(log, applying, self.metrics.clone()));
        let (events, said) = listening::events();
        // Of their own, so that whatever the rest does, what is heard is taken from the connection.
        let mut tasks = JoinSet::new();
        for listening in listening {
            tasks.spawn(listening.run(link.clone(), events.clone()));
        }
        drop(events);
        let saying = listening::say_events(&link.applying, said);
        let watching = watch::watch(&link, &self.remote.redis, &self.lag);
        let _remembering = Remembering(self, link.clone());
        tokio::select! {
            biased;
            interruption = self.carry(&link, patience, telling) => Err(interruption),
            ended = tasks.join_next() => match ended {
                Some(Ok(why)) => Err(Interruption::Subscription(why)),
                ended => {
                    pass_on(ended.map_or(Ok(()), |ended| ended.map(drop)));
                    Err(Interruption::Subscription("the task ended"))
                }
            },
            never = watching => match never {},
            stranger = self.remote.redis.endpoint.ownership.refused() => {
                Err(Interruption::Connect(stranger.into()))
            }
            interruption = saying => Err(interruption),
        }
    }

    /// Where each of some partitions goes on, once all is made up for that the log does not hold. Each comes with where
    /// it stands there, and with the cursor here. One server has them.
    async fn places<'a>(
        &self,
        link: &'a Link,
        stands: &[(u16, Head, String)],
    ) -> Result<Vec<Place<'a>>, Interruption> {
        let mut asked = Vec::with_capacity(stands.len());
        for (partition, head, stored) in stands {
            asked.push(self.place(link, *partition, head, stored.clone()));
        }
        let mut places: Vec<_> = stream::iter(asked).buffered(ASKED_AT_ONCE).try_collect().await?;
        let mut purposes = HashMap::new();
        for ((partition, ..), place) in stands.iter().zip(&places) {
            if place.stored.is_empty() {
                purposes.insert(*partition, Purpose::Fill { until: place.cursor.id });
            } else if let Some(until) = place.lost_until() {
                purposes.insert(*partition, Purpose::Repair { cursor: place.cursor.clone(), until });
            }
        }
        if purposes.is_empty() {
            return Ok(places);
        }
        tracing::warn!(
            region = link.region(),
            partitions = purposes.len(),
            "positions and histories are read: the log does not hold all that is missing here"
        );
        let mut reading = Vec::new();
        for place in &mut places {
            reading.extend(place.backlog.as_mut().map(Backlog::read_ahead));
        }
        let read_ahead = stream::iter(reading).buffer_unordered(CATCHING_UP).try_collect::<()>();
        future::try_join(survey(link, &purposes), read_ahead).await?;
        for ((partition, head, _), place) in stands.iter().zip(&mut places) {
            match purposes.remove(partition) {
                Some(Purpose::Fill { .. }) => begin(link, *partition, place, head).await?,
                Some(Purpose::Repair { cursor, until }) => {
                    place.settle(link, *partition, Cursor { id: until, ..cursor }).await?;
                }
                None => {}
            }
        }
        Ok(places)
    }

    /// Where a partition goes on, as far as it is known without going through its channels.
    async fn place<'a>(
        &self,
        link: &'a Link,
        partition: u16,
        head: &Head,
        stored: String,
    ) -> Result<Place<'a>, Interruption> {
        let known = Cursor::parse(&stored);
        let stored = if known.is_some() { stored } else { String::new() };
        let cursor = known.map(|cursor| cursor.in_life(&head.life, head.born));
        let mut cursor = cursor.unwrap_or_else(|| self.beginning(partition, head));
        let backlog = if head.is_reached_by(cursor.id) {
            // What others brought into the log is nothing to wait for.
            cursor.id = cursor.id.max(head.born);
            None
        } else if is_trimmed(head, cursor.id) {
            let backlog = Backlog::whole(link, partition).await?;
            if stored.is_empty() {
                cursor.id = backlog.begins_after();
            }
            Some(backlog)
        } else {
            Some(Backlog::new(link, partition, cursor.id, head.clone()))
        };
        let mut place = Place { stored, cursor, backlog };
        place.enter(link, partition, head).await?;
        Ok(place)
    }

    /// Where the link begins in a partition of which this region's Redis knows nothing: where it had got to, if a node
    /// knows that and Redis has lost it; else now.
    fn beginning(&self, partition: u16, head: &Head) -> Cursor {
        match self.reached.lock().get(&partition) {
            Some(reached) => reached.in_life(&head.life, head.born),
            None => {
                Cursor { life: head.life.clone(), id: head.newest, count: head.count, born: Some(head.born) }
            }
        }
    }

    /// Remembers how far a link got, should this region's Redis forget it.
    fn remember(&self, link: &Link) {
        let mut reached = self.reached.lock();
        for (partition, desk) in (0..).zip(&link.desks) {
            if let Some(cursor) = desk.progress.lock().cursor.clone() {
                reached.insert(partition, cursor);
            }
        }
    }

    /// A partition's cursor as it stands here; empty where there is none.
    async fn cursor(&self, partition: u16) -> Result<String, Interruption> {
        let key = self.local.keys.cursor(partition);
        let asked = self.local.commands.call(Request::command(["HGET", &key, &*self.remote.name]));
        match asked.await.map_err(|_| Interruption::LocalAway)? {
            Value::Nil => Ok(String::new()),
            value => reply::text(value).map_err(|error: Malformed| Interruption::Pull(error.into())),
        }
    }
}

/// Makes Redis refuse whatever earlier leaders still write. Where a server is away, nothing is written, and what is
/// applied or said there once it is back does the same.
async fn shut_out(applying: &Applying) -> Result<(), Interruption> {
    stream::iter(0..applying.local.keys.partitions())
        .map(|partition| applying.say(partition, Vec::new()))
        .buffer_unordered(ASKED_AT_ONCE)
        .map(|outcome| match outcome {
            Ok(Outcome::Fenced(fence)) => Err(Interruption::Fenced(fence)),
            Ok(_) | Err(_) => Ok(()),
        })
        .try_collect()
        .await
}

/// Begins a partition that was filled in; `earlier` is where the log stood before.
async fn begin(
    link: &Link,
    partition: u16,
    place: &mut Place<'_>,
    earlier: &Head,
) -> Result<(), Interruption> {
    let head = link.log.head(partition).await?;
    if head.life != place.cursor.life {
        return Err(Interruption::LifeChanged);
    }
    link.metrics.filled.inc();
    // Its last publication, as far as it says so: others come into its log without an end.
    let last = head.last_own.unwrap_or(earlier.newest);
    let replay = (last > place.cursor.id).then_some(last);
    done(link.applying.begin(partition, &place.cursor, replay).await)?;
    place.stored = place.cursor.to_string();
    Ok(())
}

/// Where a partition goes on.
struct Place<'a> {
    /// The cursor as it stands in this region's Redis; empty where there is none.
    stored: String,
    /// The same, in the life that the log is in now.
    cursor: Cursor,
    /// What the log holds behind it.
    backlog: Option<Backlog<'a>>,
}

impl Place<'_> {
    /// Up to where the log has lost what is behind the cursor, if it has.
    fn lost_until(&self) -> Option<StreamId> {
        let backlog = self.backlog.as_ref()?;
        is_trimmed(&backlog.head, self.cursor.id).then(|| backlog.begins_after())
    }

    /// Stores a cursor that is known in another life only. So what is applied is applied in the life in which it is
    /// read. And one that does not say yet where that began.
    async fn enter(&mut self, link: &Link, partition: u16, head: &Head) -> Result<(), Interruption> {
        if !self.stored.is_empty() && self.stored != self.cursor.to_string() {
            done(link.applying.enter(partition, &self.stored, &self.cursor, head.last()).await)?;
            self.stored = self.cursor.to_string();
        }
        Ok(())
    }

    /// Moves the cursor without applying anything.
    async fn settle(&mut self, link: &Link, partition: u16, to: Cursor) -> Result<(), Interruption> {
        done(link.applying.apply(partition, &self.stored, &to, &[], Mode::Log).await)?;
        (self.stored, self.cursor) = (to.to_string(), to);
        Ok(())
    }
}

/// Remembers, when it is dropped, how far the link got.
struct Remembering<'a>(&'a Bridge, Arc<Link>);

impl Drop for Remembering<'_> {
    fn drop(&mut self) {
        self.0.remember(&self.1);
    }
}

/// Shows that this node leads; dropped, that it does not.
struct Leading<'a>(&'a Bridge);

impl<'a> Leading<'a> {
    fn new(bridge: &'a Bridge) -> Self {
        bridge.metrics.takeovers.inc();
        bridge.metrics.leader.set(1);
        Self(bridge)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.metrics.leader.set(0);
        // Whoever leads now knows.
        self.0.metrics.backlog.set(0);
        self.0.lag.clear();
    }
}
