//! One partition of a link: what the log holds behind the cursor is applied first, then what is heard.

use super::{
    apply::{Applying, MAX_ENTRIES, Mode, Outcome, Step, Tally},
    backlog::{Backlog, Stretch},
    crossing::{self, Heard},
    cursor::{Cursor, Hearing},
    mailbox::Mailbox,
    metrics::LinkMetrics,
    pull::{Head, Part, PullError, RemoteLog},
};
use crate::broker::entry::Carried;
use parking_lot::Mutex;
use redis::Value;
use skywave_redis::{CallError, ConnectError, Malformed, StreamId};
use std::convert::Infallible;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

/// How many partitions catch up at once.
pub(crate) const CATCHING_UP: usize = 16;
/// How many publications of a backlog may be under way in calls: as many as two calls take, so that what this region
/// accepts goes between them. Calls with few publications, or with a position alone, are more at once.
const APPLIED_AT_ONCE: usize = 2 * (MAX_ENTRIES + OF_A_CALL);
/// What a call takes beside its publications is as if it had so many more.
const OF_A_CALL: usize = 8;

/// Why the link begins anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Interruption {
    #[error("the other region's log: {0}")]
    Pull(#[from] PullError),
    #[error("the other region's Redis: {0}")]
    Connect(#[from] ConnectError),
    #[error("the subscription to the other region ended: {0}")]
    Subscription(&'static str),
    #[error("this region's Redis is away")]
    LocalAway,
    #[error("the cursor was moved")]
    Moved,
    #[error("another node has the lease, with token {0}")]
    Fenced(u64),
    #[error("the other region's Redis restarted or lost data")]
    LifeChanged,
    #[error("the other region's log was trimmed before all of it was read")]
    Trimmed,
    #[error("keys have moved between the servers of a region")]
    KeysMoved,
    #[error("another node may reach what this one does not")]
    Unreached,
}

impl Interruption {
    /// Whether it is in the way of some partitions: a server of either region cannot be reached, or does not have a key
    /// now. All else is looked at anew for all of them.
    pub(crate) fn is_of_some_partitions(&self) -> bool {
        matches!(self, Self::Pull(_) | Self::Connect(_) | Self::LocalAway | Self::KeysMoved)
    }

    /// Whether another node may get further: whoever comes to a server that others took over from does so from
    /// anywhere.
    pub(crate) fn may_spare_another_node(&self) -> bool {
        !matches!(self, Self::Connect(ConnectError::Superseded))
    }
}

/// What was applied, if it was all.
pub(crate) fn done(outcome: Result<Outcome, CallError>) -> Result<Tally, Interruption> {
    match outcome {
        Ok(Outcome::Done(tally)) => Ok(tally),
        Ok(Outcome::Moved) => Err(Interruption::Moved),
        Ok(Outcome::Fenced(fence)) => Err(Interruption::Fenced(fence)),
        // Redis could not write: what it says is in its log.
        Ok(Outcome::Stopped(_)) | Err(_) => Err(Interruption::LocalAway),
    }
}

/// What all partitions of a link share, for as long as it holds.
pub(crate) struct Link {
    pub log: RemoteLog,
    pub(crate) applying: Applying,
    pub metrics: LinkMetrics,
    pub(crate) desks: Vec<Desk>,
    catching_up: Semaphore,
    applications: Semaphore,
}

/// What stands at a partition's place.
pub(crate) struct Desk {
    pub(crate) mailbox: Mailbox,
    pub progress: Mutex<Progress>,
}

/// How far a partition has got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// As it stands in this region's Redis; `None` before it is known.
    pub cursor: Option<Cursor>,
    /// What is heard is applied; else the log is read.
    pub live: bool,
}

impl Link {
    pub(crate) fn new(log: RemoteLog, applying: Applying, metrics: LinkMetrics) -> Self {
        let partitions = applying.local.keys.partitions();
        let desk = |_| Desk { mailbox: Mailbox::new(partitions), progress: Mutex::default() };
        Self {
            log,
            applying,
            metrics,
            desks: (0..partitions).map(desk).collect(),
            catching_up: Semaphore::new(CATCHING_UP),
            applications: Semaphore::new(APPLIED_AT_ONCE),
        }
    }

    pub(crate) fn region(&self) -> &str {
        &self.log.region
    }

    /// Waits until a call may be made that applies so many publications of a backlog. Until it is answered, others
    /// wait.
    pub(crate) async fn turn(&self, publications: usize) -> Result<SemaphorePermit<'_>, AcquireError> {
        let share = publications.min(MAX_ENTRIES) + OF_A_CALL;
        self.applications.acquire_many(u32::try_from(share).unwrap_or(u32::MAX)).await
    }

    /// The publication that an entry holds; one that holds none is told and passed over.
    pub(crate) fn check(&self, partition: u16, id: StreamId, fields: Vec<Value>) -> Option<Carried> {
        let keys = &self.applying.local.keys;
        let checked = crossing::check(id, fields, &self.log.region, keys, partition);
        checked.map_err(|error| self.pass_over(error)).ok()
    }

    /// Tells of something that no node wrote.
    pub(crate) fn pass_over(&self, error: Malformed) {
        tracing::error!(%error, region = self.region(), "something in the other region is passed over");
        self.metrics.malformed.inc();
    }

    pub(crate) fn count(&self, tally: Tally) {
        self.metrics.applied.inc_by(tally.applied);
        self.metrics.duplicates.inc_by(tally.duplicates);
        self.metrics.gaps.inc_by(tally.gaps);
    }
}

