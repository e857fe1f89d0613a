//! Which nodes of the region are alive, where they are reached, and how busy they are.
//!
//! Each node keeps a record in Redis, which ends when it is no longer renewed, and a copy of the others' records. One
//! call renews the one and reads the others.

use super::{balance, inbox::Inbox, keys::ClusterKeys as _, rendezvous, scripts::DIRECTORY};
use crate::redis::{CallError, Redis, Request, reply};
use arc_swap::ArcSwap;
use futures_util::future::join3;
use redis::Value;
use serde::{Deserialize, Serialize};
use skywave_protocol::{frame::Region, position::Origin};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::Notify, time::Instant};

/// A node that has not renewed its record for so long is gone.
const LEASE: Duration = Duration::from_secs(10);
/// How often a record is renewed, and the others' are read.
const RENEWAL: Duration = Duration::from_secs(2);
/// Changes that come closer together are read at once.
const LULL: Duration = Duration::from_millis(20);
/// The least time between two reads, for each node that is known. When many nodes change one after the other, as when
/// all are replaced, they do not all read all the time.
const DISTANCE_PER_NODE: Duration = Duration::from_millis(1);
/// The most nodes of a region that are known.
const MAX_NODES: usize = 1_000;
/// The largest record, in bytes.
const MAX_RECORD_BYTES: usize = 4_096;
/// The longest id, in bytes, as the configuration has it.
const MAX_ID_BYTES: usize = 64;
/// The most peers that a client is told.
const MAX_TOLD: usize = 8;

/// Whether sessions should go to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It takes sessions.
    Ready,
    /// It moves its sessions off.
    Draining,
    /// It cannot reach what it needs to serve.
    Away,
    /// What a newer version says: nobody is sent there, and it is there all the same.
    #[serde(other)]
    Unknown,
}

/// What a node tells the others of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where clients reach it; absent: nobody is sent there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Arc<str>>,
    pub region: Arc<str>,
    pub state: NodeState,
    pub sessions: usize,
    /// The most sessions that it takes.
    pub limit: usize,
    pub version: Arc<str>,
    pub started_ms: u64,
}

/// Another node of the region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: Arc<str>,
    pub record: Record,
}

impl Peer {
    /// Whether it takes sessions.
    pub fn is_open(&self) -> bool {
        self.record.state == NodeState::Ready && self.record.sessions < self.record.limit
    }

    /// Its address, if sessions may be sent there from a node at `here`.
    pub(crate) fn open_url(&self, here: Option<&str>) -> Option<&Arc<str>> {
        self.record.url.as_ref().filter(|url| self.is_open() && here != Some(&***url))
    }
}

/// The nodes of the region as one of them knows them.
pub struct Directory {
    id: Arc<str>,
    redis: Option<Redis>,
    peers: ArcSwap<Vec<Peer>>,
    /// Something changed: here, or as another node said.
    changed: Notify,
}

/// Has the directory hear that another node's record changed.
pub fn listen(inbox: &mut Inbox, redis: &Redis) {
    inbox.channel(redis.keys.nodes_news(), |cluster, node| {
        // One's own changes are known.
        if *node != *cluster.id {
            cluster.directory.refresh();
        }
        Some(())
    });
    inbox.review(|cluster| cluster.directory.refresh());
}

impl Directory {
    /// A directory that knows no other nodes until [`run`] has read it. Without Redis, the node is alone.
    pub fn new(id: Arc<str>, redis: Option<Redis>) -> Self {
        Self { id, redis, peers: ArcSwap::default(), changed: Notify::new() }
    }

    /// The other live nodes, by id.
    pub fn peers(&self) -> Arc<Vec<Peer>> {
        self.peers.load_full()
    }

    /// Renews the record and reads the others' soon: something changed.
    pub fn refresh(&self) {
        self.changed.notify_one();
    }

    /// Renews the record of this node, tells the others at once if `told` differs from it, and reads the records of all
    /// others. Answers when the first of them is over unless it is renewed.
    async fn renew(
        &self,
        redis: &Redis,
        record: &Record,
        told: &mut Option<NodeState>,
    ) -> Result<Option<Instant>, CallError> {
        let Redis { commands, keys, .. } = redis;
        let text = serde_json::to_vec(record).map_err(|error| {
            tracing::error!(%error, "the node's record could not be written");
            CallError::Refused
        })?;
        let (key, lease) = (keys.node(&self.id), LEASE.as_millis().to_string());
        // For whoever looks: no node waits for it, nor reads it. In a cluster another server may have it.
        let set = commands.send(Request::command([b"SET", key.as_bytes(), &text, b"PX", lease.as_bytes()]));
        if let Err(error) = set {
            tracing::debug!(%error, "the node's record is not there for whoever looks");
        }
        let records = commands.call(Request::Script {
            script: &DIRECTORY,
            keys: vec![keys.nodes()],
            args: vec![self.id.as_bytes().to_vec(), text, lease.into_bytes()],
        });
        let records = records.await?;
        if told.replace(record.state) != Some(record.state) {
            commands.send(Request::command(["PUBLISH", &keys.nodes_news(), &self.id]))?;
        }
        let (peers, first_end) = peers(records, &record.region);
        self.replace(peers);
        Ok(first_end)
    }

