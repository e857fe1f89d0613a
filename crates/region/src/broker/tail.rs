//! Follows the region's logs and delivers their publications to this node, in the log's order.
//!
//! One connection reads all partitions of a single Redis, and one partition of a cluster, since a read must not cross
//! slots. It resumes after the last entry that was seen, so a broken connection loses nothing that is still in the log.
//! What is not leaves a hole in the offsets, which subscribers fill from history.

mod portion;

use super::{
    cache::Cache,
    entry::{self, Logged},
    lag::{Lag, LagMetrics, Log},
    marks::Marks,
    progress::Progress,
    promises::Promises,
    scripts::LIFE_OF,
};
use crate::keys::RegionKeys as _;
use futures_util::future::try_join_all;
use portion::{Came, Portion};
use prometheus::IntCounter;
use redis::{Pipeline, Value};
use skywave_channels::broker::Delivery;
use skywave_protocol::Channel;
use skywave_redis::{
    ConnectError, Endpoint, Keys, Malformed, Redis, Request, StreamId,
    backoff::{Backoff, RECONNECT_PAUSE},
    connection::Connection,
    errors::TIMEOUT,
    pulse::Pulse,
    reply,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// How long a read waits for entries; then the connection is known to live.
const BLOCK: Duration = Duration::from_secs(1);
/// How often it is asked whether the partitions still are in the life that is known.
const LIFE_INTERVAL: Duration = Duration::from_secs(5);

/// What the tail feeds.
#[derive(Clone)]
pub(crate) struct Feed {
    pub delivery: Arc<dyn Delivery>,
    pub cache: Arc<Cache>,
    pub marks: Arc<Marks>,
    pub progress: Arc<Progress>,
    pub promises: Arc<Promises>,
}

impl Feed {
    /// First the cache: who asks it from now on, joined the hub before.
    fn take(&self, logged: &Logged) {
        match logged {
            Logged::Publication(publication) => {
                self.cache.publication(publication);
                self.delivery.publication(publication);
            }
            Logged::Lost(channel) | Logged::Unreadable(channel, _) => {
                self.cache.forget(channel);
                self.delivery.uncertain(&|affected| affected == channel);
            }
        }
    }
}

/// Follows the logs of some partitions.
pub(crate) struct Tail {
    endpoint: Endpoint,
    keys: Keys,
    /// The other regions, separated by commas.
    others: String,
    log_age: Duration,
    feed: Feed,
    reconnects: IntCounter,
    pulse: Arc<Pulse>,
    partitions: Vec<Partition>,
    index: HashMap<String, usize>,
    portion: Portion,
    lives_after: Instant,
    /// Something was read on the connection, or it is the first.
    is_followed: bool,
    connected_at: Instant,
}

struct Partition {
    number: u16,
    log: String,
    /// Unknown until the first connection.
    life: Option<String>,
    /// Of that life; later ones have higher serials.
    serial: u64,
    /// The last entry that was seen.
    last: StreamId,
    /// Regions that this one's Redis begins to know, see [`Head::coming`](super::recovery::Head::coming).
    coming: Vec<String>,
    /// In which life each other region's log was applied last, as `region life`. Unknown until the first connection.
    lives: Option<Vec<String>>,
    lag: Lag,
}

/// What Redis tells of a partition: the life, its serial, its log's last id when that began, the last id, the oldest
/// one if there is any, how many entries it was ever given, how many it has, the regions of which more is to come, and
/// the lives of the others.
type LifeOf = (String, u64, String, String, String, u64, u64, Vec<String>, Vec<String>);

impl Tail {
    /// Connects, and takes the place in each log from which the node sees everything. The tasks that it gives follow
    /// the logs, and their pulses tell how they fare.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn start(
        redis: &Redis,
        (others, log_age): (&str, Duration),
        feed: &Feed,
        lag: &LagMetrics,
    ) -> Result<Vec<(Arc<Pulse>, impl Future<Output = ()> + Send + 'static)>, ConnectError> {
        let all: Vec<_> = (0..redis.keys.partitions()).collect();
        let at_once = if redis.endpoint.is_undivided() { all.len() } else { 1 };
        let tails = all.chunks(at_once).map(async |partitions| {
            let mut tail = Self::of(partitions, redis, (others, log_age), feed.clone(), lag);
            let connection = tail.connect().await?;
            Ok((tail.pulse.clone(), tail.run(connection)))
        });
        try_join_all(tails).await
    }

    /// `partitions`: at least one.
    fn of(
        partitions: &[u16],
        redis: &Redis,
        (others, log_age): (&str, Duration),
        feed: Feed,
        lag: &LagMetrics,
    ) -> Self {
        let Redis { endpoint, keys, metrics, .. } = redis;
        let partition = |number| Partition {
            number,
            log: keys.log(number),
            life: None,
            serial: 0,
            last: StreamId::MIN,
            coming: Vec::new(),
            lives: None,
            lag: Lag::new(number, lag),
        };
        let partitions: Vec<_> = partitions.iter().copied().map(partition).collect();
        let index = partitions.iter().enumerate().map(|(index, one)| (one.log.clone(), index)).collect();
        let lives_after = Instant::now();
        let reconnects = metrics.reconnects.with_label_values(&["tail"]);
        let (endpoint, keys, others) = (endpoint.clone(), keys.clone(), others.to_owned());
        let pulse = Arc::new(Pulse::new(true));
        let portion = Portion::FIRST;
        Self {
            endpoint,
            keys,
            others,
            log_age,
            feed,
            reconnects,
            pulse,
            partitions,
            index,
            portion,
            lives_after,
            is_followed: true,
            connected_at: Instant::now(),
        }
    }

    async fn run(mut self, mut connection: Connection) {
        let mut backoff = Backoff::new(RECONNECT_PAUSE, &self.endpoint.host.chance);
        loop {
            let Err(error) = self.follow(&mut connection).await;
            self.pulse.broke();
            if std::mem::take(&mut self.is_followed) {
                tracing::warn!(%error, partitions = self.partitions.len(), "the log of publications is not followed until Redis can be reached again");
                backoff = Backoff::new(RECONNECT_PAUSE, &self.endpoint.host.chance);
            } else {
                tracing::debug!(%error, "the log of publications cannot be followed yet");
            }
            connection = loop {
                tokio::time::sleep(backoff.pause()).await;
                match self.connect().await {
                    Ok(connection) => break connection,
                    Err(error) => self.endpoint.ownership.tell_unreachable(&error),
                }
            };
        }
    }

    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let log = &self.partitions[0].log;
        let mut connection = self.endpoint.connect_for(log, "tail").await?;
        // Reads block; they have their own time-out.
        connection.commands.set_response_timeout(BLOCK + TIMEOUT);
        // What came last may have been too much.
        self.portion = Portion::FIRST;
        // What other servers told is of the past, should this one not know of it.
        let told: Vec<_> =
            self.partitions.iter().map(|partition| self.feed.progress.told(partition.number)).collect();
        self.learn_lives(&mut connection, &told).await?;
        self.connected_at = Instant::now();
        Ok(connection)
    }

    async fn follow(
        &mut self,
        connection: &mut Connection,
    ) -> Result<std::convert::Infallible, ConnectError> {
        // The first answer comes at once: it says whether this connection may read.
        let mut wait = None;
        loop {
            let (command, asked) = (self.read_command(wait), Instant::now());
            let reply = connection.commands.send_packed_command(&command).await?.extract_error()?;
            self.pulse.connected();
            if !std::mem::replace(&mut self.is_followed, true) {
                self.reconnects.inc();
                tracing::info!("the log of publications is followed again");
            }
            wait = Some(BLOCK);
            let came = self.deliver(reply)?;
            self.portion.learn(Came { is_late: asked.elapsed() > BLOCK, ..came });
            if Instant::now() >= self.lives_after || self.is_outrun() {
                connection.require_master().await?;
                let known: Vec<_> = self.partitions.iter().map(|partition| partition.serial).collect();
                self.learn_lives(connection, &known).await?;
                if self.is_outrun() {
                    return Err(ConnectError::Superseded);
                }
            }
            // Readers may say what is not so: they do not have connections made anew more often than this.
            if self.connected_at.elapsed() >= LIFE_INTERVAL && self.is_doubted() {
                self.look_elsewhere(connection).await;
            }
        }
    }

    /// Asks once more where the log is, and follows it there. Where nobody answers for as long as a read may wait, it
    /// is followed as before.
    async fn look_elsewhere(&mut self, connection: &mut Connection) {
        let looking = tokio::time::timeout(BLOCK, self.connect()).await;
        match looking.unwrap_or(Err(ConnectError::Timeout)) {
            Ok(another) => *connection = another,
            Err(error) => tracing::debug!(%error, "nobody says where a later life may be"),
        }
        self.connected_at = Instant::now();
    }

    fn is_doubted(&self) -> bool {
        self.partitions.iter().any(|partition| self.feed.progress.is_doubted(partition.number))
    }

    fn is_outrun(&self) -> bool {
        self.partitions.iter().any(|partition| self.feed.progress.is_outrun(partition.number))
    }

    fn read_command(&self, wait: Option<Duration>) -> redis::Cmd {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(self.portion.entries());
        if let Some(wait) = wait {
            command.arg("BLOCK").arg(wait.as_millis() as u64);
        }
        command.arg("STREAMS");
        for partition in &self.partitions {
            command.arg(&partition.log);
        }
        for partition in &self.partitions {
            command.arg(partition.last.to_string());
        }
        command
    }

    fn deliver(&mut self, reply: Value) -> Result<Came, Malformed> {
        let mut came = Came::default();
        for (name, entries) in reply::streams(reply)? {
            let index = *self.index.get(&name).ok_or(Malformed("stream"))?;
            self.partitions[index].lag.saw(entries.len());
            came.entries += entries.len();
            came.most = came.most.max(entries.len());
            for entry in entries {
                let (id, fields) = reply::parts(entry)?;
                came.bytes += reply::size(&fields);
                self.partitions[index].last = id;
                let logged = entry::logged(id, fields);
                if let Err(error) | Ok(Logged::Unreadable(_, error)) = &logged {
                    let partition = self.partitions[index].number;
                    tracing::error!(%error, %id, partition, "an entry is passed over");
                }
                if let Ok(logged) = logged {
                    self.feed.take(&logged);
                }
            }
            let partition = &self.partitions[index];
            self.feed.progress.reached(partition.number, partition.last);
        }
        Ok(came)
    }

    /// Asks in which life each partition is. In another one than was known, entries may have come with ids below the
    /// last one that was seen. What the log lost before it was read shows in the offsets of what follows. Where nothing
    /// follows, subscribers read on from their channels. So do they where another region's log is in another life,
    /// which tells what was lost there. And who read while more was to come was not told what is missing: once all is
    /// there, they read again. `seen` is of each the serial of a life before which none may be.
    async fn learn_lives(&mut self, connection: &mut Connection, seen: &[u64]) -> Result<(), ConnectError> {
        let mut pipeline = Pipeline::with_capacity(self.partitions.len());
        for (partition, seen) in self.partitions.iter().zip(seen) {
            let mut keys = vec![self.keys.life(partition.number), partition.log.clone()];
            if !self.others.is_empty() {
                keys.push(self.keys.cursor(partition.number));
            }
            let known = partition.life.clone().unwrap_or_default();
            let (last, serial) = (partition.last.to_string(), seen.to_string());
            let age_ms = self.log_age.as_millis().to_string();
            let args = [self.others.clone(), known, last, serial, age_ms].map(String::into_bytes).into();
            let request = Request::Script { script: &LIFE_OF, keys, args };
            pipeline.add_command(connection.command(&request));
        }
        let answers: Vec<LifeOf> = pipeline.query_async(&mut connection.commands).await?;
        if answers.len() != self.partitions.len() {
            return Err(Malformed("lives").into());
        }
        let (mut changed, mut arrived) = (HashSet::new(), HashSet::new());
        for (partition, (life, serial, born, newest, oldest, added, length, coming, lives)) in
            self.partitions.iter_mut().zip(answers)
        {
            let born = StreamId::parse(&born).ok_or(Malformed("entry id"))?;
            let newest = StreamId::parse(&newest).ok_or(Malformed("entry id"))?;
            let log = Log { newest, oldest: StreamId::parse(&oldest), added, length };
            let is_another_life = partition.learn(life, born, newest);
            self.feed.progress.follows(partition.number, serial);
            self.feed.progress.reached(partition.number, partition.last);
            partition.serial = serial;
            self.endpoint.ownership.lives.saw(serial);
            if partition.has_missed(&log) || is_another_life {
                changed.insert(partition.number);
            }
            let has_come = partition.coming.iter().any(|region| !coming.contains(region));
            if self.feed.promises.redeem(partition.number, &coming) || has_come {
                arrived.insert(partition.number);
            }
            let is_later = |known: &Vec<String>| lives.iter().any(|life| !known.contains(life));
            if partition.lives.as_ref().is_some_and(is_later) {
                arrived.insert(partition.number);
            }
            (partition.coming, partition.lives) = (coming, Some(lives));
        }
        if !changed.is_empty() {
            self.feed.marks.clear();
        }
        changed.extend(arrived);
        if !changed.is_empty() {
            self.feed.cache.clear();
            // Last: who reads on now must not be answered from before.
            let is_affected = |channel: &Channel| changed.contains(&self.keys.partition(channel));
            self.feed.delivery.uncertain(&is_affected);
        }
        self.lives_after = Instant::now() + LIFE_INTERVAL;
        Ok(())
    }
}

