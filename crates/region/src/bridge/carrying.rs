//! Keeps all partitions of a link on their way. What stops those of one server holds up none of the others.

use super::{
    ASKED_AT_ONCE, Bridge, HELD_WELL, Place,
    course::{Course, Interruption, Link},
    cursor::Cursor,
    pull::{Head, Share},
    telling::Telling,
};
use crate::broker::epoch::is_later_life;
use futures_util::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use skywave_host::Chance;
use skywave_redis::{
    ConnectError,
    backoff::{Backoff, RECONNECT_PAUSE},
};
use std::{
    collections::{BTreeSet, HashMap},
    mem,
};
use tokio::time::{Instant, sleep_until};

/// So often partitions are begun in vain before another node is to try.
const FEWEST_TRIALS: u32 = 8;
/// What another node did not reach either is handed over less often, since each change holds up the others for a
/// moment.
const MOST_TRIALS: u32 = 512;

/// How often partitions are begun in vain before another node is to try.
pub(crate) struct Patience(u32);

impl Patience {
    pub(crate) fn new() -> Self {
        Self(FEWEST_TRIALS)
    }
}

/// What comes next of some partitions.
enum Step<'a> {
    Found(Vec<Share>),
    /// They go on, but for those in whose way something is.
    Begun(Vec<Run<'a>>, Vec<(u16, Interruption)>),
    Fell(Vec<u16>, Interruption),
}

/// A partition that goes on.
struct Run<'a> {
    partition: u16,
    head: Head,
    place: Place<'a>,
}

/// Partitions that wait to be begun.
struct Waiting {
    partitions: BTreeSet<u16>,
    /// How often each that has not begun was tried in vain.
    trials: HashMap<u16, u32>,
    backoff: Backoff,
    chance: Chance,
    fell_at: Instant,
    next: Instant,
}

impl Waiting {
    fn new(partitions: u16, chance: &Chance) -> Self {
        let now = Instant::now();
        let (backoff, chance) = (Backoff::new(RECONNECT_PAUSE, chance), chance.clone());
        let trials = (0..partitions).map(|partition| (partition, 0)).collect();
        Self { partitions: (0..partitions).collect(), trials, backoff, chance, fell_at: now, next: now }
    }

    /// Whether they are the first for now.
    fn add(&mut self, partitions: &[u16], why: &Interruption) -> bool {
        for partition in partitions {
            *self.trials.entry(*partition).or_default() += u32::from(why.may_spare_another_node());
        }
        let are_first = self.partitions.is_empty();
        self.partitions.extend(partitions);
        are_first
    }

    /// Whether nothing fell for long before now.
    fn holds_well(&mut self) -> bool {
        let held_well = self.fell_at.elapsed() > HELD_WELL;
        if held_well {
            self.backoff = Backoff::new(RECONNECT_PAUSE, &self.chance);
        }
        self.fell_at = Instant::now();
        self.next = self.fell_at + self.backoff.pause();
        held_well
    }

    fn most_trials(&self) -> u32 {
        self.trials.values().copied().max().unwrap_or_default()
    }
}

