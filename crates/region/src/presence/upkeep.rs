//! Keeps Redis and a node of one mind about presence, however either of them failed.
//!
//! In turns of one to two seconds, the node renews its lease. It says again what it holds where Redis may not know it,
//! and takes back what it does not hold. It removes the members of nodes whose lease has run out. Where news may have
//! been missed, it compares what its subscribers were told with what is. Each partition may be on another server: what
//! is known of one says nothing of the others, and one that cannot be asked holds up only itself.

use super::{
    Arrival, Shared,
    answers::{self, Listing},
    holding::{CLAIMS, Place, release_others},
    partition::Comparison,
    requests::{Announce, Hold},
    rooms::Footing,
    unreadable,
};
use futures_util::future::join_all;
use redis::Value;
use skywave_protocol::Channel;
use skywave_redis::CallError;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Between these, at random, so that nodes do not look all at once.
const TURN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(2);
/// For so long a node's own lease has to hold before it judges others. If Redis was held up or moved its clock, which
/// ends all leases, the others had time to renew theirs by then.
const STEADY: Duration = Duration::from_secs(6);
/// A turn that is needed sooner.
const NEXT_TURN: Duration = Duration::from_millis(100);
/// The most channels that are asked for at a time.
const COMPARED: usize = 64;

/// Runs for the node's life.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        shared.renew().await;
        shared.make_good().await;
        let needed = shared.next_turn();
        tokio::time::sleep(NEXT_TURN).await;
        tokio::select! {
            biased;
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
        let needed = self.partitions.iter().filter_map(|partition| {
            let known = partition.lock();
            let doubts_end = known.doubtful.then_some(now + 5 * NEXT_TURN);
            doubts_end.into_iter().chain(known.compares_at()).min()
        });
        needed.chain([now + self.redis.chance().within(TURN)]).min().unwrap_or(now)
    }

    /// Renews the leases of all partitions.
    async fn renew(&self) {
        let asked = Instant::now();
        let calls = self.numbers().map(|partition| {
            let residents = self.shards.part(partition).lock();
            // Counted and called in one step, so that Redis has been told of them all.
            let (held, call) = (residents.total(), self.redis.commands.call(self.requests.renew(partition)));
            async move { (partition, held, call.await) }
        });
        let calls: Vec<_> = calls.collect();
        for (partition, held, outcome) in join_all(calls).await {
            match outcome.and_then(|value| answers::renewed(value).map_err(unreadable)) {
                Ok(renewed) => {
                    self.learn(partition, &renewed.life);
                    self.partition(partition).lock().renewed(asked, held, &renewed);
                }
                Err(_) => self.partition(partition).lock().away(),
            }
        }
    }

    /// Makes good what is amiss. That takes long where it is much or the path is slow, so the leases are renewed
    /// meanwhile.
    async fn make_good(&self) {
        let making_good = async {
            self.restate().await;
            self.sweep().await;
            self.compare().await;
        };
        tokio::pin!(making_good);
        loop {
            tokio::select! {
                biased;
                () = &mut making_good => return,
                () = tokio::time::sleep(*TURN.end()) => self.renew().await,
            }
        }
    }

    /// Says again what this node holds, where that is in doubt.
    async fn restate(&self) {
        for partition in self.numbers() {
            let doubtful = std::mem::take(&mut self.partition(partition).lock().doubtful);
            if !doubtful {
                continue;
            }
            self.partition(partition).lock().restating = true;
            let restated = self.restate_in(partition).await;
            let mut known = self.partition(partition).lock();
            known.restating = false;
            if let Err(error) = restated {
                tracing::debug!(%error, partition, "presence is not made good yet");
                known.doubtful = true;
            }
        }
    }

    async fn restate_in(&self, partition: u16) -> Result<(), CallError> {
        let all = self.shards.part(partition).lock().all();
        for some in all.chunks(CLAIMS) {
            self.claim(partition, some).await?;
        }
        let release = |places: &[Place]| self.release(partition, places);
        release_others(&self.redis, &self.requests, partition, release).await
    }

    async fn claim(&self, partition: u16, sessions: &[Place]) -> Result<(), CallError> {
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
    ) -> Option<impl Future<Output = Result<Value, CallError>> + use<>> {
        // Called with the residents locked: who comes now is claimed after this.
        let residents = self.shards.part(partition).lock();
        let others = held.iter().filter(|(channel, session)| residents.get(channel, session).is_none());
        self.requests.take_back(partition, others).map(|request| self.redis.commands.call(request))
    }

    /// Removes the members of holders whose lease has run out.
    async fn sweep(&self) {
        let may_judge = |partition: &u16| self.partition(*partition).lock().is_steady_for(STEADY);
        let calls = self.numbers().filter(may_judge).map(|partition| {
            let call = self.redis.commands.call(self.requests.sweep(partition));
            async move { (partition, call.await) }
        });
        let calls: Vec<_> = calls.collect();
        for (partition, mut outcome) in join_all(calls).await {
            while let Ok(Some((holder, sessions))) =
                outcome.and_then(|value| answers::swept(value).map_err(unreadable))
            {
                if sessions > 0 {
                    tracing::info!(holder, partition, sessions, "the members of a holder that is gone leave");
                }
                if !may_judge(&partition) {
                    break;
                }
                outcome = self.redis.commands.call(self.requests.sweep(partition)).await;
            }
        }
    }

    /// Compares what was told with what is, where that is due.
    async fn compare(&self) {
        let due: Vec<_> =
            self.partitions.iter().map(|partition| partition.lock().take_comparison()).collect();
        if due.iter().all(Option::is_none) {
            return;
        }
        let mut channels = self.rooms.watched();
        channels.retain(|channel| {
            let due = &due[usize::from(self.requests.keys.partition(channel))];
            due.as_ref().is_some_and(|comparison: &Comparison| comparison.is_of(channel))
        });
        for some in channels.chunks(COMPARED) {
            let asked = some.iter().map(|channel| self.ask(channel));
            let asked: Vec<_> = asked.collect();
            for (channel, answer) in some.iter().zip(join_all(asked).await) {
                self.compared(channel, answer);
            }
        }
    }

    fn compared(&self, channel: &Channel, answer: Result<Listing, CallError>) {
        let is_compared = answer.is_ok_and(|listing| {
            // In another life the nodes have to say first what they hold.
            self.footing(channel, &listing.life) != Footing::Settled || self.rooms.compare(channel, &listing)
        });
        if !is_compared {
            self.partition(self.requests.keys.partition(channel)).lock().compare_again(channel);
        }
    }
}
