//! Mirrors the presence of another region here: of all nodes, the one that holds the lease.
//!
//! What nodes of that region hold is held here in the region's name. Changes cross as they are told there, by numbers, so
//! that none is missed unnoticed. In turns it is counted how many are held on both sides after the same change, and where
//! that differs, the members are compared. The region holds by a lease like a node: when it
//! cannot be reached for longer, all of its members leave in one step, and come back when it can be reached again.

use super::{
    RESTORED, answers,
    answers::{Census, Renewed},
    held::{Held, News, details},
    holding::{CLAIMS, Place, release_others},
    requests::{Announce, Hold, Release, Requests},
    unreadable,
};
use crate::{
    backoff::Backoff,
    broker::BrokerError,
    redis::{Redis, connection::RECONNECT_PAUSE, heard::Heard, subscription, subscription::Subscription},
    region::{Remote, lease::Candidate},
};
use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, try_join_all},
    stream::{self, FuturesUnordered},
};
use redis::Value;
use skywave_protocol::Channel;
use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

/// A region that cannot be reached for so long is taken for gone.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often the region is looked at.
const TURN: Duration = Duration::from_secs(2);
/// A node that cannot reach the region for so long lets another one try.
const REMOTE_PATIENCE: Duration = Duration::from_secs(5);
/// The most changes that wait to be applied; beyond it members are compared.
const MAX_NEWS: usize = 16_384;
/// The most calls under way for changes.
const MAX_UNDER_WAY: usize = 256;
/// How many partitions are compared at a time.
const COMPARED: usize = 4;
/// A session may be on its way between the regions when it is counted; twice in a row it is not.
const MISMATCHES: u8 = 2;
/// A full list of changes may not name all of them.
const FULL: usize = crate::presence::MAX_MEMBERS;

/// Brings another region's presence here.
pub struct Mirror {
    remote: Remote,
    local: Redis,
    candidate: Candidate,
    /// In the name of the region, here.
    here: Requests,
    /// What is asked there; nothing is held there.
    there: Requests,
    patience: Duration,
}

/// What is known of a partition on both sides.
#[derive(Default)]
struct Partition {
    life_there: Option<String>,
    life_here: Option<String>,
    /// Which nodes hold members there.
    holders: Vec<String>,
    /// Of the changes there, which are applied here, or on their way.
    heard: Heard,
    /// How many were held there after which change; not counted here yet, as that change was not heard.
    counted_there: Option<Counted>,
    mismatches: u8,
    compare_at: Option<Instant>,
}

/// How many sessions were held after the change of that number.
#[derive(Debug, Clone, Copy)]
struct Counted {
    said: u64,
    held: usize,
}

/// What was found out about a partition.
enum Looked {
    There(u16, Result<Census, Away>),
    /// With how many should be held, where that is known.
    Here(u16, Option<usize>, Result<Renewed, Away>),
}

/// Which Redis could not be asked.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Away {
    #[error("the other region's Redis is away")]
    There,
    #[error("this region's Redis is away")]
    Here,
}

fn there(_: BrokerError) -> Away {
    Away::There
}

fn here(_: BrokerError) -> Away {
    Away::Here
}

impl Mirror {
    /// `node` names this node among those that may do it. The region's members leave when it cannot be reached for
    /// `patience`.
    pub fn new(remote: Remote, local: Redis, node: &str, patience: Duration) -> Self {
        // No node's id begins so.
        let holder: Arc<str> = format!("@{}", remote.name).into();
        let contender = format!("{node} {:016x}", rand::random::<u64>());
        Self {
            candidate: Candidate::new(local.clone(), &format!("presence:{}", remote.name), contender.into()),
            here: Requests { keys: local.keys.clone(), holder: holder.clone(), lease: patience },
            there: Requests { keys: remote.redis.keys.clone(), holder, lease: patience },
            remote,
            local,
            patience,
        }
    }

