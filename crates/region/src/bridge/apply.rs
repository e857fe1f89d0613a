//! Applies another region's publications here: into the log, which brings them to every node of the region.

use super::{
    cursor::Cursor,
    scripts::{APPLY, LOSE, SAY},
};
use crate::{
    broker::{
        entry::Carried,
        retention::{LOG_LENGTH, Retention},
    },
    keys::RegionKeys as _,
};
use redis::Value;
use skywave_channels::namespace::Namespaces;
use skywave_protocol::{Channel, Point, position::Origin};
use skywave_redis::{CallError, Malformed, Redis, Request, StreamId, reply};
use std::time::Duration;

/// The most publications in one call. Redis 7.0 takes 0.6 ms for them, with history and keys 1.5 ms (medians, payloads
/// of 20 to 200 bytes). For so long everything else that is asked of it waits.
pub(crate) const MAX_ENTRIES: usize = 64;

/// A publication, and where the cursor is after it.
pub(crate) struct Step {
    pub publication: Carried,
    pub cursor: Cursor,
}

/// What is done about a publication that does not follow the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is applied: what is missing cannot be had.
    Log,
    /// The call ends before it: the log may hold what is missing.
    Live,
}

/// What a call does to a replay, see `apply.lua`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replay {
    AsItIs,
    /// One begins that ends here.
    Until(StreamId),
    /// One that goes on ends here at the latest.
    Within(StreamId),
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done(Tally),
    /// It ended early: the cursor is where it got to.
    Stopped(Tally),
    /// The cursor is not where it was expected: nothing was applied.
    Moved,
    /// Somebody with a higher token was here: nothing was applied.
    Fenced(u64),
}

/// What became of a call that fills in a part of a history.
pub(crate) enum Filling {
    Ended(Outcome),
    /// It did nothing yet: it has to be told how far the history goes.
    Look,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) applied: u64,
    /// Were here already.
    pub(crate) duplicates: u64,
    /// Do not follow the one before.
    pub gaps: u64,
}

/// Applies under one lease.
#[derive(Clone)]
pub(crate) struct Applying {
    pub local: Redis,
    /// Where the publications come from.
    pub region: Origin,
    pub token: u64,
    pub namespaces: Namespaces,
    pub log_age: Duration,
}

impl Applying {
    /// Applies `steps` and moves the cursor from `from` to `to`, in one step of Redis.
    ///
    /// # Errors
    /// See [`CallError`]: then it is not known whether it happened; the cursor tells.
    pub(crate) async fn apply(
        &self,
        partition: u16,
        from: &str,
        to: &Cursor,
        steps: &[Step],
        mode: Mode,
    ) -> Result<Outcome, CallError> {
        self.call(self.request(partition, from, to, steps, (mode, Replay::AsItIs))).await
    }

    /// Begins at `to`. Channels that were filled in may stand further on, up to `until`; all is new nevertheless.
    ///
    /// # Errors
    /// See [`Self::apply`].
    pub(crate) async fn begin(
        &self,
        partition: u16,
        to: &Cursor,
        until: Option<StreamId>,
    ) -> Result<Outcome, CallError> {
        let replay = until.map_or(Replay::AsItIs, Replay::Until);
        self.call(self.request(partition, "", to, &[], (Mode::Log, replay))).await
    }

    /// Moves the cursor into another life of the log, of which `last` is the last publication.
    ///
    /// # Errors
    /// See [`Self::apply`].
    pub(crate) async fn enter(
        &self,
        partition: u16,
        from: &str,
        to: &Cursor,
        last: StreamId,
    ) -> Result<Outcome, CallError> {
        self.call(self.request(partition, from, to, &[], (Mode::Log, Replay::Within(last)))).await
    }

    /// Passes over a channel up to `point`, of which nobody has anything any more. Only while the cursor stands at
    /// `cursor`, as it is stored here.
    ///
    /// # Errors
    /// See [`Self::apply`].
    pub(crate) async fn lose(
        &self,
        channel: &Channel,
        point: &Point,
        cursor: &str,
        retention: Retention,
    ) -> Result<Outcome, CallError> {
        let names = &self.local.keys;
        let partition = names.partition(channel);
        let args = [
            self.region.to_string(),
            self.token.to_string(),
            cursor.to_owned(),
            channel.to_string(),
            point.epoch.to_string(),
            point.offset.to_string(),
            self.log_age.as_millis().to_string(),
            retention.position_age.as_millis().to_string(),
        ];
        let keys = vec![
            names.life(partition),
            names.log(partition),
            names.cursor(partition),
            names.position(channel),
        ];
        let args = args.map(String::into_bytes).into();
        self.call(Request::Script { script: &LOSE, keys, args }).await
    }

