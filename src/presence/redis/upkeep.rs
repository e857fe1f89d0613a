//! Keeps Redis and a node of one mind about presence, however either of them failed.
//!
//! In turns of one to two seconds: the node renews its lease; says again what it holds where Redis may not know it,
//! and takes back what it does not hold; removes the members of nodes whose lease has run out; and, where news may
//! have been missed, compares what its subscribers were told with what is.

use super::{
    Arrival, Shared, answers,
    answers::{Listing, Renewed},
    holding::{CLAIMS, Place, release_others},
    requests::{Announce, Hold},
    rooms::Footing,
    unreadable,
};
use crate::broker::BrokerError;
use futures_util::future::join_all;
use redis::Value;
use skywave_protocol::Channel;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Between these, at random, so that nodes do not look all at once.
const TURN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(2);
/// For so long a node's own lease has run on before it judges others: by then they had time to renew theirs, if
/// Redis was held up or moved its clock.
const STEADY: Duration = Duration::from_secs(6);
/// A turn that is needed sooner.
const NEXT_TURN: Duration = Duration::from_millis(100);
/// The most channels that are asked for at a time.
const COMPARED: usize = 64;
/// A session may be on its way to another node when numbers are compared; twice in a row it is not.
const MISMATCHES: u8 = 2;

/// Runs for the node's life.
pub async fn run(shared: Arc<Shared>) {
    // While this node's own lease runs on, those of others have run out only if they are gone: whatever held up Redis
    // or moved its clock would have ended all of them.
    let mut steady_since: Option<Instant> = None;
    loop {
        let asked = Instant::now();
        let (ran_on, runs_on) = (shared.renew().await, shared.make_good().await);
        steady_since = if ran_on && runs_on { steady_since.or(Some(asked)) } else { None };
        if let Some(since) = steady_since {
            if since.elapsed() >= STEADY {
                shared.sweep().await;
            }
            shared.compare().await;
        }
        let needed = shared.next_turn();
        tokio::time::sleep(NEXT_TURN).await;
        tokio::select! {
            () = shared.hurry.notified() => {}
            () = tokio::time::sleep_until(needed) => {}
        }
    }
}

impl Shared {
    fn numbers(&self) -> std::ops::Range<u16> {
        0..self.requests.keys.partitions()
    }

    fn next_turn(&self) -> Instant {
        let now = Instant::now();
        let is_doubtful = self.partitions.iter().any(|partition| partition.lock().doubtful);
        let compare_at = self.partitions.iter().filter_map(|partition| partition.lock().compare_at).min();
        let turn = now + rand::random_range(TURN);
        let turn = if is_doubtful { turn.min(now + 5 * NEXT_TURN) } else { turn };
        compare_at.map_or(turn, |at| turn.min(at.max(now + 5 * NEXT_TURN)))
    }

    /// Renews the leases of all partitions; whether they ran on since the last time.
    async fn renew(&self) -> bool {
        let calls = self.numbers().map(|partition| {
            let residents = self.shards.part(partition).lock();
            // Counted and called in one step, so that Redis has been told of them all.
            let (held, call) = (residents.len(), self.redis.commands.call(self.requests.renew(partition)));
            async move { (partition, held, call.await) }
        });
        let calls: Vec<_> = calls.collect();
        let outcomes = join_all(calls).await;
        outcomes.into_iter().fold(true, |steady, (partition, held, outcome)| {
            let renewed = outcome.and_then(|value| answers::renewed(value).map_err(unreadable));
            renewed.is_ok_and(|renewed| self.renewed(partition, held, &renewed)) && steady
        })
    }

    fn renewed(&self, partition: u16, held: usize, renewed: &Renewed) -> bool {
        self.learn(partition, &renewed.life);
        let mut known = self.partition(partition).lock();
        if known.heard.counted(renewed.said) {
            known.compare_at.get_or_insert_with(Instant::now);
        }
        let differs = held != renewed.held && !known.restating;
        known.mismatches = if differs { known.mismatches.saturating_add(1) } else { 0 };
        if renewed.lapsed && held > 0 || known.mismatches >= MISMATCHES {
            known.doubtful = true;
        }
        !renewed.lapsed
    }

    /// Says again what this node holds, where that is in doubt. That takes long where it is much, so the leases are
    /// renewed meanwhile; whether they ran on.
    async fn make_good(&self) -> bool {
        let restating = self.restate();
        tokio::pin!(restating);
        let mut is_steady = true;
        loop {
            tokio::select! {
                () = &mut restating => return is_steady,
                () = tokio::time::sleep(*TURN.end()) => is_steady &= self.renew().await,
            }
        }
    }

