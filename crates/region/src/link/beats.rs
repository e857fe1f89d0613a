//! Beats as they stand in Redis: written to the other region's, read from our own.

use super::{Links, Remote};
use crate::keys::RegionKeys as _;
use prometheus::IntCounter;
use redis::Value;
use skywave_protocol::{heartbeat::LinkHeartbeat, position::Origin};
use skywave_redis::{
    ConnectError, Malformed, Redis, Request, StreamId,
    backoff::{Backoff, RECONNECT_PAUSE},
    connection::Connection,
    errors::TIMEOUT,
    reply,
};
use std::{convert::Infallible, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// About so many beats are kept: for who looks at them, a node needs the last one.
const KEPT: &str = "64";
/// How long a read waits for beats.
const BLOCK: Duration = Duration::from_secs(1);
/// The most beats in one reply.
const MAX_BEATS: usize = 64;
/// After so many reads without a beat, whatever is newest counts: the stream may have begun anew.
const PATIENCE: u32 = 3;

/// A beat of this region.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beat {
    pub seq: u64,
    /// Until the next one, at most.
    pub interval: Duration,
    /// Whether the other region's beats come.
    pub hears: bool,
}

/// What became of a beat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub interval: Duration,
    /// Until it was acknowledged; `None` when it was not.
    pub rtt: Option<Duration>,
}

impl Beat {
    pub(crate) async fn send(self, links: &Links, remote: &Remote) -> Outcome {
        let key = remote.redis.keys.link(&links.regions.own);
        let words = ["XADD", &key, "MAXLEN", "~", KEPT, "*"].map(str::to_owned);
        let fields = [
            ("seq", self.seq.to_string()),
            ("interval_ms", self.interval.as_millis().to_string()),
            ("node", links.node.to_string()),
            ("hears", u8::from(self.hears).to_string()),
        ];
        let fields = fields.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        let sent = Instant::now();
        let outcome = remote.redis.commands.call(Request::command(words.into_iter().chain(fields))).await;
        Outcome { interval: self.interval, rtt: outcome.ok().map(|_| sent.elapsed()) }
    }
}

/// What a [`Listener`] tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heard {
    /// The other region's beat came.
    Beat(TheirBeat),
    /// From now on beats are heard.
    Listening,
    /// Beats are not heard until we are listening again.
    Deaf,
}

/// A beat of the other region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TheirBeat {
    pub interval: Duration,
    /// Whether our beats come there.
    pub hears: bool,
}

impl TheirBeat {
    fn parse(fields: Vec<Value>) -> Result<Self, Malformed> {
        let (mut interval_ms, mut hears) = (None, false);
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match &*reply::bytes(name)? {
                b"interval_ms" => interval_ms = reply::text(value)?.parse().ok(),
                b"hears" => hears = reply::text(value)? == "1",
                _ => {}
            }
        }
        let interval = interval_ms.map(Duration::from_millis).ok_or(Malformed("interval of a beat"))?;
        Ok(Self { interval: interval.min(LinkHeartbeat::MAX_ANNOUNCED), hears })
    }
}

/// Listens to one region's beats in our own Redis, on a connection of its own, since a read waits.
pub(crate) struct Listener {
    redis: Redis,
    name: String,
    key: String,
    reconnects: IntCounter,
}

impl Listener {
    pub(crate) fn new(local: &Redis, from: &Origin) -> Self {
        let name = format!("link-{from}");
        let reconnects = local.metrics.reconnects.with_label_values(&[&*name]);
        Self { redis: local.clone(), key: local.keys.link(from), name, reconnects }
    }

    /// Listens until nobody wants to hear.
    pub(crate) async fn listen(self, heard: mpsc::Sender<Heard>) {
        let mut backoff = Backoff::new(RECONNECT_PAUSE, self.redis.chance());
        let mut was_connected = false;
        while !heard.is_closed() {
            match self.connect().await {
                Ok(connection) => {
                    if was_connected {
                        self.reconnects.inc();
                    }
                    was_connected = true;
                    backoff = Backoff::new(RECONNECT_PAUSE, self.redis.chance());
                    let Err(error) = self.follow(connection, &heard).await;
                    tracing::debug!(%error, connection = self.name, "beats are not heard");
                }
                Err(error) => {
                    self.redis.endpoint.ownership.tell_unreachable(&error);
                }
            }
            if heard.send(Heard::Deaf).await.is_err() {
                return;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let mut connection = self.redis.endpoint.connect_for(&self.key, &self.name).await?;
        connection.commands.set_response_timeout(BLOCK + TIMEOUT);
        Ok(connection)
    }

    async fn follow(
        &self,
        mut connection: Connection,
        heard: &mpsc::Sender<Heard>,
    ) -> Result<Infallible, FollowError> {
        // What stands there may be old; what comes is not.
        let mut last = None;
        let mut silent_reads = 0;
        heard.send(Heard::Listening).await.map_err(|_| FollowError::Unwanted)?;
        loop {
            let reply = connection.commands.send_packed_command(&self.read_command(last)).await;
            let reply = reply.and_then(Value::extract_error).map_err(ConnectError::from)?;
            let streams = reply::streams(reply).map_err(ConnectError::from)?;
            silent_reads = if streams.is_empty() { silent_reads + 1 } else { 0 };
            if silent_reads >= PATIENCE {
                last = None;
                connection.require_master().await?;
            }
            for entry in streams.into_iter().flat_map(|(_, entries)| entries) {
                let (id, fields) = reply::parts(entry).map_err(ConnectError::from)?;
                last = Some(id);
                match TheirBeat::parse(fields) {
                    Ok(beat) => heard.send(Heard::Beat(beat)).await.map_err(|_| FollowError::Unwanted)?,
                    Err(error) => tracing::warn!(%error, %id, key = self.key, "a beat is passed over"),
                }
            }
        }
    }

    fn read_command(&self, last: Option<StreamId>) -> redis::Cmd {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(MAX_BEATS).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        command.arg("STREAMS").arg(&self.key);
        command.arg(last.map_or_else(|| "$".to_owned(), |id| id.to_string()));
        command
    }
}

/// Why listening ended.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Connection(#[from] ConnectError),
    #[error("nobody wants to hear")]
    Unwanted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &[&str]) -> Result<TheirBeat, Malformed> {
        TheirBeat::parse(fields.iter().map(|field| Value::BulkString(field.as_bytes().to_vec())).collect())
    }

    #[test]
    fn a_beat_says_when_the_next_one_comes_and_whether_ours_are_heard() {
        let beat = parse(&["seq", "7", "interval_ms", "400", "node", "a", "hears", "1", "later", "x"]);
        assert_eq!(beat, Ok(TheirBeat { interval: Duration::from_millis(400), hears: true }));
    }

    #[test]
    fn a_beat_without_a_sound_interval_is_refused_and_a_long_one_is_not_believed() {
        for fields in [&[] as &[&str], &["interval_ms", "-1"], &["interval_ms", "soon"], &["interval_ms"]] {
            assert!(parse(fields).is_err(), "{fields:?}");
        }
        let endless = parse(&["interval_ms", &u64::MAX.to_string()]);
        assert_eq!(endless.map(|beat| beat.interval), Ok(LinkHeartbeat::MAX_ANNOUNCED));
    }
}