/// Why what was heard is followed no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The log has to be read.
    Missed,
    AnotherLife,
}

/// What of several messages follows a cursor without a hole.
struct Followed {
    /// Each with the cursor after it.
    taken: Vec<(Heard, Cursor)>,
    /// After all of them.
    cursor: Cursor,
    /// Why some were not taken.
    end: Option<End>,
}

impl Followed {
    fn of(cursor: &Cursor, messages: Vec<Heard>) -> Self {
        let mut followed = Self { taken: Vec::new(), cursor: cursor.clone(), end: None };
        for heard in messages {
            match followed.cursor.hear(&heard.life, heard.id, heard.count) {
                Hearing::Known => {}
                Hearing::Next(next) => {
                    followed.taken.push((heard, next.clone()));
                    followed.cursor = next;
                }
                Hearing::Missed => {
                    followed.end = Some(End::Missed);
                    break;
                }
                Hearing::AnotherLife => {
                    followed.end = Some(End::AnotherLife);
                    break;
                }
            }
        }
        followed
    }
}

/// The way of one partition along another region's log.
pub(crate) struct Course<'a> {
    link: &'a Link,
    partition: u16,
    /// As it stands in this region's Redis.
    stored: String,
    cursor: Cursor,
}

impl<'a> Course<'a> {
    /// Goes on from `cursor`. `stored` is what stands in this region's Redis, perhaps of another life.
    pub(crate) fn new(link: &'a Link, partition: u16, stored: String, cursor: Cursor) -> Self {
        Self { link, partition, stored, cursor }
    }

