//! The bridge from one other region: of all nodes here, the one that holds the lease brings its publications over.
//!
//! What the other region accepts is heard on pub/sub, so that it crosses in half a round trip; the log makes up
//! for whatever is not heard. The cursor moves in the same step of Redis as the publications are applied, and only
//! for the latest holder of the lease: a node that takes over repeats nothing and skips nothing.

mod apply;
mod backlog;
mod course;
mod crossing;
pub mod cursor;
mod listening;
mod mailbox;
mod pull;
mod slices;
mod survey;
mod telling;
mod watch;

use super::{
    Remote,
    lease::{Candidate, Lease},
    link::{Links, MeasuredLag},
};
use crate::{
    backoff::Backoff,
    config::NamespaceConfig,
    metrics::LinkMetrics,
    redis::{Malformed, Redis, Request, StreamId, connection::RECONNECT_PAUSE, reply},
};
use apply::{Applying, Mode, Outcome};
use backlog::Backlog;
use course::{CATCHING_UP, Course, Interruption, Link, done, is_trimmed};
use cursor::Cursor;
use futures_util::{
    StreamExt, TryStreamExt, future,
    stream::{self, FuturesUnordered},
};
use listening::Listening;
use parking_lot::Mutex;
use pull::{Head, Part, RemoteLog};
use redis::Value;
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};
use survey::{Purpose, survey};
use telling::Telling;
use tokio::{task::JoinSet, time::Instant};

/// Partitions are spread over at most so many connections to the other region, and as many subscriptions: what a lost packet holds
/// up is a share of what crosses, and on a path with loss each connection has a bandwidth of its own.
const LANES: u16 = 32;
/// Whether a Redis can be reached again is looked at this often.
const AVAILABLE_INTERVAL: Duration = Duration::from_millis(50);
/// A leader that cannot reach the other region for so long lets another node try.
const REMOTE_PATIENCE: Duration = Duration::from_secs(5);
/// A link that held for so long is worth another try at once.
const HELD_WELL: Duration = Duration::from_secs(5);
/// How often a node that does not lead looks how far the bridge has got.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What was applied so long before, in milliseconds, has come to all nodes of the region; what came later is replayed by
/// a leader that has not brought it itself, and whoever has it passes it over.
const REPLAYED_MS: u64 = 1_000;
/// How many partitions are asked at once.
const ASKED_AT_ONCE: usize = 64;

/// Brings one other region's publications here.
pub struct Bridge {
    pub remote: Remote,
    pub local: Redis,
    pub candidate: Candidate,
    pub namespaces: BTreeMap<String, NamespaceConfig>,
    pub log_age: Duration,
    pub metrics: LinkMetrics,
    /// How far the bridge is known to have got, should this region's Redis forget it; by partition.
    pub reached: Mutex<HashMap<u16, Cursor>>,
    pub links: Arc<Links>,
    pub lag: MeasuredLag,
}

/// Why a leader gives up its lease.
enum Yield {
    Lost,
    /// The next token has to exceed this.
    Fenced(u64),
    /// Another node may be better placed.
    RemoteAway,
}

impl Bridge {
    /// Takes part in the bridge for as long as the node runs.
    pub async fn run(self) {
        let (mut at_least, mut telling) = (0, Telling::new(&self.remote.name));
        loop {
            let lease = tokio::select! {
                lease = self.candidate.acquire(at_least) => lease,
                never = self.look_on() => match never {},
            };
            let leading = Leading::new(&self);
            let why = tokio::select! {
                () = lease.lost() => Yield::Lost,
                why = self.lead(&lease, &mut telling) => why,
                never = self.links.lead(&self.remote, &self.lag) => match never {},
            };
            drop((leading, lease));
            telling.yields();
            match why {
                Yield::Lost => {}
                Yield::Fenced(fence) => at_least = fence.saturating_add(1),
                Yield::RemoteAway => {
                    tokio::time::sleep(AVAILABLE_INTERVAL * rand::random_range(20..40)).await
                }
            }
        }
    }

