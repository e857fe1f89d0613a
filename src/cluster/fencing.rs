//! One transport per session among all nodes of all regions: a newer one closes the older, wherever it is.
//!
//! Each region's Redis knows which transport of which node has a session. To claim it is one atomic step, in which
//! Redis tells the former holder by the number of its transport. So each transport is told once, when it was replaced,
//! and never a newer one. Which one is newer is settled when it opens (see [`Claim`](crate::claim::Claim)). So all
//! regions keep the same one, in whatever order they hear of them, and a claim that was long under way does not win.
//! Sessions do not wait for any of this: without Redis they open all the same, and are claimed later.

use super::{
    inbox::Inbox,
    keys::ClusterKeys as _,
    scripts::{CLAIM, RELEASE},
};
use crate::{
    auth::resume::RESUME_LIFETIME,
    claim::Claim,
    hub::outbox::Outbox,
    redis::{CallError, Redis, Request, heard::Heard, reply},
    registry::{Attached, Registry},
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::Value;
use skywave_protocol::{CloseCode, frame::SessionId};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How often it is looked whether claims are to be made up for.
const REVIEW_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is counted how much the node was told.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);
/// For how long Redis counts for a node that asks no more.
const COUNT_LIFETIME: Duration = Duration::from_secs(600);
/// The most late claims under way, so that sessions' own commands do not wait behind them.
const MAX_LATE: usize = 64;
/// What another region remembers of a session that left it.
const ELSEWHERE_LIFETIME: Duration = Duration::from_secs(600);

/// Fences the sessions of a node.
pub struct Fencing {
    node: Arc<str>,
    realms: Vec<Arc<Realm>>,
    /// What the own region's Redis told this node, of the sessions of each partition.
    told: Vec<Mutex<Heard>>,
}

/// A region's Redis.
struct Realm {
    redis: Redis,
    /// The node's own region.
    is_own: bool,
    /// The partitions of which claims may have failed, or what was told of them may be lost.
    behind: Vec<AtomicBool>,
}

/// Has the node hear which of its transports were replaced.
pub fn listen(inbox: &mut Inbox) {
    inbox.word("replaced", |cluster, said| {
        let mut words = said.splitn(4, ' ');
        let (partition, said) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let (number, session) = (words.next()?.parse().ok()?, words.next()?);
        cluster.fencing.told(partition, said);
        cluster.sessions.replaced(session, number);
        Some(())
    });
    inbox.review(|cluster| cluster.fencing.review());
}

impl Fencing {
    /// Fences through the Redis of the own region, if there is one, and those of the others.
    pub fn new(node: Arc<str>, own: Option<Redis>, others: impl IntoIterator<Item = Redis>) -> Self {
        let realm = |redis: Redis, is_own| {
            let behind = (0..redis.keys.partitions()).map(|_| AtomicBool::new(false)).collect();
            Arc::new(Realm { redis, is_own, behind })
        };
        let partitions = own.as_ref().map_or(0, |redis| redis.keys.partitions());
        let own = own.map(|redis| realm(redis, true));
        Self {
            node,
            told: (0..partitions).map(|_| Mutex::default()).collect(),
            realms: own.into_iter().chain(others.into_iter().map(|redis| realm(redis, false))).collect(),
        }
    }

    /// Makes the transport that has just been attached the only one of its session.
    pub fn claim(&self, session: &SessionId, attached: &Attached) {
        for realm in &self.realms {
            if !realm.concerns(attached) {
                continue;
            }
            let call = realm.redis.commands.call(realm.request(&self.node, session, attached));
            let partition = realm.redis.keys.partition_of_session(session);
            let (realm, outbox) = (realm.clone(), attached.outbox.clone());
            tokio::spawn(async move {
                match call.await {
                    Ok(answer) => outdated(&answer, &outbox),
                    Err(_) => realm.doubt(partition),
                }
            });
        }
    }

