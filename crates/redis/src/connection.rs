//! A connection to Redis, and what is known of the server at its other end.

use crate::{
    dialling::{Dialled, Serving},
    errors::{ConnectError, OLDEST_MAJOR},
    lives::Lives,
    ownership::{Inscription, Ownership},
    reply::{self, Malformed},
    request::Request,
    script::Script,
};
use redis::{Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection, from_redis_value};
use skywave_host::Chance;
use std::sync::Arc;

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
