//! A connection to Redis, and what is known of the server at its other end.

use crate::{
    dialling::{Dialled, Serving},
    lives::Lives,
    ownership::{Inscription, Ownership, Stranger},
    reply::{self, Malformed},
    script::Script,
    slot::slot_of,
};
use redis::{Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection, from_redis_value};
use skywave_host::Chance;
use std::{io, path::PathBuf, sync::Arc, time::Duration};

/// How long connecting, and the answer to a command, may take.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// The oldest release whose commands are used.
const OLDEST_MAJOR: u64 = 7;
/// Between attempts to reconnect.
pub const RECONNECT_PAUSE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(1);

/// Why Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Url(&'static str),
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Network(#[from] io::Error),
    #[error("{}: {source}", path.display())]
    Authorities { path: PathBuf, source: io::Error },
    #[error("no sentinel knows a master of `{service}` that answers: {why}")]
    NoMaster { service: String, why: String },
    #[error("no server of the cluster tells who has which slot: {0}")]
    NoCluster(String),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the server is Redis {0}; {OLDEST_MAJOR}.0 or later is needed")]
    Version(String),
    #[error("the server does not tell its {0}")]
    Unidentified(&'static str),
    #[error("the server is a replica")]
    Replica,
    #[error("another server took over from it")]
    Superseded,
    #[error(transparent)]
    Stranger(#[from] Stranger),
    #[error("it is not known yet whose the Redis is")]
    Unrecognized,
    #[error("the server answered with {0}")]
    Malformed(#[from] Malformed),
}

/// Something to be asked of Redis.
#[derive(Debug)]
pub enum Request {
    /// The keys decide where it goes; they share a hash tag.
    Script { script: &'static Script, keys: Vec<String>, args: Vec<Vec<u8>> },
    /// A command of one key: its name, the key, the rest.
    Command(Vec<Vec<u8>>),
}

impl Request {
    /// A command as words.
    pub fn command<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> Self {
        Self::Command(words.into_iter().map(|word| word.as_ref().to_vec()).collect())
    }

    /// What metrics call it: a script by its name, pub/sub `say`, and other commands as Redis does.
    pub fn name(&self) -> &'static str {
        let words = match self {
            Self::Script { script, .. } => return script.name,
            Self::Command(words) => words,
        };
        match words.first().map(Vec::as_slice) {
            Some(b"PUBLISH") => "say",
            Some(b"GET") => "get",
            Some(b"SET") => "set",
            Some(b"DEL") => "del",
            Some(b"PTTL") => "pttl",
            Some(b"HGET") => "hget",
            Some(b"HSET") => "hset",
            Some(b"HDEL") => "hdel",
            Some(b"SADD") => "sadd",
            Some(b"SREM") => "srem",
            Some(b"SMEMBERS") => "smembers",
            Some(b"SSCAN") => "sscan",
            Some(b"SCAN") => "scan",
            Some(b"XADD") => "xadd",
            Some(b"XRANGE") => "xrange",
            Some(b"XREVRANGE") => "xrevrange",
            _ => "other",
        }
    }

    /// The key that decides where it goes. A pub/sub channel serves as one: what is said on any server of a cluster is
    /// heard on all.
    pub fn key(&self) -> &[u8] {
        let key = match self {
            Self::Script { keys, .. } => keys.first().map(String::as_bytes),
            Self::Command(words) => words.get(1).map(Vec::as_slice),
        };
        key.unwrap_or_default()
    }

    /// Whether one server of a cluster has all its keys.
    pub(crate) fn is_of_one_slot(&self) -> bool {
        match self {
            Self::Script { keys, .. } => {
                keys.iter().all(|key| slot_of(key.as_bytes()) == slot_of(self.key()))
            }
            Self::Command(_) => true,
        }
    }

    /// Roughly what it takes in memory.
    pub fn size(&self) -> usize {
        const OVERHEAD: usize = 128;
        let bytes = |words: &[Vec<u8>]| words.iter().map(Vec::len).sum::<usize>();
        OVERHEAD
            + match self {
                Self::Script { keys, args, .. } => keys.iter().map(String::len).sum::<usize>() + bytes(args),
                Self::Command(words) => bytes(words),
            }
    }
}

fn introduction(name: &str, ownership: &Ownership) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.ignore_errors();
    pipeline.cmd("CLIENT").arg("SETNAME").arg(format!("skywave-{name}"));
    pipeline.cmd("INFO").arg("server");
    pipeline.cmd("INFO").arg("memory");
    for key in ownership.questions() {
        pipeline.cmd("GET").arg(key);
    }
    let hashes: Vec<_> = ownership.scripts().map(Script::hash).collect();
    pipeline.cmd("SCRIPT").arg("EXISTS").arg(hashes);
    pipeline
}

/// Loads the scripts that the server does not have: all of them are a long way for a lossy path.
async fn load_scripts(
    commands: &mut MultiplexedConnection,
    scripts: impl Iterator<Item = &'static Script>,
    exist: &[bool],
) -> Result<(), RedisError> {
    let missing = scripts.zip(exist).filter(|(_, exists)| !**exists);
    let mut pipeline = Pipeline::new();
    for (script, _) in missing {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(script.source()).ignore();
    }
    if pipeline.is_empty() { Ok(()) } else { pipeline.query_async(commands).await }
}

/// The run id of the server: another one after each start.
fn identify(info: &str) -> Result<String, ConnectError> {
    let version = field(info, "redis_version").ok_or(ConnectError::Unidentified("version"))?;
    let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
    if major.is_none_or(|major| major < OLDEST_MAJOR) {
        return Err(ConnectError::Version(version.to_owned()));
    }
    field(info, "run_id").map(str::to_owned).ok_or(ConnectError::Unidentified("run id"))
}

fn warn_of_eviction(info: &str) {
    if let Some(policy) = field(info, "maxmemory_policy").filter(|policy| *policy != "noeviction") {
        tracing::warn!(policy, "Redis may evict positions; set maxmemory-policy noeviction");
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Puts in whose the Redis is; what stands there then. A server that takes no writes for now is used all the same:
/// whoever connects once it takes writes puts the name in.
async fn enter(
    commands: &mut MultiplexedConnection,
    ownership: &Ownership,
) -> Result<Inscription, ConnectError> {
    let mut pipeline = Pipeline::new();
    pipeline.ignore_errors();
    for (key, value) in ownership.entries() {
        pipeline.cmd("SET").arg(key).arg(value).arg("NX");
    }
    for key in ownership.questions() {
        pipeline.cmd("GET").arg(key);
    }
    let replies: Vec<Result<Value, RedisError>> = pipeline.query_async(commands).await?;
    let Ok([name, number, partitions, region]) = <[_; 4]>::try_from(replies) else {
        return Err(ConnectError::Unidentified("region"));
    };
    for entered in [name, number] {
        if let Err(error) = entered
            && !refuses_writes(&error)
        {
            return Err(error.into());
        }
    }
    Ok(Inscription::read(partitions?, region?)?)
}

/// A connection for commands.
#[derive(Debug, Clone)]
pub struct Connection {
    pub commands: MultiplexedConnection,
    run: String,
    lives: Arc<Lives>,
    chance: Chance,
    _serving: Arc<Serving>,
}

impl Connection {
    /// Loads the scripts and learns who is at the other end of a fresh connection: a server which is to be `alone`, or
    /// has its part of a cluster's keys.
    ///
    /// # Errors
    /// See [`ConnectError`]. A replica is refused: it takes no writes.
    pub(crate) async fn introduce(
        Dialled { mut commands, serving }: Dialled,
        name: &str,
        (ownership, chance): (&Ownership, &Chance),
        alone: bool,
    ) -> Result<Self, ConnectError> {
        let introduction = introduction(name, ownership);
        let replies: Vec<Result<Value, RedisError>> = introduction.query_async(&mut commands).await?;
        let Ok([name, server, memory, partitions, region, scripts]) = <[_; 6]>::try_from(replies) else {
            return Err(ConnectError::Unidentified("state"));
        };
        if let Err(error) = name {
            tracing::debug!(%error, "the connection has no name");
        }
        let server = reply::text(server?)?;
        let run = identify(&server)?;
        if alone && field(&server, "redis_mode") == Some("cluster") {
            return Err(ConnectError::Url("the server is one of a cluster: its URL is redis+cluster://…"));
        }
        // An ACL may hide it.
        if let Ok(memory) = memory {
            warn_of_eviction(&reply::text(memory)?);
        }
        match (partitions, region) {
            // Another server has the keys, and tells.
            (Err(error), _) | (_, Err(error)) if is_elsewhere(&error) => {}
            (partitions, region) => {
                let mut found = Inscription::read(partitions?, region?)?;
                if ownership.is_to_be_entered(&found) {
                    found = enter(&mut commands, ownership).await?;
                }
                ownership.recognize(&found)?;
            }
        }
        let exist: Vec<bool> = from_redis_value(scripts?).map_err(|_| Malformed("scripts"))?;
        load_scripts(&mut commands, ownership.scripts(), &exist).await?;
        Ok(Self { commands, run, lives: ownership.lives.clone(), chance: chance.clone(), _serving: serving })
    }

    /// For those who only read, since a replica does not refuse them: the master may be elsewhere by now.
    ///
    /// # Errors
    /// `Replica` when the server is one, as far as it may be asked.
    pub async fn require_master(&mut self) -> Result<(), ConnectError> {
        match redis::cmd("ROLE").query_async::<Value>(&mut self.commands).await {
            Ok(role) if reply::is_of_master(&role) => Ok(()),
            Ok(_) => Err(ConnectError::Replica),
            Err(error) if error.code() == Some("NOPERM") => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The command for a request on this connection.
    pub fn command(&self, request: &Request) -> Cmd {
        match request {
            Request::Script { script, keys, args } => {
                let mut command = redis::cmd("EVALSHA");
                command.arg(script.hash()).arg(keys.len()).arg(keys);
                if script.is_of_a_life {
                    command.arg(&self.run).arg(begin_with(self.lives.latest(), &self.chance));
                }
                command.arg(args);
                command
            }
            Request::Command(words) => {
                let mut command = Cmd::new();
                command.arg(words);
                command
            }
        }
    }
}

fn is_elsewhere(error: &RedisError) -> bool {
    use redis::{ErrorKind, ServerErrorKind};
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask))
}

/// Whether an answer says that the server takes no writes for now: its memory is full, its replicas are away, or its
/// disk is full.
fn refuses_writes(error: &RedisError) -> bool {
    matches!(error.code(), Some("OOM" | "NOREPLICAS" | "MISCONF"))
}

/// What a life begins with, should one begin: five digits for its name, so that two that begin in one millisecond do
/// not share it by chance, and the serial after which it comes.
fn begin_with(latest: u64, chance: &Chance) -> String {
    format!("{:05x}{latest}", chance.any::<u32>() >> 12)
}

/// Whether an error of a command means that the connection leads to a server that cannot serve it.
pub(crate) fn is_fatal(error: &redis::ServerError) -> bool {
    use redis::ServerErrorKind as Kind;
    matches!(error.kind(), Some(Kind::NoScript | Kind::BusyLoading | Kind::MasterDown | Kind::ClusterDown))
}

/// Whether an error of a command means that the server is a replica. The master may be where it was before, or nowhere;
/// then there is still something to be read.
pub(crate) fn is_of_replica(error: &redis::ServerError) -> bool {
    error.kind() == Some(redis::ServerErrorKind::ReadOnly)
}