impl Partition {
    /// Takes the life that the partition is in, which began when `born` was its log's last id. `true` when it is
    /// another one than was known.
    fn learn(&mut self, life: String, born: StreamId, newest: StreamId) -> bool {
        match &self.life {
            Some(known) if *known == life => return false,
            None => self.last = newest,
            Some(_) => {
                tracing::warn!(
                    partition = self.number,
                    "Redis restarted or lost data: positions have a new epoch"
                );
                self.last = self.last.min(born);
                self.lag.forget();
            }
        }
        self.life.replace(life).is_some()
    }

    /// Whether the log lost entries that were not read yet, as its counts tell.
    fn has_missed(&mut self, log: &Log) -> bool {
        let missed = self.lag.measure(self.last, log);
        if missed > 0 {
            tracing::warn!(
                partition = self.number,
                missed,
                "the log was trimmed before all of it was read; what its channels remember is read instead"
            );
        }
        missed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_redis::registration::Registration;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, sequence: 0 }
    }

    fn partition() -> Partition {
        let lag = Lag::new(0, &LagMetrics::new(&Registration::default()).unwrap());
        let (log, coming) = (String::new(), Vec::new());
        Partition { number: 0, log, life: None, serial: 0, last: StreamId::MIN, coming, lives: None, lag }
    }

    #[test]
    fn a_node_begins_at_the_end_of_the_log() {
        let mut partition = partition();
        assert!(!partition.learn("a".into(), id(0), id(9)));
        assert_eq!(partition.last, id(9));
    }

    #[test]
    fn within_a_life_the_place_in_the_log_stays() {
        let mut partition = partition();
        partition.learn("a".into(), id(0), id(5));
        assert!(!partition.learn("a".into(), id(0), id(9)));
        assert_eq!(partition.last, id(5));
    }

    #[test]
    fn a_new_life_whose_clock_stands_behind_is_read_from_its_beginning() {
        let mut partition = partition();
        partition.learn("a".into(), id(0), id(50));
        assert!(partition.learn("b".into(), id(7), id(9)));
        assert_eq!(partition.last, id(7));
        assert!(partition.learn("c".into(), id(90), id(99)));
        assert_eq!(partition.last, id(7));
    }
}
