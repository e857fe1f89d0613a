//! Reads what another region accepted from its log.

use super::{LANES, scripts::PULL};
use crate::{broker::epoch::serial_of, keys::RegionKeys as _};
use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use parking_lot::Mutex;
use prometheus::HistogramVec;
use redis::Value;
use skywave_protocol::position::Origin;
use skywave_redis::{
    ConnectError, Endpoint, Keys, Malformed, Request, Server, StreamId,
    lives::Lives,
    metrics::RedisMetrics,
    patient::{AskError, Patient},
    reply,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// The most entries that one call looks at. Redis 7.0 takes 1.1 to 1.4 ms for them (medians, payloads of 20 to 1,000
/// bytes). For so long everything else that is asked of it waits.
pub(crate) const MAX_VISITED: usize = 192;
/// The most payload bytes that one call answers, unless a single one is larger.
const MAX_BYTES: usize = 128 << 10;
/// How often a connection is tried on which nothing may have to be read for hours.
const TRIAL_INTERVAL: Duration = Duration::from_secs(3);

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the other region answered with {0}")]
    Malformed(#[from] Malformed),
    #[error("there is no connection")]
    NoWay,
}

/// Which part of a partition's log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub after: StreamId,
    /// `None`: to its end.
    pub until: Option<StreamId>,
    /// How many entries are looked at.
    pub count: usize,
}

/// Where a partition of the log stands.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub life: String,
    /// The log's last id when its life began.
    pub(crate) born: StreamId,
    /// How many publications that region has accepted since it knows of others.
    pub count: u64,
    /// The last of them.
    pub(crate) last_own: Option<StreamId>,
    /// By that region's clock.
    pub now_ms: u64,
    pub newest: StreamId,
    pub oldest: Option<StreamId>,
    /// Entries were thrown away because of their age or number.
    pub trimmed: bool,
}

impl Head {
    /// The region's last publication, as far as it says so: others come into its log without an end.
    pub(crate) fn last(&self) -> StreamId {
        self.last_own.unwrap_or(self.newest)
    }

    /// Nothing that the region accepted lies behind `id`, as far as it says so.
    pub(crate) fn is_reached_by(&self, id: StreamId) -> bool {
        self.newest <= id || self.last_own.is_some_and(|last| last <= id)
    }
}

/// An answer: where the log stands and what that region accepted.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub head: Head,
    pub(crate) visited: usize,
    pub last: StreamId,
    /// Nothing is left in the part.
    pub(crate) exhausted: bool,
    /// Ids and fields; not checked yet.
    pub entries: Vec<(StreamId, Vec<Value>)>,
}

/// A script call for a part.
pub(crate) fn request(keys: &Keys, region: &Origin, partition: u16, part: Part) -> Request {
    let until = part.until.map_or("+".to_owned(), |until| until.to_string());
    let args =
        [region.to_string(), part.after.to_string(), until, part.count.to_string(), MAX_BYTES.to_string()];
    Request::Script {
        script: &PULL,
        keys: vec![keys.life(partition), keys.log(partition)],
        args: args.map(String::into_bytes).into(),
    }
}

/// Reads the answer to a [`request`], and remembers in which life the Redis is.
///
/// # Errors
/// When it is none.
pub(crate) fn pulled(value: Value, lives: &Lives) -> Result<Pulled, Malformed> {
    let Value::Array(parts) = value else { return Err(Malformed("answer")) };
    let Ok([life, born, count, last_own, now, newest, oldest, trimmed, visited, last, exhausted, entries]) =
        <[Value; 12]>::try_from(parts)
    else {
        return Err(Malformed("answer"));
    };
    let id = |value| StreamId::parse(&reply::text(value)?).ok_or(Malformed("entry id"));
    let id_if_any = |value| match reply::text(value)? {
        text if text.is_empty() => Ok(None),
        text => StreamId::parse(&text).map(Some).ok_or(Malformed("entry id")),
    };
    let number = |value| reply::text(value)?.parse::<u64>().map_err(|_| Malformed("number"));
    let Value::Array(entries) = entries else { return Err(Malformed("entries")) };
    let head = Head {
        life: reply::text(life)?,
        born: id(born)?,
        count: number(count)?,
        last_own: id_if_any(last_own)?,
        now_ms: number(now)?,
        newest: id(newest)?,
        oldest: id_if_any(oldest)?,
        trimmed: number(trimmed)? == 1,
    };
    // It becomes a word of the cursor.
    if head.life.is_empty() || head.life.contains(' ') {
        return Err(Malformed("life"));
    }
    if let Some(serial) = serial_of(&head.life) {
        lives.saw(serial);
    }
    Ok(Pulled {
        head,
        visited: number(visited)? as usize,
        last: id(last)?,
        exhausted: number(exhausted)? == 1,
        entries: entries.into_iter().map(reply::parts).collect::<Result<_, _>>()?,
    })
}

/// Partitions that share a server in the other region, and one in this region. What is away is away for all of them.
pub(crate) struct Share {
    server: Server,
    pub partitions: Vec<u16>,
}

