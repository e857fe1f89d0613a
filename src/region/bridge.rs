//! The bridge from one other region: of all nodes here, the one that holds the lease brings its publications over.
//!
//! What the other region accepts is heard on pub/sub, so that it crosses in half a round trip; the log makes up
//! for whatever is not heard. The cursor moves in the same step of Redis as the publications are applied, and only
//! for the latest holder of the lease: a node that takes over repeats nothing and skips nothing.

mod apply;
mod course;
mod crossing;
mod cursor;
mod listening;
mod mailbox;
mod pull;
mod slices;
mod watch;

use super::{
    Remote,
    lease::{Candidate, Lease},
};
use crate::{
    backoff::Backoff,
    config::NamespaceConfig,
    metrics::LinkMetrics,
    redis::{Malformed, Redis, Request, StreamId, connection::RECONNECT_PAUSE, reply},
};
use apply::Applying;
use course::{Course, Interruption, Link};
use cursor::Cursor;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, FuturesUnordered},
};
use listening::Listening;
use pull::{Head, Part, RemoteLog};
use redis::Value;
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};

/// Whether a Redis can be reached again is looked at this often.
const AVAILABLE_INTERVAL: Duration = Duration::from_millis(50);
/// A leader that cannot reach the other region for so long lets another node try.
const REMOTE_PATIENCE: Duration = Duration::from_secs(5);
/// A link that held for so long is worth another try at once.
const HELD_WELL: Duration = Duration::from_secs(5);
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
        let mut at_least = 0;
        loop {
            let lease = self.candidate.acquire(at_least).await;
            tracing::info!(region = &*self.remote.name, token = lease.token(), "this node leads the link");
            let leading = Leading::new(&self.metrics);
            let why = tokio::select! {
                () = lease.lost() => Yield::Lost,
                why = self.lead(&lease) => why,
            };
            drop((leading, lease));
            tracing::info!(region = &*self.remote.name, "this node leads the link no more");
            match why {
                Yield::Lost => {}
                Yield::Fenced(fence) => at_least = fence.saturating_add(1),
                Yield::RemoteAway => {
                    tokio::time::sleep(AVAILABLE_INTERVAL * rand::random_range(20..40)).await
                }
            }
        }
    }

    async fn lead(&self, lease: &Lease) -> Yield {
        let mut backoff = Backoff::new(RECONNECT_PAUSE);
        loop {
            if tokio::time::timeout(REMOTE_PATIENCE, self.reachable()).await.is_err() {
                return Yield::RemoteAway;
            }
            let begun = Instant::now();
            let Err(interruption) = self.cross(lease).await;
            tracing::warn!(region = &*self.remote.name, %interruption, "the link begins anew");
            match interruption {
                Interruption::Fenced(fence) => return Yield::Fenced(fence),
                _ if begun.elapsed() > HELD_WELL => backoff = Backoff::new(RECONNECT_PAUSE),
                _ => {}
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
        let Redis { endpoint, keys, .. } = &self.remote.redis;
        let listening = Listening::start(endpoint, keys).await?;
        let log = RemoteLog::connect(endpoint, keys.clone(), self.remote.name.clone()).await?;
        let applying = Applying {
            local: self.local.clone(),
            region: self.remote.name.clone(),
            token: lease.token(),
            namespaces: self.namespaces.clone(),
            log_age: self.log_age,
        };
        let link = Arc::new(Link::new(log, applying, self.metrics.clone()));
        let (events, said) = listening::events();
        // Of their own, so that whatever the rest does, what is heard is taken from the connection.
        let mut tasks = JoinSet::new();
        tasks.spawn(listening.run(link.clone(), events));
        let saying = listening::say_events(self.local.clone(), said);
        // Only now, as the mailboxes are open: what comes behind the heads is in them.
        let heads = heads(&link).await?;
        let cursors = self.cursors().await?;
        let courses = self.courses(&link, heads, cursors).await?;
        let watching = watch::watch(&link, &self.remote.redis);
        tokio::select! {
            Some(interruption) = next(courses) => Err(interruption),
            ended = tasks.join_next() => match ended {
                Some(Ok(why)) => Err(Interruption::Subscription(why)),
                _ => Err(Interruption::Subscription("the task ended")),
            },
            never = watching => match never {},
            () = saying => Err(Interruption::Subscription("the task ended")),
        }
    }

    async fn courses<'a>(
        &self,
        link: &'a Link,
        heads: Vec<Head>,
        cursors: Vec<String>,
    ) -> Result<FuturesUnordered<impl Future<Output = Interruption> + use<'a>>, Interruption> {
        let courses = FuturesUnordered::new();
        for (partition, (head, stored)) in (0..).zip(heads.into_iter().zip(cursors)) {
            let cursor = match Cursor::parse(&stored) {
                Some(cursor) => cursor.in_life(&head.life, head.born),
                None => Cursor { life: head.life.clone(), id: head.newest, count: head.count },
            };
            courses.push(Course::new(link, partition, stored, cursor).run(head));
        }
        Ok(courses)
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

/// Where each partition of the other region's log stands.
async fn heads(link: &Link) -> Result<Vec<Head>, Interruption> {
    let part = Part { after: StreamId::MIN, until: None, count: 0 };
    let partitions = 0..link.applying.local.keys.partitions();
    let ask = async |partition| Ok::<_, Interruption>(link.log.pull(partition, part).await?.head);
    stream::iter(partitions).map(ask).buffered(ASKED_AT_ONCE).try_collect().await
}

async fn next<F: Future>(mut futures: FuturesUnordered<F>) -> Option<F::Output> {
    futures.next().await
}

/// Shows that this node leads; dropped, that it does not.
struct Leading<'a>(&'a LinkMetrics);

impl<'a> Leading<'a> {
    fn new(metrics: &'a LinkMetrics) -> Self {
        metrics.takeovers.inc();
        metrics.leader.set(1);
        Self(metrics)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.leader.set(0);
        // Whoever leads now knows.
        self.0.backlog.set(0);
        self.0.lag.set(0.0);
    }
}