impl Bridge {
    /// Ends where the link as a whole is to begin anew.
    pub(super) async fn carry<'a>(
        &'a self,
        link: &'a Link,
        patience: &mut Patience,
        telling: &mut Telling<'_>,
    ) -> Interruption {
        let mut waiting = Waiting::new(self.local.keys.partitions(), self.local.chance());
        let mut steps = FuturesUnordered::new();
        loop {
            let step = tokio::select! {
                biased;
                () = sleep_until(waiting.next), if !waiting.partitions.is_empty() => {
                    steps.push(self.find(link, mem::take(&mut waiting.partitions)).boxed());
                    continue;
                }
                Some(step) = steps.next() => step,
            };
            let fallen = match step {
                Step::Found(shares) => {
                    steps.extend(shares.into_iter().map(|share| self.begin(link, share).boxed()));
                    Vec::new()
                }
                Step::Begun(runs, fallen) => {
                    waiting.trials.retain(|partition, _| runs.iter().all(|run| run.partition != *partition));
                    if !runs.is_empty() {
                        steps.push(run(link, runs).boxed());
                    }
                    fallen.into_iter().map(|(partition, why)| (vec![partition], why)).collect()
                }
                Step::Fell(partitions, why) => vec![(partitions, why)],
            };
            for (partitions, why) in fallen {
                if !why.is_of_some_partitions() {
                    return why;
                }
                // Should the server here come back without its data.
                self.remember(link);
                if waiting.add(&partitions, &why) {
                    self.metrics.interruptions.inc();
                    if waiting.holds_well() {
                        telling.holds_well();
                    }
                    telling.begins_anew(&why);
                }
            }
            if waiting.trials.is_empty() {
                *patience = Patience::new();
            } else if waiting.most_trials() >= patience.0 {
                patience.0 = (2 * patience.0).min(MOST_TRIALS);
                return Interruption::Unreached;
            }
        }
    }

    /// Which servers have these partitions.
    async fn find<'a>(&'a self, link: &'a Link, partitions: BTreeSet<u16>) -> Step<'a> {
        let local = |log: &str| self.local.commands.server_of(log);
        match link.log.shares(&partitions, local).await {
            Ok(shares) => Step::Found(shares),
            Err(error) => Step::Fell(partitions.into_iter().collect(), error.into()),
        }
    }

    async fn begin<'a>(&'a self, link: &'a Link, share: Share) -> Step<'a> {
        let begun = self.try_to_begin(link, &share).await;
        begun.unwrap_or_else(|why| Step::Fell(share.partitions, why))
    }

    async fn try_to_begin<'a>(&'a self, link: &'a Link, share: &Share) -> Result<Step<'a>, Interruption> {
        let mut fallen = Vec::new();
        let cursor = |partition| async move { (partition, self.cursor(partition).await) };
        let cursors = stream::iter(share.partitions.clone()).map(cursor).buffered(ASKED_AT_ONCE);
        let cursors = apart(cursors, &mut fallen).await;
        if cursors.is_empty() {
            return Ok(Step::Begun(Vec::new(), fallen));
        }
        link.log.connect(share).await?;
        let head = |(partition, stored): (u16, String)| async move {
            let head = head(link, partition).await.and_then(|head| self.believe(partition, head, &stored));
            (partition, head.map(|head| (head, stored)))
        };
        let heads = stream::iter(cursors).map(head).buffered(ASKED_AT_ONCE);
        let heads = apart(heads, &mut fallen).await;
        let stands: Vec<_> =
            heads.into_iter().map(|(partition, (head, stored))| (partition, head, stored)).collect();
        let places = self.places(link, &stands).await?;
        let runs = stands.into_iter().zip(places);
        let runs = runs.map(|((partition, head, _), place)| Run { partition, head, place }).collect();
        Ok(Step::Begun(runs, fallen))
    }

    /// Doubts a server in an earlier life than was followed before.
    fn believe(&self, partition: u16, head: Head, stored: &str) -> Result<Head, Interruption> {
        let cursor = Cursor::parse(stored).or_else(|| self.reached.lock().get(&partition).cloned());
        let mut doubts = self.doubts[usize::from(partition)].lock();
        doubts.came(|life| life == head.life);
        let is_doubted = cursor
            .is_some_and(|Cursor { life, .. }| is_later_life(&life, &head.life) && doubts.wait_for(&life));
        if is_doubted { Err(ConnectError::Superseded.into()) } else { Ok(head) }
    }
}

/// Tells apart what is known of partitions and what is in the way of others.
async fn apart<T>(
    asked: impl Stream<Item = (u16, Result<T, Interruption>)>,
    fallen: &mut Vec<(u16, Interruption)>,
) -> Vec<(u16, T)> {
    let (mut asked, mut known) = (std::pin::pin!(asked), Vec::new());
    while let Some((partition, answer)) = asked.next().await {
        match answer {
            Ok(answer) => known.push((partition, answer)),
            Err(why) => fallen.push((partition, why)),
        }
    }
    known
}

async fn head(link: &Link, partition: u16) -> Result<Head, Interruption> {
    // First, so that what comes behind the head is in it.
    link.desks[usize::from(partition)].mailbox.open();
    Ok(link.log.head(partition).await?)
}

/// Follows partitions of a share until something is in the way of one: it is most likely in that of all.
async fn run<'a>(link: &'a Link, runs: Vec<Run<'a>>) -> Step<'a> {
    let partitions: Vec<_> = runs.iter().map(|run| run.partition).collect();
    let mut courses = FuturesUnordered::<BoxFuture<'a, Interruption>>::new();
    for Run { partition, head, place: Place { stored, cursor, backlog } } in runs {
        courses.push(Course::new(link, partition, stored, cursor).run(head, backlog).boxed());
    }
    courses.push(link.log.keep_alive(partitions.clone()).map(Interruption::from).boxed());
    let why = match courses.next().await {
        Some(why) => why,
        None => std::future::pending().await,
    };
    for partition in &partitions {
        link.desks[usize::from(*partition)].progress.lock().live = false;
    }
    Step::Fell(partitions, why)
}