    fn replace(&self, peers: Vec<Peer>) {
        let before = self.peers.swap(Arc::new(peers));
        let after = self.peers.load();
        let ids = |peers: &[Peer]| peers.iter().map(|peer| peer.id.clone()).collect::<BTreeSet<_>>();
        let (before, now) = (ids(&before), ids(&after));
        for id in now.difference(&before) {
            tracing::info!(node = %id, "another node of the region is there");
        }
        for id in before.difference(&now) {
            tracing::info!(node = %id, "a node of the region is gone");
        }
    }

    /// Takes the node's record out, so that no other node sends sessions here any more.
    pub async fn leave(&self) {
        let Some(Redis { commands, keys, .. }) = &self.redis else { return };
        let delete = commands.call(Request::command(["DEL", &keys.node(&self.id)]));
        let remove = commands.call(Request::command(["HDEL", &keys.nodes(), &self.id]));
        let tell = commands.call(Request::command(["PUBLISH", &keys.nodes_news(), &self.id]));
        let (delete, remove, tell) = join3(delete, remove, tell).await;
        if let Err(error) = delete.and(remove).and(tell) {
            tracing::debug!(%error, "the node's record is left to expire");
        }
    }

    /// The address of a node that suits `user` better than the one at `here`, which has `load` sessions.
    pub fn preferred(&self, user: &str, here: Option<&str>, load: usize) -> Option<Arc<str>> {
        let peers = self.peers.load();
        let open = || peers.iter().filter(|peer| peer.open_url(here).is_some());
        let even = balance::even(balance::mean(open().map(|peer| peer.record.sessions).chain([load])));
        let others = open().filter(|peer| peer.record.sessions <= even);
        let best = rendezvous::choose(user, others, |peer| &peer.id, |_| true)?;
        let stays = load <= even && rendezvous::weight(user, &self.id) >= rendezvous::weight(user, &best.id);
        if stays { None } else { best.record.url.clone() }
    }

    /// The other nodes of the region to which a client can turn when the one at `here` is gone. Which is first differs
    /// by `key`, so that the clients of a node spread.
    pub(crate) fn alternatives(&self, key: &str, here: Option<&str>, region: &Origin) -> Vec<Region> {
        let peers = self.peers.load();
        let mut open: Vec<_> = peers.iter().filter(|peer| peer.open_url(here).is_some()).collect();
        rendezvous::rank(key, &mut open, |peer| &peer.id);
        let mut urls = BTreeSet::new();
        let open = open.into_iter().filter_map(|peer| peer.record.url.clone());
        let distinct = open.filter(|url| urls.insert(url.clone()));
        distinct.take(MAX_TOLD).map(|url| Region { name: region.clone(), url }).collect()
    }

    /// Keeps the node's `record` and its list of the others, for the node's life.
    pub async fn run(&self, record: impl Fn() -> Record) {
        let Some(redis) = self.redis.clone() else { return };
        let mut told = None;
        loop {
            let begun = Instant::now();
            let record = record();
            let outcome = self.renew(&redis, &record, &mut told).await;
            let renewal = begun + RENEWAL;
            let next = match outcome {
                // Reads once more when a record may have expired: so it is known at once.
                Ok(first_end) => first_end.map_or(renewal, |end| renewal.min(end + LULL)),
                Err(error) => {
                    // What was known last is kept: without Redis nobody can say better.
                    tracing::debug!(%error, "the directory of nodes could not be renewed");
                    told = None;
                    renewal
                }
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next) => {}
                () = self.changed.notified() => {
                    let known = self.peers.load().len() as u32;
                    let lull = Instant::now() + LULL;
                    tokio::time::sleep_until(lull.max(begun + known * DISTANCE_PER_NODE)).await;
                }
            }
        }
    }
}

/// Reads id, record, the time that is left in ms, id, …; and tells when the first of them is over.
fn peers(records: Value, region: &str) -> (Vec<Peer>, Option<Instant>) {
    let Value::Array(mut words) = records else {
        tracing::warn!("the records of nodes in Redis are malformed");
        return (Vec::new(), None);
    };
    words.truncate(3 * MAX_NODES);
    let (mut peers, mut first_end) = (Vec::new(), None);
    let mut words = words.into_iter();
    while let (Some(id), Some(record), Some(left)) = (words.next(), words.next(), words.next()) {
        let id = reply::text(id).ok().filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
        let Some((id, record)) = id.and_then(|id| Some((Arc::from(&*id), parse(&id, record, region)?)))
        else {
            continue;
        };
        if let Value::Int(ms) = left
            && let Ok(ms) = u64::try_from(ms)
        {
            let end = Instant::now() + Duration::from_millis(ms);
            first_end = Some(first_end.map_or(end, |first: Instant| first.min(end)));
        }
        peers.push(Peer { id, record });
    }
    peers.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    (peers, first_end)
}