/// Where a partition of the log is read.
#[derive(Clone)]
struct Way {
    /// The name of the server.
    server: Arc<str>,
    connection: Patient,
}

/// Connections of its own to another region's Redis, so that a backlog holds up nothing else.
pub(crate) struct RemoteLog {
    endpoint: Endpoint,
    /// By partition.
    ways: Mutex<HashMap<u16, Way>>,
    keys: Keys,
    pub region: Origin,
    /// What it is called in metrics, logs and `CLIENT LIST`.
    name: Arc<str>,
    durations: HistogramVec,
}

impl RemoteLog {
    /// Not connected yet.
    pub(crate) fn new(endpoint: &Endpoint, keys: Keys, region: Origin, metrics: &RedisMetrics) -> Self {
        let (endpoint, name) = (endpoint.clone(), format!("bridge-{region}").into());
        let durations = metrics.command_duration.clone();
        Self { endpoint, ways: Mutex::default(), keys, region, name, durations }
    }

    /// Which servers have these partitions, by what `local` says which server has them here.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn shares(
        &self,
        partitions: &BTreeSet<u16>,
        local: impl Fn(&str) -> Option<Arc<str>>,
    ) -> Result<Vec<Share>, ConnectError> {
        let layout = self.endpoint.layout().await?;
        let mut shares = BTreeMap::<_, Vec<u16>>::new();
        for partition in partitions {
            let log = self.keys.log(*partition);
            let servers = (layout.slots.server_of(log.as_bytes()), local(&log));
            shares.entry(servers).or_default().push(*partition);
        }
        let share = |((server, _), partitions): ((usize, _), _)| Share {
            server: layout.servers[server].clone(),
            partitions,
        };
        Ok(shares.into_iter().map(share).collect())
    }

    /// Connects to the server of a share.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn connect(&self, share: &Share) -> Result<(), ConnectError> {
        let lanes = lanes(share.partitions.iter().copied());
        let connect = async |partitions: Vec<u16>| {
            let connection = Patient::connect(&share.server, &self.name, &self.durations).await?;
            let way = Way { server: share.server.name.clone(), connection };
            self.ways.lock().extend(partitions.into_iter().map(|partition| (partition, way.clone())));
            Ok(())
        };
        try_join_all(lanes.map(connect)).await.map(drop)
    }

    /// Tries the connections of some partitions of a share until one is of no use, and tells why. A connection that the
    /// path has forgotten would otherwise be noticed by what has to be read on it, and that would come late. The log of
    /// a server that is no master any more stands still.
    pub(crate) async fn keep_alive(&self, partitions: Vec<u16>) -> PullError {
        // Those of a lane share one.
        let trials = lanes(partitions).map(|lane| self.try_again_and_again(lane[0]));
        let ended = trials.collect::<FuturesUnordered<_>>().into_future().await.0;
        ended.unwrap_or(PullError::NoWay)
    }

    async fn try_again_and_again(&self, partition: u16) -> PullError {
        loop {
            tokio::time::sleep(TRIAL_INTERVAL).await;
            let Ok(Way { connection, .. }) = self.way(partition) else { return PullError::NoWay };
            if let Err(error) = connection.try_master().await {
                return error.into();
            }
        }
    }

    /// # Errors
    /// See [`PullError`].
    pub(crate) async fn pull(&self, partition: u16, part: Part) -> Result<Pulled, PullError> {
        let request = request(&self.keys, &self.region, partition, part);
        Ok(pulled(self.ask(partition, &request).await?, &self.endpoint.ownership.lives)?)
    }

    /// Where a partition stands.
    ///
    /// # Errors
    /// See [`PullError`].
    pub(crate) async fn head(&self, partition: u16) -> Result<Head, PullError> {
        Ok(self.pull(partition, Part { after: StreamId::MIN, until: None, count: 0 }).await?.head)
    }

    /// Asks the server that has a partition.
    ///
    /// # Errors
    /// See [`PullError`].
    pub(crate) async fn ask(&self, partition: u16, request: &Request) -> Result<Value, PullError> {
        Ok(self.way(partition)?.connection.ask(request).await?)
    }

    /// Whether these partitions are still where they were.
    ///
    /// # Errors
    /// See [`PullError`].
    pub(crate) async fn are_unmoved(
        &self,
        partitions: impl IntoIterator<Item = u16>,
    ) -> Result<bool, PullError> {
        let layout = self.endpoint.layout().await.map_err(AskError::from)?;
        for partition in partitions {
            let server = layout.slots.server_of(self.keys.log(partition).as_bytes());
            if self.way(partition)?.server != layout.servers[server].name {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn way(&self, partition: u16) -> Result<Way, PullError> {
        self.ways.lock().get(&partition).cloned().ok_or(PullError::NoWay)
    }
}

/// Partitions of a share by the connection on which they are read.
fn lanes(partitions: impl IntoIterator<Item = u16>) -> impl Iterator<Item = Vec<u16>> {
    let mut lanes = BTreeMap::<u16, Vec<u16>>::new();
    for partition in partitions {
        lanes.entry(partition % LANES).or_default().push(partition);
    }
    lanes.into_values()
}