    async fn restate(&self) {
        for partition in self.numbers() {
            let doubtful = std::mem::take(&mut self.partition(partition).lock().doubtful);
            if !doubtful {
                continue;
            }
            self.partition(partition).lock().restating = true;
            let restated = self.restate_in(partition).await;
            self.partition(partition).lock().restating = false;
            if let Err(error) = restated {
                tracing::debug!(%error, partition, "presence is not made good yet");
                self.partition(partition).lock().doubtful = true;
                return;
            }
        }
    }

    async fn restate_in(&self, partition: u16) -> Result<(), BrokerError> {
        let all = self.shards.part(partition).lock().all();
        for some in all.chunks(CLAIMS) {
            self.claim(partition, some).await?;
        }
        let release = |places: &[Place]| self.release(partition, places);
        release_others(&self.redis, &self.requests, partition, release).await
    }

    async fn claim(&self, partition: u16, sessions: &[Place]) -> Result<(), BrokerError> {
        let (arrivals, call) = {
            let residents = self.shards.part(partition).lock();
            let here = sessions.iter().filter_map(|(channel, session)| {
                let resident = residents.get(channel, session)?;
                Some((Arrival::of(channel, resident), Hold::of(channel, resident)))
            });
            let (arrivals, holds): (Vec<_>, Vec<_>) = here.unzip();
            if holds.is_empty() {
                return Ok(());
            }
            (arrivals, self.redis.commands.call(self.requests.arrive(partition, Announce::Back, holds)))
        };
        let claimed = answers::claimed(call.await?).map_err(unreadable)?;
        for (arrival, claimed) in arrivals.iter().zip(claimed) {
            self.claimed(arrival, claimed);
        }
        Ok(())
    }

    /// A call that takes back what this node does not hold of that which Redis believes it holds.
    fn release(
        &self,
        partition: u16,
        held: &[Place],
    ) -> Option<impl Future<Output = Result<Value, BrokerError>> + use<>> {
        // Called with the residents locked: who comes now is claimed after this.
        let residents = self.shards.part(partition).lock();
        let others = held.iter().filter(|(channel, session)| residents.get(channel, session).is_none());
        self.requests.take_back(partition, others).map(|request| self.redis.commands.call(request))
    }

    /// Removes the members of holders whose lease has run out.
    async fn sweep(&self) {
        let calls: Vec<_> = self
            .numbers()
            .map(|partition| self.redis.commands.call(self.requests.sweep(partition)))
            .collect();
        for (partition, mut outcome) in self.numbers().zip(join_all(calls).await) {
            while let Ok(Some((holder, sessions))) =
                outcome.and_then(|value| answers::swept(value).map_err(unreadable))
            {
                if sessions > 0 {
                    tracing::info!(holder, partition, sessions, "the members of a holder that is gone leave");
                }
                outcome = self.redis.commands.call(self.requests.sweep(partition)).await;
            }
        }
    }

    /// Compares what was told with what is, in the partitions where that is due.
    async fn compare(&self) {
        let now = Instant::now();
        let due = |partition: u16| {
            let mut known = self.partition(partition).lock();
            known.compare_at.take_if(|at| *at <= now).is_some()
        };
        let due: Vec<bool> = self.numbers().map(due).collect();
        if !due.contains(&true) {
            return;
        }
        let channels = self.rooms.watched().into_iter();
        let channels: Vec<_> =
            channels.filter(|channel| due[usize::from(self.requests.keys.partition(channel))]).collect();
        for some in channels.chunks(COMPARED) {
            let asked = some.iter().map(|channel| self.ask(channel));
            let asked: Vec<_> = asked.collect();
            for (channel, answer) in some.iter().zip(join_all(asked).await) {
                self.compared(channel, answer);
            }
        }
    }

    fn compared(&self, channel: &Channel, answer: Result<Listing, BrokerError>) {
        let is_compared = answer.is_ok_and(|listing| {
            // In another life the nodes have to say first what they hold.
            self.footing(channel, &listing.life) != Footing::Settled || self.rooms.compare(channel, &listing)
        });
        if !is_compared {
            let mut known = self.partition(self.requests.keys.partition(channel)).lock();
            known.compare_at.get_or_insert_with(Instant::now);
        }
    }
}