    /// Says events on a partition; without any, it only shuts out earlier leaders.
    ///
    /// # Errors
    /// See [`CallError`]: then it is not known whether they were said.
    pub(crate) async fn say(&self, partition: u16, events: Vec<Vec<u8>>) -> Result<Outcome, CallError> {
        let names = &self.local.keys;
        let mut args = [self.region.to_string(), self.token.to_string(), names.event(partition)]
            .map(String::into_bytes)
            .to_vec();
        args.extend(events);
        self.call(Request::Script { script: &SAY, keys: vec![names.cursor(partition)], args }).await
    }

    /// Makes a call that fills in a part of a history.
    ///
    /// # Errors
    /// See [`CallError`]: then its outcome is not known.
    pub(crate) async fn fill(&self, request: Request) -> Result<Filling, CallError> {
        self.ask(request, |words| match words {
            ["look"] => Ok(Filling::Look),
            words => outcome(words).map(Filling::Ended),
        })
        .await
    }

    async fn call(&self, request: Request) -> Result<Outcome, CallError> {
        self.ask(request, outcome).await
    }

    async fn ask<T>(
        &self,
        request: Request,
        read: impl FnOnce(&[&str]) -> Result<T, Malformed>,
    ) -> Result<T, CallError> {
        let value = self.local.commands.call(request).await?;
        let answer = words(value).and_then(|words| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            read(&words)
        });
        answer.map_err(|error| {
            tracing::error!(%error, "it is not known what was applied of another region");
            CallError::Refused
        })
    }

    fn request(
        &self,
        partition: u16,
        from: &str,
        to: &Cursor,
        steps: &[Step],
        (mode, replay): (Mode, Replay),
    ) -> Request {
        let names = &self.local.keys;
        let mut keys = vec![names.life(partition), names.log(partition), names.cursor(partition)];
        let mode = match mode {
            Mode::Log => "log",
            Mode::Live => "live",
        };
        let (until, within) = match replay {
            Replay::AsItIs => (String::new(), String::new()),
            Replay::Until(id) => (id.to_string(), String::new()),
            Replay::Within(id) => (String::new(), id.to_string()),
        };
        let mut args: Vec<Vec<u8>> = [
            self.region.to_string(),
            self.token.to_string(),
            from.to_owned(),
            to.to_string(),
            mode.to_owned(),
            self.log_age.as_millis().to_string(),
            LOG_LENGTH.to_string(),
            until,
            within,
        ]
        .map(String::into_bytes)
        .into();
        for Step { publication, cursor } in steps {
            let Carried { channel, key, .. } = publication;
            keys.push(names.position(channel));
            keys.push(names.history(channel));
            keys.extend(key.as_ref().map(|key| names.idempotency(channel, key)));
            let retention = Retention::of(self.namespaces.of(channel));
            args.extend([cursor.to_string().into_bytes(), channel.as_bytes().to_vec()]);
            args.extend(publication.arguments());
            args.extend([
                retention.history.to_string().into_bytes(),
                retention.history_age.as_millis().to_string().into_bytes(),
                retention.position_age.as_millis().to_string().into_bytes(),
                retention.key_age.as_millis().to_string().into_bytes(),
            ]);
        }
        Request::Script { script: &APPLY, keys, args }
    }
}

fn words(value: Value) -> Result<Vec<String>, Malformed> {
    let Value::Array(parts) = value else { return Err(Malformed("answer")) };
    parts.into_iter().map(reply::text).collect()
}

fn outcome(words: &[&str]) -> Result<Outcome, Malformed> {
    let number = |word: &str| word.parse::<u64>().map_err(|_| Malformed("number"));
    Ok(match *words {
        ["fenced", fence] => Outcome::Fenced(number(fence)?),
        ["moved", ..] => Outcome::Moved,
        ["ok"] => Outcome::Done(Tally::default()),
        [end @ ("ok" | "stopped"), applied, duplicates, gaps] => {
            let tally =
                Tally { applied: number(applied)?, duplicates: number(duplicates)?, gaps: number(gaps)? };
            if end == "ok" { Outcome::Done(tally) } else { Outcome::Stopped(tally) }
        }
        _ => return Err(Malformed("answer")),
    })
}
