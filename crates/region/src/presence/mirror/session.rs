//! One stretch of mirroring, over which no change is missed unnoticed.
//!
//! Each partition may be on a server of its own. One that cannot be asked, there or here, keeps what it had for as long
//! as the region's lease runs, and holds up no other.

use super::{Away, Mirror, Patience, comparing::Comparing, partition::Partition};
use crate::presence::{
    answers::{Census, Renewed},
    held::{Held, News},
    requests::{Announce, Release},
};
use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use redis::Value;
use skywave_channels::presence::MAX_MEMBERS;
use skywave_redis::CallError;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

/// How often the region is looked at.
const TURN: Duration = Duration::from_secs(2);
/// The most calls under way for changes.
const MAX_UNDER_WAY: usize = 256;
/// How many partitions are compared at a time.
const COMPARED: usize = 4;
/// A full list of changes may not name all of them.
const FULL: usize = MAX_MEMBERS;

/// What was found out about a partition.
enum Looked {
    There(u16, Result<Census, Away>),
    /// With how many should be held, where that is known.
    Here(u16, Option<usize>, Result<Renewed, Away>),
}

pub(crate) struct Session<'a> {
    mirror: &'a Mirror,
    partitions: Vec<Partition>,
    /// Changes on their way to this region's Redis, of a partition each.
    under_way: FuturesUnordered<BoxFuture<'static, (u16, Result<Value, CallError>)>>,
    /// A look at both sides; while one is taken no other is begun.
    looking: FuturesUnordered<BoxFuture<'static, Looked>>,
    /// Changes may not have been heard.
    missed: Arc<AtomicBool>,
    begun: Instant,
}

impl<'a> Session<'a> {
    pub(crate) fn new(mirror: &'a Mirror, missed: Arc<AtomicBool>) -> Self {
        Self {
            mirror,
            partitions: mirror.numbers().map(|_| Partition::default()).collect(),
            under_way: FuturesUnordered::new(),
            looking: FuturesUnordered::new(),
            missed,
            begun: Instant::now(),
        }
    }