    /// Takes part for as long as the node runs.
    pub async fn run(self) {
        loop {
            let lease = self.candidate.acquire(0).await;
            let why = tokio::select! {
                () = lease.lost() => None,
                away = self.lead() => Some(away),
            };
            drop(lease);
            if let Some(away) = why {
                tracing::debug!(region = &*self.remote.name, %away, "another node may mirror presence");
                tokio::time::sleep(Duration::from_millis(rand::random_range(1_000..2_000))).await;
            }
        }
    }

    /// Mirrors until the other region has been away for too long.
    async fn lead(&self) -> Away {
        let mut backoff = Backoff::new(RECONNECT_PAUSE);
        let mut reached_at = Instant::now();
        loop {
            let (away, reached) = self.follow().await;
            reached_at = reached.map_or(reached_at, |at| at.max(reached_at));
            if reached.is_some() {
                backoff = Backoff::new(RECONNECT_PAUSE);
            }
            if reached_at.elapsed() > REMOTE_PATIENCE {
                return away;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Mirrors until a Redis is away; tells when the other region was last reached.
    async fn follow(&self) -> (Away, Option<Instant>) {
        let (sender, news) = mpsc::channel(MAX_NEWS);
        let missed = Arc::new(AtomicBool::new(false));
        let Redis { keys, metrics, .. } = &self.remote.redis;
        let channels = (0..keys.partitions()).map(|partition| keys.presence_news(partition)).collect();
        let reconnects = metrics.reconnects.with_label_values(&["presence-mirror"]);
        let ear = Ear { news: sender, missed: missed.clone() };
        let hearing = match Subscription::start(&self.remote.redis, channels, ear, reconnects).await {
            Ok(hearing) => hearing,
            Err(error) => {
                tracing::debug!(%error, region = &*self.remote.name, "presence is not mirrored yet");
                return (Away::There, None);
            }
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(hearing);
        let mut session = Session {
            mirror: self,
            partitions: (0..self.here.keys.partitions()).map(|_| Partition::default()).collect(),
            under_way: FuturesUnordered::new(),
            looking: FuturesUnordered::new(),
            missed,
            reached_at: None,
        };
        session.compare_all(Instant::now());
        let Err(away) = session.run(news).await;
        (away, session.reached_at)
    }
}

/// One stretch of mirroring, over which no change is missed unnoticed.
struct Session<'a> {
    mirror: &'a Mirror,
    partitions: Vec<Partition>,
    /// Changes on their way to this region's Redis.
    under_way: FuturesUnordered<BoxFuture<'static, Result<Value, BrokerError>>>,
    /// A look at both sides; while one is taken no other is begun.
    looking: FuturesUnordered<BoxFuture<'static, Looked>>,
    /// Changes may not have been heard.
    missed: Arc<AtomicBool>,
    reached_at: Option<Instant>,
}

impl Session<'_> {
    /// Goes on until a Redis is away.
    async fn run(&mut self, mut news: mpsc::Receiver<News>) -> Result<Infallible, Away> {
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = self.under_way.len() < MAX_UNDER_WAY;
            tokio::select! {
                Some(outcome) = self.under_way.next() => {
                    if outcome.is_err() {
                        self.missed.store(true, Ordering::Release);
                    }
                }
                Some(one) = news.recv(), if has_room => self.apply(one),
                Some(looked) = self.looking.next() => {
                    self.looked(looked)?;
                    if self.looking.is_empty() {
                        self.compare_due().await?;
                    }
                }
                _ = turn.tick(), if self.looking.is_empty() => self.look(),
            }
        }
    }

    fn compare_all(&mut self, now: Instant) {
        for partition in &mut self.partitions {
            partition.compare_at = Some(partition.compare_at.map_or(now, |at| at.max(now)));
        }
    }

    /// Applies what changed by nodes of the region; what it has from other regions comes from them.
    fn apply(&mut self, news: News) {
        let News { life, number: said, channel, joined, back, left, taken, .. } = news;
        let number = self.mirror.here.keys.partition(&channel);
        if [&joined, &back, &left, &taken].iter().any(|list| list.len() >= FULL) {
            self.missed.store(true, Ordering::Release);
        }
        let own = |list: Vec<Held>| list.into_iter().filter(|held| !held.holder.starts_with('@'));
        let holds = |list| own(list).map(|held| hold(&channel, held)).collect::<Vec<_>>();
        let requests = &self.mirror.here;
        let (joined, again) = (holds(joined), holds(back.into_iter().chain(taken).collect()));
        for (announce, holds) in [(Announce::Joined, joined), (Announce::Back, again)] {
            if !holds.is_empty() {
                self.under_way.push(self.mirror.call(requests.arrive(number, announce, holds)));
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
            self.under_way.push(self.mirror.call(requests.depart(number, left)));
        }
        let partition = &mut self.partitions[usize::from(number)];
        partition.learn(&life);
        if let Some(expected) = partition.heard(said) {
            self.count_here(number, Some(expected));
        }
    }

    /// Begins to look at both sides.
    fn look(&mut self) {
        if self.missed.swap(false, Ordering::AcqRel) {
            self.compare_all(Instant::now());
        }
        for number in self.mirror.numbers() {
            let census = self.mirror.census(number);
            self.looking.push(Box::pin(census.map(move |census| Looked::There(number, census))));
        }
    }

    fn looked(&mut self, looked: Looked) -> Result<(), Away> {
        match looked {
            Looked::There(number, census) => {
                let expected = self.partitions[usize::from(number)].counted_there(census?);
                self.reached_at = Some(Instant::now());
                self.count_here(number, expected);
            }
            Looked::Here(number, expected, renewed) => {
                self.partitions[usize::from(number)].counted_here(expected, &renewed?);
            }
        }
        Ok(())
    }

    /// Renews the region's lease, and counts what is held after all that was called before.
    fn count_here(&self, number: u16, expected: Option<usize>) {
        let renewal = self.mirror.renewal(number);
        self.looking.push(Box::pin(renewal.map(move |renewed| Looked::Here(number, expected, renewed))));
    }

    /// Compares where that is due.
    async fn compare_due(&mut self) -> Result<(), Away> {
        let now = Instant::now();
        let due: Vec<_> = (0..)
            .zip(&mut self.partitions)
            .filter_map(|(number, one)| {
                one.compare_at.take_if(|at| *at <= now).map(|_| (number, std::mem::take(&mut one.holders)))
            })
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let mirror = self.mirror;
        let comparing = stream::iter(due)
            .map(|(number, holders)| async move { mirror.compare(number, &holders).await })
            .buffer_unordered(COMPARED)
            .try_for_each(|()| std::future::ready(Ok(())));
        tokio::pin!(comparing);
        let mut renewing = tokio::time::interval(TURN);
        loop {
            tokio::select! {
                compared = &mut comparing => return compared,
                _ = renewing.tick() => mirror.renew().await?,
            }
        }
    }
}

impl Partition {
    /// Takes note of the life there. In another one than before, its nodes say first again what they hold.
    fn learn(&mut self, life: &str) {
        if is_other(&mut self.life_there, life) {
            (self.heard, self.counted_there) = (Heard::default(), None);
            self.compare_at = Some(Instant::now() + RESTORED);
        }
    }

    /// Takes note that this change is on its way; answers how many should be held after it, if that was counted.
    fn heard(&mut self, number: u64) -> Option<usize> {
        if self.heard.news(number) {
            self.compare_at.get_or_insert_with(Instant::now);
        }
        self.counted_there
            .take_if(|counted| counted.said <= number)
            .filter(|counted| counted.said == number)
            .map(|counted| counted.held)
    }

    /// Takes note of how many are held there. Answers how many should be held here at this moment, if that is known:
    /// changes may have been heard that are not counted, or counted that come later.
    fn counted_there(&mut self, census: Census) -> Option<usize> {
        let Census { life, held, holders, said } = census;
        self.learn(&life);
        self.holders = holders;
        if self.heard.counted(said) {
            self.compare_at.get_or_insert_with(Instant::now);
        }
        let heard = self.heard.last();
        self.counted_there = (Some(said) > heard).then_some(Counted { said, held });
        (Some(said) == heard).then_some(held)
    }

    fn counted_here(&mut self, expected: Option<usize>, renewed: &Renewed) {
        if is_other(&mut self.life_here, &renewed.life) || renewed.lapsed {
            self.compare_at.get_or_insert_with(Instant::now);
        }
        let Some(expected) = expected else { return };
        self.mismatches = if expected == renewed.held { 0 } else { self.mismatches.saturating_add(1) };
        if self.mismatches >= MISMATCHES {
            self.mismatches = 0;
            self.compare_at.get_or_insert_with(Instant::now);
        }
    }
}

fn is_other(known: &mut Option<String>, life: &str) -> bool {
    known.replace(life.to_owned()).is_some_and(|before| before != life)
}

impl Mirror {
    fn call(&self, request: crate::redis::Request) -> BoxFuture<'static, Result<Value, BrokerError>> {
        Box::pin(self.local.commands.call(request))
    }

    fn numbers(&self) -> std::ops::Range<u16> {
        0..self.here.keys.partitions()
    }

    fn census(&self, number: u16) -> impl Future<Output = Result<Census, Away>> + use<> {
        let call = self.remote.redis.commands.call(self.there.census(number, self.patience));
        async move { call.await.and_then(|value| answers::census(value).map_err(unreadable)).map_err(there) }
    }

    fn renewal(&self, number: u16) -> impl Future<Output = Result<Renewed, Away>> + use<> {
        let call = self.call(self.here.renew(number));
        async move { call.await.and_then(|value| answers::renewed(value).map_err(unreadable)).map_err(here) }
    }

    /// Renews the region's lease, provided that it can be reached.
    async fn renew(&self) -> Result<(), Away> {
        try_join_all(self.numbers().map(|number| self.census(number))).await?;
        try_join_all(self.numbers().map(|number| self.renewal(number))).await?;
        Ok(())
    }

    /// Makes the members of the region here those that its nodes hold.
    async fn compare(&self, number: u16, holders: &[String]) -> Result<(), Away> {
        let mut held = HashSet::new();
        for holder in holders {
            let mut cursor = Some("0".to_owned());
            while let Some(at) = cursor {
                let request = self.there.holdings(number, holder, &at);
                let value = self.remote.redis.commands.call(request).await.map_err(there)?;
                let holdings = answers::holdings(value).map_err(|error| there(unreadable(error)))?;
                cursor = holdings.next;
                self.claim(number, holdings.held, &mut held).await.map_err(here)?;
            }
        }
        let release = |places: &[Place]| {
            let others = places.iter().filter(|place| !held.contains(*place));
            self.here.take_back(number, others).map(|request| self.call(request))
        };
        release_others(&self.local, &self.here, number, release).await.map_err(here)
    }

    async fn claim(
        &self,
        number: u16,
        found: Vec<(Channel, Held)>,
        held: &mut HashSet<Place>,
    ) -> Result<(), BrokerError> {
        let mut holds = Vec::new();
        for (channel, one) in found {
            if self.here.keys.partition(&channel) == number {
                held.insert((channel.clone(), one.member.session.clone()));
                holds.push(hold(&channel, one));
            }
        }
        while !holds.is_empty() {
            let rest = holds.split_off(holds.len().min(CLAIMS));
            self.call(self.here.arrive(number, Announce::Back, std::mem::replace(&mut holds, rest))).await?;
        }
        Ok(())
    }
}

fn hold(channel: &Channel, held: Held) -> Hold {
    Hold {
        channel: channel.clone(),
        // A stay of 0 would be an arrival here.
        stay: held.stay.max(1),
        since_ms: held.member.since_ms,
        details: details(&held.member, held.claim),
        session: held.member.session,
    }
}

/// Hears what changes in the other region.
struct Ear {
    news: mpsc::Sender<News>,
    missed: Arc<AtomicBool>,
}

impl subscription::Listener for Ear {
    fn message(&mut self, _channel: &str, payload: &[u8]) {
        match News::decode(payload) {
            Ok(news) => {
                if self.news.try_send(news).is_err() {
                    self.missed.store(true, Ordering::Release);
                }
            }
            Err(error) => tracing::error!(%error, "a change of another region's presence is passed over"),
        }
    }

    fn resumed(&mut self) {
        self.missed.store(true, Ordering::Release);
    }
}