    /// Forgets a transport that has ended.
    pub fn release(&self, session: &SessionId, attached: &Attached) {
        for realm in self.realms.iter().filter(|realm| realm.is_own) {
            let Redis { commands, keys, .. } = &realm.redis;
            let args = vec![self.node.as_bytes().to_vec(), attached.claim.number.to_string().into_bytes()];
            let release = Request::Script { script: &RELEASE, keys: vec![keys.session(session)], args };
            if let Err(error) = commands.send(release) {
                tracing::debug!(%session, %error, "its holder is left to expire");
            }
        }
    }

    fn own(&self) -> Option<&Arc<Realm>> {
        self.realms.iter().find(|realm| realm.is_own)
    }

    /// The own region's Redis tells something of the partition's sessions, under this number.
    fn told(&self, partition: u16, number: u64) {
        if let (Some(told), Some(own)) = (self.told.get(usize::from(partition)), self.own())
            && told.lock().news(number)
        {
            own.doubt(partition);
        }
    }

    /// What Redis told this node may be lost: it is to be asked.
    fn review(&self) {
        let Some(own) = self.own() else { return };
        for (partition, told) in (0..).zip(&self.told) {
            *told.lock() = Heard::default();
            own.doubt(partition);
        }
    }

    /// Asks how much the node was told, so that it knows what it did not hear. A partition that cannot be asked is
    /// asked later.
    async fn count(&self) {
        let Some(own) = self.own() else { return };
        let counts = (0..).zip(&self.told).map(|(partition, told)| async move {
            if let Err(error) = self.count_in(own, partition, told).await {
                tracing::debug!(%error, partition, "what was told of sessions is counted later");
            }
        });
        join_all(counts).await;
    }

    async fn count_in(&self, own: &Realm, partition: u16, told: &Mutex<Heard>) -> Result<(), CallError> {
        let missed = match own.count(&self.node, partition).await? {
            Some(said) => told.lock().counted(said),
            // It begins to count, here or because Redis lost what it knew: the session's holders, too.
            None => {
                own.begin_to_count(&self.node, partition).await?;
                let mut told = told.lock();
                *told = Heard::default();
                told.counted(0)
            }
        };
        if missed {
            tracing::debug!(partition, "what was not heard of sessions is made up for");
            own.doubt(partition);
        }
        Ok(())
    }

    /// Makes up for claims that failed or may not have been told, for the node's life.
    pub async fn run(&self, sessions: &Registry) {
        let mut review = tokio::time::interval(REVIEW_INTERVAL);
        let mut count = tokio::time::interval(COUNT_INTERVAL);
        loop {
            tokio::select! {
                biased;
                _ = count.tick() => {
                    self.count().await;
                    count.reset();
                }
                // However long it takes, it is not due again at once: the other one has its turn.
                _ = review.tick() => {
                    self.make_up(sessions).await;
                    review.reset();
                }
            }
        }
    }

    async fn make_up(&self, sessions: &Registry) {
        for realm in &self.realms {
            let partitions = realm.take_behind();
            if !partitions.is_empty() {
                realm.make_up(&self.node, sessions, &partitions).await;
            }
        }
    }
}

impl Realm {
    /// A session that began here cannot have a transport in another region.
    fn concerns(&self, attached: &Attached) -> bool {
        self.is_own || attached.claim.turn > 0
    }

    /// Claims of the partition's sessions are to be made again.
    fn doubt(&self, partition: u16) {
        if let Some(behind) = self.behind.get(usize::from(partition)) {
            behind.store(true, Ordering::Release);
        }
    }

    /// How much the node was told of the partition's sessions; none where that is not counted.
    fn count(
        &self,
        node: &str,
        partition: u16,
    ) -> impl Future<Output = Result<Option<u64>, CallError>> + Send + use<> {
        let Redis { commands, keys, .. } = &self.redis;
        let told = keys.told(partition, node);
        let said = commands.call(Request::command(["HGET", &told, "said"]));
        let kept = commands.send(keep(&told));
        async move {
            let said = said.await?;
            kept?;
            Ok(reply::text(said).ok().and_then(|said| said.parse().ok()))
        }
    }