fn parse(id: &str, record: Value, region: &str) -> Option<Record> {
    let text = reply::text(record).ok().filter(|text| text.len() <= MAX_RECORD_BYTES);
    let record = text.and_then(|text| serde_json::from_str::<Record>(&text).ok());
    let record = record.filter(|record| record.url.as_ref().is_none_or(|url| url.starts_with("https://")));
    match record {
        None => tracing::warn!(node = %id.escape_debug(), "the record of a node in Redis is malformed"),
        Some(record) if *record.region != *region => {
            tracing::warn!(
                node = %id.escape_debug(),
                region = %record.region.escape_debug(),
                "a node of another region uses this region's Redis"
            );
        }
        Some(record) => return Some(record),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::Text;

    fn peer(id: &str, sessions: usize, state: NodeState) -> Peer {
        let record = Record {
            url: Some(format!("https://{id}").into()),
            region: "eu".into(),
            state,
            sessions,
            limit: 1_000,
            version: "1".into(),
            started_ms: 0,
        };
        Peer { id: id.into(), record }
    }

    fn directory(peers: Vec<Peer>) -> Directory {
        let directory = Directory::new("own".into(), None);
        directory.replace(peers);
        directory
    }

    /// To which node each of 300 users is sent; those who stay are not counted.
    fn preferred(directory: &Directory, load: usize) -> Vec<Arc<str>> {
        let users = (0..300).map(|user| format!("user-{user}"));
        users.filter_map(|user| directory.preferred(&user, Some("https://own"), load)).collect()
    }

    #[test]
    fn a_user_is_sent_to_the_node_that_all_nodes_agree_on() {
        let own = directory(vec![peer("a", 10, NodeState::Ready), peer("b", 10, NodeState::Ready)]);
        let sent = preferred(&own, 10);
        for url in ["https://a", "https://b"] {
            let count = sent.iter().filter(|to| ***to == *url).count();
            assert!((60..140).contains(&count), "{url}: {count}");
        }
        assert!(sent.len() < 240);
    }

    #[test]
    fn nobody_is_sent_to_a_node_that_drains_or_is_away_or_full_or_busier_or_the_same() {
        let mut full = peer("c", 50, NodeState::Ready);
        full.record.limit = 50;
        let mut same = peer("d", 10, NodeState::Ready);
        same.record.url = Some("https://own".into());
        let mut hidden = peer("e", 10, NodeState::Ready);
        hidden.record.url = None;
        let busy = peer("f", 500, NodeState::Ready);
        let unfit =
            vec![peer("a", 1, NodeState::Draining), peer("b", 1, NodeState::Away), full, same, hidden, busy];
        let own = directory(unfit.clone());
        assert!(preferred(&own, 100).is_empty());
        let told = own.alternatives("x", Some("https://own"), &Text::new("eu").unwrap());
        let told: Vec<_> = told.iter().map(|region| &*region.url).collect();
        assert_eq!(told, ["https://f"], "a busy node is better than none");
    }

    #[test]
    fn clients_of_one_node_turn_to_different_ones_when_it_is_gone() {
        let own = directory((0..5).map(|id| peer(&format!("n{id}"), 1, NodeState::Ready)).collect());
        let first =
            |user: usize| own.alternatives(&user.to_string(), None, &Text::new("eu").unwrap())[0].url.clone();
        let firsts: BTreeSet<_> = (0..100).map(first).collect();
        assert_eq!(firsts.len(), 5);
    }

    #[test]
    fn a_malformed_record_is_passed_over() {
        let good = serde_json::to_string(&peer("a", 1, NodeState::Ready).record).unwrap();
        let value = |text: &str| Value::BulkString(text.into());
        assert!(parse("a", value(&good), "eu").is_some());
        assert!(parse("a", value(&good), "us").is_none());
        let newer = parse("a", value(&good.replace("ready", "resting")), "eu").unwrap();
        assert_eq!(newer.state, NodeState::Unknown);
        let long =
            good.replace("\"version\":\"1\"", &format!("\"version\":\"{}\"", "1".repeat(MAX_RECORD_BYTES)));
        for bad in ["", "{}", "[1]", &good.replace("https", "javascript"), &long] {
            assert!(parse("a", value(bad), "eu").is_none(), "{bad}");
        }
        assert!(parse("a", Value::Int(1), "eu").is_none());
        for bad in [Value::Int(1), Value::Array(vec![Value::Int(1), Value::Nil, Value::Nil])] {
            assert_eq!(peers(bad, "eu"), (Vec::new(), None));
        }
    }
}
