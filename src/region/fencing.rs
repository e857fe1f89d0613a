//! One transport per session among all nodes of all regions: a newer one closes the older, wherever it is.
//!
//! Each region's Redis knows which transport of which node has a session. To claim it is one atomic step, in which Redis
//! tells the former holder by the number of its transport: so each transport is told once, when it was replaced, and
//! never a newer one. Which one is newer is settled when it opens (see [`Claim`](crate::session::claim::Claim)), so all
//! regions keep the same one, in whatever order they hear of them: a claim that was long under way does not win.
//! Sessions do not wait for any of it: without Redis they open all the same, and are claimed later.

use crate::{
    auth::resume::RESUME_LIFETIME,
    broker::BrokerError,
    hub::outbox::Outbox,
    node::Node,
    redis::{Redis, Request, Script},
    session::{claim::Claim, registry::Attached},
};
use futures_util::future::join_all;
use redis::Value;
use skywave_protocol::{CloseCode, frame::SessionId};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How often it is looked whether claims are to be made up for.
const REVIEW_INTERVAL: Duration = Duration::from_millis(500);
/// The most late claims under way, so that sessions' own commands do not wait behind them.
const MAX_LATE: usize = 64;
/// What another region remembers of a session that left it.
const ELSEWHERE_LIFETIME: Duration = Duration::from_secs(600);

/// Fences the sessions of a node.
pub struct Fencing {
    node: Arc<str>,
    realms: Vec<Arc<Realm>>,
}

/// A region's Redis.
struct Realm {
    redis: Redis,
    /// The node's own region.
    is_own: bool,
    /// Claims may have failed, or what was told of them may be lost.
    behind: AtomicBool,
}

impl Fencing {
    /// Fences through the Redis of the own region, if there is one, and those of the others.
    pub fn new(node: Arc<str>, own: Option<Redis>, others: impl IntoIterator<Item = Redis>) -> Self {
        let realm = |redis, is_own| Arc::new(Realm { redis, is_own, behind: AtomicBool::new(false) });
        let own = own.map(|redis| realm(redis, true));
        Self {
            node,
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
            let (realm, outbox) = (realm.clone(), attached.outbox.clone());
            tokio::spawn(async move {
                match call.await {
                    Ok(answer) => outdated(&answer, &outbox),
                    Err(_) => realm.behind.store(true, Ordering::Release),
                }
            });
        }
    }

    /// Forgets a transport that has ended.
    pub fn release(&self, session: &SessionId, attached: &Attached) {
        for realm in self.realms.iter().filter(|realm| realm.is_own) {
            let Redis { commands, keys, .. } = &realm.redis;
            let args = vec![self.node.as_bytes().to_vec(), attached.claim.number.to_string().into_bytes()];
            let release =
                Request::Script { script: Script::Release, keys: vec![keys.session(session)], args };
            if let Err(error) = commands.send(release) {
                tracing::debug!(%session, %error, "its holder is left to expire");
            }
        }
    }

    /// What Redis told this node may be lost: it is to be asked.
    pub fn review(&self) {
        for realm in self.realms.iter().filter(|realm| realm.is_own) {
            realm.behind.store(true, Ordering::Release);
        }
    }
}

impl Realm {
    /// A session that began here cannot have a transport in another region.
    fn concerns(&self, attached: &Attached) -> bool {
        self.is_own || attached.claim.turn > 0
    }

    fn request(&self, node: &str, session: &SessionId, attached: &Attached) -> Request {
        let keys = &self.redis.keys;
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
        ];
        let args = args.map(String::into_bytes).to_vec();
        Request::Script { script: Script::Claim, keys: vec![keys.session(session)], args }
    }

    /// Claims a session that this node has had for some time.
    async fn claim_late(
        &self,
        node: &Node,
        session: &SessionId,
        attached: &Attached,
    ) -> Result<(), BrokerError> {
        let request = self.request(&node.id, session, attached);
        outdated(&self.redis.commands.call(request).await?, &attached.outbox);
        Ok(())
    }

    /// Claims all sessions that concern it.
    async fn make_up(&self, node: &Node) -> Result<(), BrokerError> {
        let mut sessions = node.sessions.all();
        sessions.retain(|(_, attached)| self.concerns(attached));
        for some in sessions.chunks(MAX_LATE) {
            let mut claims = Vec::with_capacity(some.len());
            for (session, attached) in some {
                claims.push(self.claim_late(node, session, attached));
            }
            join_all(claims).await.into_iter().collect::<Result<(), BrokerError>>()?;
        }
        Ok(())
    }
}

/// Closes a transport whose claim was refused: a newer one has the session.
fn outdated(answer: &Value, outbox: &Outbox) {
    if *answer == Value::Int(0) {
        outbox.close(CloseCode::Replaced);
    }
}

/// Makes up for claims that failed or may not have been told, for the node's life.
pub async fn run(node: Arc<Node>) {
    let mut interval = tokio::time::interval(REVIEW_INTERVAL);
    loop {
        interval.tick().await;
        for realm in node.fencing.realms.clone() {
            if !realm.redis.commands.is_available() || !realm.behind.swap(false, Ordering::AcqRel) {
                continue;
            }
            if let Err(error) = realm.make_up(&node).await {
                tracing::debug!(%error, "sessions are claimed later");
                realm.behind.store(true, Ordering::Release);
            }
        }
    }
}