    async fn begin_to_count(&self, node: &str, partition: u16) -> Result<(), CallError> {
        let Redis { commands, keys, .. } = &self.redis;
        let told = keys.told(partition, node);
        let set = commands.call(Request::command(["HSET", &told, "said", "0"]));
        commands.send(keep(&told))?;
        set.await.map(drop)
    }

    fn request(&self, node: &str, session: &SessionId, attached: &Attached) -> Request {
        let keys = &self.redis.keys;
        let partition = keys.partition_of_session(session);
        let (node, lifetime) = if self.is_own { (node, RESUME_LIFETIME) } else { ("", ELSEWHERE_LIFETIME) };
        let Claim { attempt, turn, since_ms, number } = attached.claim;
        let args = [
            attempt.to_string(),
            turn.to_string(),
            since_ms.to_string(),
            number.to_string(),
            node.to_owned(),
            lifetime.as_millis().to_string(),
            session.to_string(),
            keys.inbox(""),
            partition.to_string(),
            keys.told(partition, ""),
        ];
        let args = args.map(String::into_bytes).to_vec();
        Request::Script { script: &CLAIM, keys: vec![keys.session(session)], args }
    }

    /// Claims a session that this node has had for some time.
    async fn claim_late(&self, node: &str, late: &Late) -> Result<(), CallError> {
        let request = self.request(node, &late.session, &late.attached);
        outdated(&self.redis.commands.call(request).await?, &late.attached.outbox);
        Ok(())
    }

    /// The partitions whose claims are to be made again, and can be; they count as made from now on.
    fn take_behind(&self) -> BTreeSet<u16> {
        let Redis { commands, keys, .. } = &self.redis;
        let behind = (0..).zip(&self.behind).filter(|(partition, behind)| {
            commands.is_available_for(&keys.told(*partition, "")) && behind.swap(false, Ordering::AcqRel)
        });
        behind.map(|(partition, _)| partition).collect()
    }

    /// Claims all sessions of these partitions that concern it. One in which that fails is left, and holds up no other.
    async fn make_up(&self, node: &str, sessions: &Registry, partitions: &BTreeSet<u16>) {
        let late = sessions.all().into_iter().filter_map(|(session, attached)| {
            let partition = self.redis.keys.partition_of_session(&session);
            let is_late = self.concerns(&attached) && partitions.contains(&partition);
            is_late.then_some(Late { partition, session, attached })
        });
        let late: Vec<_> = late.collect();
        let mut failed = BTreeSet::new();
        for some in late.chunks(MAX_LATE) {
            let claims = some
                .iter()
                .filter(|late| !failed.contains(&late.partition))
                .map(|late| async move { (late.partition, self.claim_late(node, late).await) });
            let claims: Vec<_> = claims.collect();
            let outcomes = join_all(claims).await.into_iter();
            failed.extend(outcomes.filter(|(_, outcome)| outcome.is_err()).map(|(partition, _)| partition));
        }
        if !failed.is_empty() {
            tracing::debug!(partitions = ?failed, "sessions are claimed later");
            failed.into_iter().for_each(|partition| self.doubt(partition));
        }
    }
}

/// A session whose claim is to be made again.
struct Late {
    partition: u16,
    session: SessionId,
    attached: Attached,
}

/// Closes a transport whose claim was refused: a newer one has the session.
fn outdated(answer: &Value, outbox: &Outbox) {
    if *answer == Value::Int(0) {
        outbox.close(CloseCode::Replaced);
    }
}

/// Has a node's count kept for as long as it asks for it.
fn keep(told: &str) -> Request {
    Request::command(["PEXPIRE", told, &COUNT_LIFETIME.as_millis().to_string()])
}
