//! Mirrors the presence of another region here: of all nodes, the one that holds the lease.
//!
//! What nodes of that region hold is held here in the region's name. Changes cross as they are told there, by numbers,
//! so that none is missed unnoticed. Again and again it is counted how many are held on both sides after the same
//! change. Where the counts differ, the members are compared. The region holds by a lease in each partition, like a
//! node. When a partition cannot be reached for longer, all of its members leave in one step, and come back when it can
//! be reached again.

mod comparing;
mod partition;
mod session;

use super::{
    answers::{self, Census, Renewed},
    held::{Held, News, details},
    requests::{Hold, Requests},
    unreadable,
};
use crate::{Remote, keys::RegionKeys as _, lease::Candidate};
use futures_util::future::join_all;
use session::Session;
use skywave_protocol::Channel;
use skywave_redis::{
    CallError, ConnectError, Redis,
    backoff::{Backoff, RECONNECT_PAUSE},
    subscription::{self, Subscription},
    tasks::{again, pass_on},
};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// A region that cannot be reached for so long is taken for gone.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long a node that cannot reach all of the region waits before it lets another one try: at first, and at last …
const REMOTE_PATIENCE: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(60);
/// … which begins after this.
const HANDOVER: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(2);
/// The most changes that wait to be applied; beyond it members are compared.
const MAX_NEWS: usize = 16_384;

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

/// For how long a node tries to reach all of a region before another one tries. It is longer each time: perhaps no node
/// can reach it.
struct Patience(Duration);

impl Patience {
    fn new() -> Self {
        Self(*REMOTE_PATIENCE.start())
    }

    fn is_over(&mut self, unreached_since: Instant) -> bool {
        let is_over = unreached_since.elapsed() > self.0;
        if is_over {
            self.0 = (2 * self.0).min(*REMOTE_PATIENCE.end());
        }
        is_over
    }
}

/// Which Redis could not be asked.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Away {
    #[error("the other region's Redis is away")]
    There,
    #[error("this region's Redis is away")]
    Here,
}

fn there(_: CallError) -> Away {
    Away::There
}

fn here(_: CallError) -> Away {
    Away::Here
}

impl Mirror {
    /// `node` names this node among those that may do it. The region's members leave when it cannot be reached for
    /// `patience`.
    pub fn new(remote: Remote, local: Redis, node: &str, patience: Duration) -> Self {
        // No node's id begins so.
        let holder: Arc<str> = format!("@{}", remote.name).into();
        let contender = format!("{node} {:016x}", local.chance().any::<u64>());
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
        let what = format!("the mirror of presence in region {}", self.remote.name);
        match again(what, self.local.chance(), || self.take_part()).await {}
    }

    async fn take_part(&self) -> Infallible {
        let mut patience = Patience::new();
        loop {
            let lease = self.candidate.acquire(0).await;
            let yields = tokio::select! {
                biased;
                () = lease.lost() => false,
                () = self.lead(&mut patience) => true,
            };
            drop(lease);
            if yields {
                tracing::debug!(region = &*self.remote.name, "another node may mirror presence");
                tokio::time::sleep(self.local.chance().within(HANDOVER)).await;
            }
        }
    }

    /// Mirrors until another node is to try what this one does not reach.
    async fn lead(&self, patience: &mut Patience) {
        let (begun, mut backoff) = (Instant::now(), Backoff::new(RECONNECT_PAUSE, self.local.chance()));
        loop {
            let (sender, news) = mpsc::channel(MAX_NEWS);
            let missed = Arc::new(AtomicBool::new(false));
            match self.hear(Ear { news: sender, missed: missed.clone() }).await {
                Ok(hearing) => {
                    let mut tasks = JoinSet::new();
                    tasks.spawn(hearing);
                    let mut session = std::pin::pin!(Session::new(self, missed).run(news, patience));
                    return tokio::select! {
                        biased;
                        () = &mut session => {}
                        Some(ended) = tasks.join_next() => pass_on(ended),
                    };
                }
                Err(error) => {
                    tracing::debug!(%error, region = &*self.remote.name, "presence is not mirrored yet");
                }
            }
            if patience.is_over(begun) {
                return;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Begins to hear what changes there.
    async fn hear(&self, ear: Ear) -> Result<impl Future<Output = ()> + Send + use<>, ConnectError> {
        let Redis { keys, metrics, .. } = &self.remote.redis;
        let channels = (0..keys.partitions()).map(|partition| keys.presence_news(partition)).collect();
        let reconnects = metrics.reconnects.with_label_values(&["presence-mirror"]);
        Subscription::start(&self.remote.redis, channels, ear, reconnects).await
    }

    fn numbers(&self) -> std::ops::Range<u16> {
        0..self.here.keys.partitions()
    }

    fn census(&self, number: u16) -> impl Future<Output = Result<Census, Away>> + Send + use<> {
        let call = self.remote.redis.commands.call(self.there.census(number, self.patience));
        async move { call.await.and_then(|value| answers::census(value).map_err(unreadable)).map_err(there) }
    }

    fn renewal(&self, number: u16) -> impl Future<Output = Result<Renewed, Away>> + Send + use<> {
        let call = self.local.commands.call(self.here.renew(number));
        async move { call.await.and_then(|value| answers::renewed(value).map_err(unreadable)).map_err(here) }
    }

    /// Renews the region's lease in the partitions that can be asked there. Answers these, each with the state of its
    /// lease where it could be renewed.
    async fn renew(&self) -> Vec<(u16, Option<Renewed>)> {
        let renew = |number| async move {
            self.census(number).await.ok()?;
            Some((number, self.renewal(number).await.ok()))
        };
        join_all(self.numbers().map(renew)).await.into_iter().flatten().collect()
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