    fn desk(&self) -> &'a Desk {
        &self.link.desks[usize::from(self.partition)]
    }

    fn tell(&self, live: bool) {
        *self.desk().progress.lock() = Progress { cursor: Some(self.cursor.clone()), live };
    }

    /// Never ends by itself. `head` is where the log stood after the mailbox was opened, `backlog` what of it is behind
    /// the cursor, if anything is.
    pub(crate) async fn run(mut self, head: Head, backlog: Option<Backlog<'a>>) -> Interruption {
        let Err(interruption) = self.go(head, backlog).await;
        interruption
    }

    async fn go(&mut self, head: Head, backlog: Option<Backlog<'a>>) -> Result<Infallible, Interruption> {
        self.tell(false);
        match backlog {
            Some(backlog) => self.catch_up(Some(backlog)).await?,
            None => self.cursor.count = head.count,
        }
        loop {
            self.tell(true);
            self.follow().await?;
            self.tell(false);
            self.catch_up(None).await?;
        }
    }

    /// Reads the log until whatever comes after it is in the mailbox.
    async fn catch_up(&mut self, mut backlog: Option<Backlog<'a>>) -> Result<(), Interruption> {
        let _turn = self.link.catching_up.acquire().await;
        loop {
            let mut backlog = match backlog.take() {
                Some(backlog) => backlog,
                None => {
                    self.desk().mailbox.open();
                    let nothing = Part { after: self.cursor.id, until: None, count: 0 };
                    let head = self.link.log.pull(self.partition, nothing).await?.head;
                    Backlog::new(self.link, self.partition, self.cursor.id, head)
                }
            };
            self.check(&backlog.head)?;
            while let Some(stretch) = backlog.next().await? {
                self.take(stretch).await?;
            }
            // It was read up to there.
            self.cursor.count = backlog.head.count;
            if !self.desk().mailbox.is_overflowed() {
                return Ok(());
            }
        }
    }

    /// Whether the log still is the one that the cursor belongs to, and holds all that comes after it. What it does not
    /// is made up for when the link begins anew.
    fn check(&self, head: &Head) -> Result<(), Interruption> {
        if head.life != self.cursor.life {
            return Err(Interruption::LifeChanged);
        }
        if is_trimmed(head, self.cursor.id) { Err(Interruption::Trimmed) } else { Ok(()) }
    }

    /// Applies what was read.
    async fn take(&mut self, Stretch { pulled, reached, .. }: Stretch) -> Result<(), Interruption> {
        let mut cursor = self.cursor.clone();
        let mut steps = Vec::new();
        for (id, fields) in pulled.entries {
            cursor = Cursor { id, count: cursor.count + 1, ..cursor };
            if let Some(publication) = self.link.check(self.partition, id, fields) {
                steps.push(Step { publication, cursor: cursor.clone() });
            }
            if steps.len() == MAX_ENTRIES {
                self.apply_backlog(std::mem::take(&mut steps), cursor.clone()).await?;
            }
        }
        let end = Cursor { id: cursor.id.max(reached), ..cursor };
        if !steps.is_empty() || end.id > self.cursor.id {
            self.apply_backlog(steps, end).await?;
        }
        if pulled.head.is_reached_by(self.cursor.id) {
            self.cursor.count = pulled.head.count;
        }
        self.tell(false);
        Ok(())
    }

    async fn apply_backlog(&mut self, steps: Vec<Step>, to: Cursor) -> Result<(), Interruption> {
        let _turn = self.link.turn(steps.len()).await;
        match self.apply(steps, to, Mode::Log).await? {
            true => Ok(()),
            // Redis could not write: what it says is in its log.
            false => Err(Interruption::LocalAway),
        }
    }

    /// Applies what is heard, until the log has to be read.
    async fn follow(&mut self) -> Result<(), Interruption> {
        while let Some(messages) = self.desk().mailbox.take(MAX_ENTRIES).await {
            let Followed { taken, cursor, end } = Followed::of(&self.cursor, messages);
            let step = |(heard, cursor): (Heard, Cursor)| {
                let publication = self.link.check(self.partition, heard.id, heard.fields)?;
                Some(Step { publication, cursor })
            };
            let steps: Vec<_> = taken.into_iter().filter_map(step).collect();
            let moves = cursor.id > self.cursor.id;
            if moves && !self.apply(steps, cursor, Mode::Live).await? {
                return Ok(());
            }
            match end {
                None => self.tell(true),
                Some(End::Missed) => {
                    tracing::info!(
                        region = self.link.region(),
                        partition = self.partition,
                        "a publication was not heard; the log is read"
                    );
                    return Ok(());
                }
                Some(End::AnotherLife) => return Err(Interruption::LifeChanged),
            }
        }
        Ok(())
    }

    /// Applies and moves the cursor; `false` when it ended before all was applied.
    async fn apply(&mut self, steps: Vec<Step>, to: Cursor, mode: Mode) -> Result<bool, Interruption> {
        let applying = &self.link.applying;
        let outcome = applying
            .apply(self.partition, &self.stored, &to, &steps, mode)
            .await
            .map_err(|_| Interruption::LocalAway)?;
        match outcome {
            Outcome::Done(tally) => {
                self.link.count(tally);
                self.stored = to.to_string();
                self.cursor = to;
                Ok(true)
            }
            Outcome::Stopped(tally) => {
                self.link.count(tally);
                let taken = usize::try_from(tally.applied + tally.duplicates).unwrap_or(usize::MAX);
                if let Some(step) = taken.checked_sub(1).and_then(|last| steps.get(last)) {
                    self.cursor = step.cursor.clone();
                    self.stored = self.cursor.to_string();
                }
                Ok(false)
            }
            refused => done(Ok(refused)).map(|_| false),
        }
    }
}

/// Whether publications behind `id` may have been trimmed.
pub(crate) fn is_trimmed(head: &Head, id: StreamId) -> bool {
    head.trimmed && !head.is_reached_by(id) && head.oldest.is_none_or(|oldest| oldest > id.next())
}

#[cfg(test)]
#[path = "course/tests.rs"]
mod tests;
