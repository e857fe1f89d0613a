//! Why a Redis cannot be used, and why it did not do what it was asked for.

use crate::reply::Malformed;
use redis::RedisError;
use skywave_protocol::position::Origin;
use std::{io, path::PathBuf, time::Duration};

/// How long connecting, and the answer to a command, may take.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// The oldest release whose commands are used.
pub(crate) const OLDEST_MAJOR: u64 = 7;

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

/// Why a Redis is not the one that it is taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    #[error(
        "this node is of region `{ours}`, and the Redis at {place} belongs to region `{theirs}`: `broker.url` or \
         `node.region` is wrong (if the region was renamed, delete the key `{key}` there while no node uses it)"
    )]
    Own { ours: Origin, theirs: String, place: String, key: String },
    #[error(
        "the Redis at {place} belongs to region `{theirs}`, not to `{ours}`: its `redis` or `name` in `[[regions]]` is \
         wrong; nothing of it is used"
    )]
    Other { ours: Origin, theirs: String, place: String },
    #[error(
        "no node of region `{ours}` has used the Redis at {place} with the prefix `{prefix}`: none has started yet, or \
         its `redis` in `[[regions]]` or `broker.prefix` is wrong; nothing of it is used"
    )]
    Nobody { ours: Origin, place: String, prefix: String },
    #[error(
        "this node has {ours} partitions, the deployment at {place} has {theirs}: `broker.partitions` is fixed"
    )]
    Partitions { ours: u16, theirs: String, place: String },
}

/// Why a call was not answered as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Redis cannot be reached now, is not the one that it is taken for, or has too much to do. What became of the call
    /// is not known if it was under way.
    #[error("Redis cannot be reached")]
    Away,
    /// Redis answers, and not with what was asked for. What it says is in the log.
    #[error("Redis refuses this")]
    Refused,
}