    /// Goes on until another node is to try what this one does not reach.
    pub(crate) async fn run(mut self, mut news: mpsc::Receiver<News>, patience: &mut Patience) {
        self.partitions.iter_mut().for_each(Partition::compare);
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = self.under_way.len() < MAX_UNDER_WAY;
            tokio::select! {
                // What comes seldom is first.
                biased;
                _ = turn.tick(), if self.looking.is_empty() => {
                    if self.is_over(patience) {
                        return;
                    }
                    self.look();
                }
                Some(looked) = self.looking.next() => {
                    self.looked(looked);
                    if self.looking.is_empty() {
                        self.compare_due().await;
                    }
                }
                Some((number, outcome)) = self.under_way.next() => {
                    if outcome.is_err() {
                        self.partition(number).compare();
                    }
                }
                Some(one) = news.recv(), if has_room => self.apply(one),
            }
        }
    }

    fn partition(&mut self, number: u16) -> &mut Partition {
        &mut self.partitions[usize::from(number)]
    }

    /// Whether a partition could not be asked there for too long.
    fn is_over(&self, patience: &mut Patience) -> bool {
        let reached = self.partitions.iter().map(|one| one.reached_at);
        if reached.clone().all(|at| at.is_some_and(|at| at.elapsed() < 2 * TURN)) {
            *patience = Patience::new();
        }
        let earliest = reached.map(|at| at.unwrap_or(self.begun)).min();
        earliest.is_some_and(|at| patience.is_over(at))
    }

    /// Applies what changed by nodes of the region; what it has from other regions comes from them.
    fn apply(&mut self, news: News) {
        let News { life, number: said, channel, joined, back, left, taken, .. } = news;
        let number = self.mirror.here.keys.partition(&channel);
        let is_full = [&joined, &back, &left, &taken].iter().any(|list| list.len() >= FULL);
        let own = |list: Vec<Held>| list.into_iter().filter(|held| !held.holder.starts_with('@'));
        let holds = |list| own(list).map(|held| super::hold(&channel, held)).collect::<Vec<_>>();
        let requests = &self.mirror.here;
        let (joined, again) = (holds(joined), holds(back.into_iter().chain(taken).collect()));
        let mut changes = Vec::new();
        for (announce, holds) in [(Announce::Joined, joined), (Announce::Back, again)] {
            if !holds.is_empty() {
                changes.push(requests.arrive(number, announce, holds));
            }
        }
        let release = |Held { claim, stay, member, .. }: Held| Release {
            channel: channel.clone(),
            session: member.session,
            claim,
            stay,
        };
        let left: Vec<_> = own(left).map(release).collect();
        if !left.is_empty() {
            changes.push(requests.depart(number, left));
        }
        for change in changes {
            let call = self.mirror.local.commands.call(change);
            self.under_way.push(call.map(move |outcome| (number, outcome)).boxed());
        }
        let partition = self.partition(number);
        partition.learn(&life);
        if is_full {
            partition.compare();
        }
        if let Some(expected) = partition.heard(said) {
            self.count_here(number, Some(expected));
        }
    }

    /// Begins to look at both sides.
    fn look(&mut self) {
        if self.missed.swap(false, Ordering::AcqRel) {
            self.partitions.iter_mut().for_each(Partition::compare);
        }
        for number in self.mirror.numbers() {
            self.partition(number).is_asked();
            let census = self.mirror.census(number);
            self.looking.push(census.map(move |census| Looked::There(number, census)).boxed());
        }
    }

    fn looked(&mut self, looked: Looked) {
        match looked {
            Looked::There(number, Ok(census)) => {
                let expected = self.partition(number).counted_there(census);
                self.count_here(number, expected);
            }
            Looked::Here(number, expected, Ok(renewed)) => {
                self.partition(number).counted_here(expected, &renewed);
            }
            Looked::There(number, Err(away)) | Looked::Here(number, _, Err(away)) => {
                tracing::debug!(region = &*self.mirror.remote.name, partition = number, %away, "a partition keeps what it had");
            }
        }
    }

    /// Renews the region's lease, and counts what is held after all that was called before.
    fn count_here(&self, number: u16, expected: Option<usize>) {
        let renewal = self.mirror.renewal(number);
        self.looking.push(renewal.map(move |renewed| Looked::Here(number, expected, renewed)).boxed());
    }

    /// Compares where that is due, and renews the region's lease meanwhile.
    async fn compare_due(&mut self) {
        let due = (0..).zip(&mut self.partitions);
        let due: Vec<_> = due.filter_map(|(number, one)| Some((number, one.take_comparison()?))).collect();
        if due.is_empty() {
            return;
        }
        let mirror = self.mirror;
        let comparing = match Comparing::begin(mirror).await {
            Ok(comparing) => comparing,
            Err(error) => {
                tracing::debug!(%error, region = &*mirror.remote.name, "members are compared later");
                due.iter().for_each(|(number, _)| self.partition(*number).compare());
                return;
            }
        };
        let each = &comparing;
        let compared = stream::iter(due)
            .map(|(number, holders)| async move { (number, each.compare(number, &holders).await) })
            .buffer_unordered(COMPARED);
        tokio::pin!(compared);
        let mut renewing = tokio::time::interval(TURN);
        loop {
            tokio::select! {
                biased;
                _ = renewing.tick() => {
                    for (number, renewed) in mirror.renew().await {
                        self.partition(number).renewed(renewed.as_ref());
                    }
                    // Where it takes longer than a turn, comparing goes on all the same.
                    renewing.reset();
                }
                one = compared.next() => match one {
                    Some((_, Ok(()))) => {}
                    Some((number, Err(away))) => {
                        tracing::debug!(region = &*mirror.remote.name, partition = number, %away, "members are compared later");
                        self.partition(number).compare();
                    }
                    None => return,
                },
            }
        }
    }
}