    /// Remembers how far the bridge gets under other leaders: if Redis loses the cursor, it loses the lease as well, and
    /// any node may lead.
    async fn look_on(&self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            // What cannot be asked, or was lost, leaves what is known.
            let Ok(cursors) = self.cursors().await else { continue };
            let mut reached = self.reached.lock();
            for (partition, stored) in (0..).zip(cursors) {
                let Some(cursor) = Cursor::parse(&stored) else { continue };
                let looked = cursor.back_by(REPLAYED_MS);
                match reached.get(&partition) {
                    Some(known) if known.life == looked.life && known.id >= looked.id => {}
                    _ => drop(reached.insert(partition, looked)),
                }
            }
        }
    }

    async fn lead(&self, lease: &Lease, telling: &mut Telling<'_>) -> Yield {
        let mut backoff = Backoff::new(RECONNECT_PAUSE);
        loop {
            if tokio::time::timeout(REMOTE_PATIENCE, self.reachable()).await.is_err() {
                telling.is_away();
                return Yield::RemoteAway;
            }
            telling.leads(lease.token());
            let begun = Instant::now();
            let Err(interruption) = self.cross(lease).await;
            self.metrics.interruptions.inc();
            if begun.elapsed() > HELD_WELL {
                backoff = Backoff::new(RECONNECT_PAUSE);
                telling.holds_well();
            }
            telling.begins_anew(&interruption);
            if let Interruption::Fenced(fence) = interruption {
                return Yield::Fenced(fence);
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Waits until both ends can be reached.
    async fn reachable(&self) {
        while !(self.remote.redis.commands.is_available() && self.local.commands.is_available()) {
            tokio::time::sleep(AVAILABLE_INTERVAL).await;
        }
    }

    /// Carries publications across until something is in the way.
    async fn cross(&self, lease: &Lease) -> Result<Infallible, Interruption> {
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
        let log = RemoteLog::connect(endpoint, keys.clone(), self.remote.name.clone(), metrics).await?;
        let link = Arc::new(Link::new(log, applying, self.metrics.clone()));
        let (events, said) = listening::events();
        // Of their own, so that whatever the rest does, what is heard is taken from the connection.
        let mut tasks = JoinSet::new();
        for listening in listening {
            tasks.spawn(listening.run(link.clone(), events.clone()));
        }
        drop(events);
        let saying = listening::say_events(&link.applying, said);
        // Only now, as the mailboxes are open: what comes behind the heads is in them.
        let heads = heads(&link).await?;
        let cursors = self.cursors().await?;
        let places = self.places(&link, &heads, cursors).await?;
        let courses: FuturesUnordered<_> = (0..)
            .zip(heads.into_iter().zip(places))
            .map(|(partition, (head, Place { stored, cursor, backlog }))| {
                Course::new(&link, partition, stored, cursor).run(head, backlog)
            })
            .collect();
        let (watching, keeping) = (watch::watch(&link, &self.remote.redis, &self.lag), link.log.keep_alive());
        let _remembering = Remembering(self, link.clone());
        tokio::select! {
            Some(interruption) = next(courses) => Err(interruption),
            ended = tasks.join_next() => match ended {
                Some(Ok(why)) => Err(Interruption::Subscription(why)),
                _ => Err(Interruption::Subscription("the task ended")),
            },
            never = watching => match never {},
            Some(error) = keeping => Err(error.into()),
            stranger = self.remote.redis.endpoint.ownership.refused() => {
                Err(Interruption::Connect(stranger.into()))
            }
            interruption = saying => Err(interruption),
        }
    }

    /// Where each partition goes on, once all is made up for that the log does not hold.
    async fn places<'a>(
        &self,
        link: &'a Link,
        heads: &[Head],
        cursors: Vec<String>,
    ) -> Result<Vec<Place<'a>>, Interruption> {
        let mut asked = Vec::with_capacity(heads.len());
        for (partition, (head, stored)) in (0..).zip(heads.iter().zip(cursors)) {
            asked.push(self.place(link, partition, head, stored));
        }
        let mut places: Vec<_> = stream::iter(asked).buffered(ASKED_AT_ONCE).try_collect().await?;
        let mut purposes = HashMap::new();
        for (partition, place) in (0..).zip(&mut places) {
            if place.stored.is_empty() {
                purposes.insert(partition, Purpose::Fill { until: place.cursor.id });
            } else if let Some(until) = place.lost_until() {
                purposes.insert(partition, Purpose::Repair { cursor: place.cursor.clone(), until });
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
        for (partition, purpose) in purposes {
            let place = &mut places[usize::from(partition)];
            match purpose {
                Purpose::Fill { .. } => begin(link, partition, place, &heads[usize::from(partition)]).await?,
                Purpose::Repair { cursor, until } => {
                    place.settle(link, partition, Cursor { id: until, ..cursor }).await?;
                }
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

    /// Where the link begins in a partition of which this region's Redis knows nothing: where it is known to have got to,
    /// should Redis have lost it; else now.
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

    /// The cursors as they stand here; empty where there is none.
    async fn cursors(&self) -> Result<Vec<String>, Interruption> {
        let partitions = 0..self.local.keys.partitions();
        let ask = |partition| {
            let key = self.local.keys.cursor(partition);
            let call = self.local.commands.call(Request::command(["HGET", &key, &*self.remote.name]));
            async move {
                match call.await.map_err(|_| Interruption::LocalAway)? {
                    Value::Nil => Ok(String::new()),
                    value => reply::text(value).map_err(|error: Malformed| Interruption::Pull(error.into())),
                }
            }
        };
        stream::iter(partitions).map(ask).buffered(ASKED_AT_ONCE).try_collect().await
    }
}

/// Makes Redis refuse whatever earlier leaders still write.
async fn shut_out(applying: &Applying) -> Result<(), Interruption> {
    stream::iter(0..applying.local.keys.partitions())
        .map(|partition| applying.say(partition, Vec::new()))
        .buffer_unordered(ASKED_AT_ONCE)
        .map(|outcome| match outcome {
            Ok(Outcome::Fenced(fence)) => Err(Interruption::Fenced(fence)),
            Ok(_) => Ok(()),
            Err(_) => Err(Interruption::LocalAway),
        })
        .try_collect()
        .await
}

/// Where each partition of the other region's log stands.
async fn heads(link: &Link) -> Result<Vec<Head>, Interruption> {
    let part = Part { after: StreamId::MIN, until: None, count: 0 };
    let partitions = 0..link.applying.local.keys.partitions();
    let ask = async |partition| Ok::<_, Interruption>(link.log.pull(partition, part).await?.head);
    stream::iter(partitions).map(ask).buffered(ASKED_AT_ONCE).try_collect().await
}

/// Begins a partition that was filled in; `earlier` is where the log stood before.
async fn begin(
    link: &Link,
    partition: u16,
    place: &mut Place<'_>,
    earlier: &Head,
) -> Result<(), Interruption> {
    let part = Part { after: StreamId::MIN, until: None, count: 0 };
    let head = link.log.pull(partition, part).await?.head;
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

    /// Stores a cursor that is known in another life only: so what is applied is applied in the life in which it is read. And
    /// one that does not say yet where that began.
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

async fn next<F: Future>(mut futures: FuturesUnordered<F>) -> Option<F::Output> {
    futures.next().await
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
