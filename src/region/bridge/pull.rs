//! Reads what another region accepted from its log.

use super::LANES;
use crate::{
    broker::redis::epoch::serial_of,
    metrics::RedisMetrics,
    redis::{
        ConnectError, Endpoint, Keys, Malformed, Request, Script, StreamId, connection::Connection,
        layout::Connections, lives::Lives, reply,
    },
};
use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use prometheus::HistogramVec;
use redis::{RedisError, Value};
use skywave_protocol::position::Origin;
use std::time::Duration;
use tokio::time::Instant;

/// The most entries that one call looks at. Redis 7.0 takes 1.1 to 1.4 ms for them (medians, payloads of 20 to 1,000 bytes):
/// so long what else is asked of it waits.
pub const MAX_VISITED: usize = 192;
/// The most payload bytes that one call answers, unless a single one is larger.
const MAX_BYTES: usize = 128 << 10;
/// How long an answer may take that comes behind others on a slow path.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection is tried on which nothing may have to be read for hours.
const TRIAL_INTERVAL: Duration = Duration::from_secs(3);

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("the other region answered with {0}")]
    Malformed(#[from] Malformed),
}

/// Which part of a partition's log.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    pub after: StreamId,
    /// `None`: to its end.
    pub until: Option<StreamId>,
    /// How many entries are looked at.
    pub count: usize,
}

/// Where a partition of the log stands.
#[derive(Debug, Clone)]
pub struct Head {
    pub life: String,
    /// The log's last id when its life began.
    pub born: StreamId,
    /// How many publications that region has accepted since it knows of others.
    pub count: u64,
    /// The last of them.
    pub last_own: Option<StreamId>,
    /// By that region's clock.
    pub now_ms: u64,
    pub newest: StreamId,
    pub oldest: Option<StreamId>,
    /// Entries were thrown away because of their age or number.
    pub trimmed: bool,
}

impl Head {
    /// The region's last publication, as far as it says so: others come into its log without an end.
    pub fn last(&self) -> StreamId {
        self.last_own.unwrap_or(self.newest)
    }

    /// Nothing that the region accepted lies behind `id`, as far as it says so.
    pub fn is_reached_by(&self, id: StreamId) -> bool {
        self.newest <= id || self.last_own.is_some_and(|last| last <= id)
    }
}

/// An answer: where the log stands and what that region accepted.
#[derive(Debug)]
pub struct Pulled {
    pub head: Head,
    pub visited: usize,
    pub last: StreamId,
    /// Nothing is left in the part.
    pub exhausted: bool,
    /// Ids and fields; not checked yet.
    pub entries: Vec<(StreamId, Vec<Value>)>,
}

/// A script call for a part.
pub fn request(keys: &Keys, region: &Origin, partition: u16, part: Part) -> Request {
    let until = part.until.map_or("+".to_owned(), |until| until.to_string());
    let args =
        [region.to_string(), part.after.to_string(), until, part.count.to_string(), MAX_BYTES.to_string()];
    Request::Script {
        script: Script::Pull,
        keys: vec![keys.life(partition), keys.log(partition)],
        args: args.map(String::into_bytes).into(),
    }
}

/// Reads the answer to a [`request`], and remembers in which life the Redis is.
///
/// # Errors
/// When it is none.
pub fn pulled(value: Value, lives: &Lives) -> Result<Pulled, Malformed> {
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

/// Connections of its own to another region's Redis, so that a backlog holds up nothing else.
#[derive(Clone)]
pub struct RemoteLog {
    endpoint: Endpoint,
    /// At least one.
    lanes: Vec<Connections>,
    keys: Keys,
    pub region: Origin,
    /// What it is called in metrics, logs and `CLIENT LIST`.
    name: String,
    durations: HistogramVec,
}

impl RemoteLog {
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        endpoint: &Endpoint,
        keys: Keys,
        region: Origin,
        metrics: &RedisMetrics,
    ) -> Result<Self, ConnectError> {
        let name = format!("bridge-{region}");
        let lanes = (0..keys.partitions().clamp(1, LANES)).map(|_| endpoint.connect_to_all(&name));
        let mut lanes = try_join_all(lanes).await?;
        for connection in lanes.iter_mut().flat_map(|lane| &mut lane.all) {
            connection.commands.set_response_timeout(TIMEOUT);
        }
        let durations = metrics.command_duration.clone();
        Ok(Self { endpoint: endpoint.clone(), lanes, keys, region, name, durations })
    }

    /// Tries the connections until one is of no use, and tells why: one that the path has forgotten would be noticed by what
    /// has to be read on it, which comes late then; the log of a server that is a master no more stands still.
    pub async fn keep_alive(&self) -> Option<ConnectError> {
        let connections = self.lanes.iter().flat_map(|lane| &lane.all);
        let trials: FuturesUnordered<_> = connections.map(|connection| tried(connection.clone())).collect();
        trials.into_future().await.0
    }

    /// # Errors
    /// See [`PullError`].
    pub async fn pull(&self, partition: u16, part: Part) -> Result<Pulled, PullError> {
        let request = request(&self.keys, &self.region, partition, part);
        let lane = &self.lanes[usize::from(partition) % self.lanes.len()];
        let answer = self.call(lane.to(request.key()), &request).await?;
        Ok(pulled(answer, &self.endpoint.ownership.lives)?)
    }

    /// # Errors
    /// See [`PullError`].
    pub async fn ask(&self, request: &Request) -> Result<Value, PullError> {
        self.call(self.lanes[0].to(request.key()), request).await
    }

    /// How many servers have a part of the keys.
    pub fn servers(&self) -> usize {
        self.lanes[0].all.len()
    }

    /// Asks one server, whatever its keys.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn ask_server(&self, server: usize, request: &Request) -> Result<Value, PullError> {
        self.call(&self.lanes[0].all[server], request).await
    }

    /// Whether every key is still where it was.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn is_unmoved(&self) -> Result<bool, ConnectError> {
        let layout = self.endpoint.layout().await?;
        Ok(self.lanes.iter().all(|lane| lane.layout.is_like(&layout)))
    }

    async fn call(&self, connection: &Connection, request: &Request) -> Result<Value, PullError> {
        let begun = Instant::now();
        let command = connection.command(request);
        let value = connection.commands.clone().send_packed_command(&command).await?.extract_error()?;
        let duration = self.durations.with_label_values(&[&*self.name, request.name()]);
        duration.observe(begun.elapsed().as_secs_f64());
        Ok(value)
    }
}

async fn tried(mut connection: Connection) -> ConnectError {
    loop {
        tokio::time::sleep(TRIAL_INTERVAL).await;
        if let Err(error) = connection.require_master().await {
            return error;
        }
    }
}
