//! Goes through another region's channels, to make up for what its log does not hold any more.
//!
//! Where nothing of a partition was applied here yet, positions and histories are *filled* in without being
//! delivered: what was published before the link began is old. Where the log was trimmed before it was read, it is
//! *repaired* from the histories: what they still hold is applied as if it came from the log. Where nothing follows in
//! the log that would show what is lost for good, it is told.

use super::{
    apply::{Applying, Filling, MAX_ENTRIES, Mode, Step},
    course::{Interruption, Link, done},
    cursor::Cursor,
    scripts::{FILL, SURVEY},
};
use crate::{
    broker::{
        entry::{self, Carried},
        retention::Retention,
    },
    keys::RegionKeys as _,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;
use skywave_protocol::Channel;
use skywave_redis::{Malformed, Request, StreamId, reply};
use std::collections::HashMap;

/// How many keys one step of the scan looks at. Steps follow each other, a round trip each; Redis takes a few
/// milliseconds.
const SCANNED_AT_ONCE: usize = 8_192;
/// How many channels are read at once.
const CHANNELS_AT_ONCE: usize = 128;
/// The most payload bytes of a channel that are read at once, unless a single publication is larger.
const MAX_BYTES: usize = 64 << 10;
/// How many entries of a history are looked at at once for how far it goes. Redis 7.0 takes 0.05 ms for them (medians,
/// payloads of 100 bytes), and 0.3 ms with payloads of 64 KB.
const LOOKED_AT: usize = 32;
/// Instead of how far a history goes, see `fill.lua`.
const NOT_LOOKED: &str = "?";

/// What is to be made up for in a partition.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// All that was published up to `until` is remembered; the link begins there.
    Fill { until: StreamId },
    /// What was published behind the cursor, as it stands here, and before `until`, is applied.
    Repair { cursor: Cursor, until: StreamId },
}

/// A channel's position there, and a part of its history.
struct Answer {
    position: String,
    /// Where the publication that has this position stood in the log; `None` where that is not known.
    published: Option<StreamId>,
    last: StreamId,
    exhausted: bool,
    entries: Vec<Carried>,
}

/// Goes through all channels of the partitions that have a purpose. One server has them all.
///
/// # Errors
/// See [`Interruption`]; then it is to be done again.
pub(crate) async fn survey(link: &Link, purposes: &HashMap<u16, Purpose>) -> Result<(), Interruption> {
    let Some(any) = purposes.keys().next() else { return Ok(()) };
    go_through(link, *any, purposes).await?;
    // What moved from one server to another may have been passed by on both.
    let are_unmoved = link.log.are_unmoved(purposes.keys().copied()).await?;
    if are_unmoved { Ok(()) } else { Err(Interruption::KeysMoved) }
}

/// Goes through the channels of which the server of a partition has positions, a step through its keys after the other.
async fn go_through(
    link: &Link,
    partition: u16,
    purposes: &HashMap<u16, Purpose>,
) -> Result<(), Interruption> {
    let (pattern, count) = (link.applying.local.keys.positions(), SCANNED_AT_ONCE.to_string());
    let mut cursor = "0".to_owned();
    loop {
        let request = Request::command(["SCAN", &cursor, "MATCH", &pattern, "COUNT", &count]);
        let (next, channels) = scanned(link, link.log.ask(partition, &request).await?)?;
        let work = |(partition, channel)| {
            let purpose = purposes.get(&partition)?;
            Some(make_up(link, partition, channel, purpose))
        };
        let work: Vec<_> = channels.into_iter().filter_map(work).collect();
        stream::iter(work).buffer_unordered(CHANNELS_AT_ONCE).try_collect::<()>().await?;
        if next == "0" {
            return Ok(());
        }
        cursor = next;
    }
}

/// What SCAN answers: where the next step begins, and the channels that were found.
fn scanned(link: &Link, answer: Value) -> Result<(String, Vec<(u16, Channel)>), Interruption> {
    let keys = &link.applying.local.keys;
    let malformed = |error: Malformed| Interruption::Pull(error.into());
    let Value::Array(parts) = answer else {
        return Err(malformed(Malformed("scan")));
    };
    let Ok([next, Value::Array(names)]) = <[Value; 2]>::try_from(parts) else {
        return Err(malformed(Malformed("scan")));
    };
    let mut channels = Vec::with_capacity(names.len());
    for name in names {
        match reply::text(name).ok().and_then(|name| keys.channel_of_position(&name)) {
            Some(found) => channels.push(found),
            None => link.pass_over(Malformed("key")),
        }
    }
    Ok((reply::text(next).map_err(malformed)?, channels))
}

async fn make_up(
    link: &Link,
    partition: u16,
    channel: Channel,
    purpose: &Purpose,
) -> Result<(), Interruption> {
    let (mut after, until) = match purpose {
        Purpose::Fill { until } => (StreamId::MIN, *until),
        Purpose::Repair { cursor, until } => (cursor.id, *until),
    };
    let retention = Retention::of(link.applying.namespaces.of(&channel));
    loop {
        // A channel without history here needs its position only.
        let count = if retention.history > 0 { MAX_ENTRIES } else { 0 };
        let answer = ask(link, partition, &channel, (after, until, count)).await?;
        let is_last = answer.exhausted || count == 0;
        after = answer.last;
        match purpose {
            Purpose::Fill { .. } => {
                let position = if is_last { &*answer.position } else { "" };
                let is_of_use = is_last || !answer.entries.is_empty();
                // Without a position another region published on it; this one did not.
                if is_of_use && !answer.position.is_empty() {
                    fill(link, &channel, position, retention, &answer.entries).await?;
                }
            }
            Purpose::Repair { cursor, .. } => {
                repair(link, partition, cursor, answer.entries).await?;
                if is_last && answer.published.is_some_and(|published| published <= until) {
                    lose(link, &channel, &answer.position, &cursor.to_string(), retention).await?;
                }
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

async fn ask(
    link: &Link,
    partition: u16,
    channel: &Channel,
    (after, until, count): (StreamId, StreamId, usize),
) -> Result<Answer, Interruption> {
    let keys = &link.applying.local.keys;
    let args = [
        link.region().to_owned(),
        after.to_string(),
        until.to_string(),
        count.to_string(),
        MAX_BYTES.to_string(),
    ];
    let request = Request::Script {
        script: &SURVEY,
        keys: vec![keys.position(channel), keys.history(channel)],
        args: args.map(String::into_bytes).into(),
    };
    let value = link.log.ask(partition, &request).await?;
    read(value, link, partition).map_err(|error| Interruption::Pull(error.into()))
}

fn read(value: Value, link: &Link, partition: u16) -> Result<Answer, Malformed> {
    let Value::Array(parts) = value else { return Err(Malformed("answer")) };
    let Ok([position, published, last, exhausted, Value::Array(entries)]) = <[Value; 5]>::try_from(parts)
    else {
        return Err(Malformed("answer"));
    };
    let mut checked = Vec::with_capacity(entries.len());
    for entry in entries {
        let (id, fields) = reply::parts(entry)?;
        checked.extend(link.check(partition, id, fields));
    }
    Ok(Answer {
        position: reply::text(position)?,
        published: StreamId::parse(&reply::text(published)?),
        last: StreamId::parse(&reply::text(last)?).ok_or(Malformed("entry id"))?,
        exhausted: reply::text(exhausted)? == "1",
        entries: checked,
    })
}

async fn fill(
    link: &Link,
    channel: &Channel,
    position: &str,
    retention: Retention,
    entries: &[Carried],
) -> Result<(), Interruption> {
    if !position.is_empty() && crate::broker::point_of(position).is_none() {
        link.pass_over(Malformed("position"));
        return Ok(());
    }
    let Applying { local, token, .. } = &link.applying;
    let keys = &local.keys;
    let mut reaches = NOT_LOOKED.to_owned();
    loop {
        let mut args: Vec<Vec<u8>> = [
            link.region().to_owned(),
            token.to_string(),
            position.to_owned(),
            channel.to_string(),
            retention.history.to_string(),
            retention.history_age.as_millis().to_string(),
            retention.position_age.as_millis().to_string(),
            reaches.clone(),
        ]
        .map(String::into_bytes)
        .into();
        args.extend(entries.iter().flat_map(Carried::arguments));
        let request = Request::Script {
            script: &FILL,
            keys: vec![keys.cursor(keys.partition(channel)), keys.position(channel), keys.history(channel)],
            args,
        };
        let turn = link.turn(entries.len()).await;
        let filling = link.applying.fill(request).await;
        drop(turn);
        match filling {
            Ok(Filling::Look) => reaches = reach(link, channel).await?,
            Ok(Filling::Ended(outcome)) => return done(Ok(outcome)).map(drop),
            Err(error) => return done(Err(error)).map(drop),
        }
    }
}

/// How far a channel's history here goes of what the other region published, as it would be stored with the position;
/// empty where it holds none of it. Nobody else writes of that region: earlier leaders are shut out.
async fn reach(link: &Link, channel: &Channel) -> Result<String, Interruption> {
    let local = &link.applying.local;
    let (history, count) = (local.keys.history(channel), LOOKED_AT.to_string());
    let mut before = "+".to_owned();
    loop {
        let request = Request::command(["XREVRANGE", &history, &before, "-", "COUNT", &count]);
        let turn = link.turn(LOOKED_AT).await;
        let answer = local.commands.call(request).await.map_err(|_| Interruption::LocalAway)?;
        drop(turn);
        let part = newest_of(link.region(), answer).map_err(|error| Interruption::Pull(error.into()))?;
        match part {
            Looked::Found(reaches) => return Ok(reaches),
            Looked::Before(id) => before = format!("({id}"),
            Looked::End => return Ok(String::new()),
        }
    }
}

/// What a part of a history tells that is looked through from its end.
enum Looked {
    Found(String),
    /// It goes on before this entry.
    Before(StreamId),
    End,
}

fn newest_of(region: &str, answer: Value) -> Result<Looked, Malformed> {
    let Value::Array(entries) = answer else { return Err(Malformed("history")) };
    let is_last = entries.len() < LOOKED_AT;
    let mut before = None;
    for entry in entries {
        let (id, fields) = reply::parts(entry)?;
        if let Some(reaches) = entry::place_in(region, fields) {
            return Ok(Looked::Found(reaches));
        }
        before = Some(id);
    }
    Ok(before.filter(|_| !is_last).map_or(Looked::End, Looked::Before))
}

async fn repair(
    link: &Link,
    partition: u16,
    cursor: &Cursor,
    entries: Vec<Carried>,
) -> Result<(), Interruption> {
    if entries.is_empty() {
        return Ok(());
    }
    let steps: Vec<_> =
        entries.into_iter().map(|publication| Step { publication, cursor: cursor.clone() }).collect();
    let _turn = link.turn(steps.len()).await;
    let stored = cursor.to_string();
    let tally = done(link.applying.apply(partition, &stored, cursor, &steps, Mode::Log).await)?;
    link.count(tally);
    link.metrics.repaired.inc_by(tally.applied);
    Ok(())
}

/// Tells what of a channel neither the log nor the history holds any more: all up to `position`. `cursor` is where the
/// link stands, as it is stored here.
///
/// # Errors
/// See [`Interruption`].
async fn lose(
    link: &Link,
    channel: &Channel,
    position: &str,
    cursor: &str,
    retention: Retention,
) -> Result<(), Interruption> {
    let Some(point) = crate::broker::point_of(position) else {
        link.pass_over(Malformed("position"));
        return Ok(());
    };
    let _turn = link.turn(0).await;
    let tally = done(link.applying.lose(channel, &point, cursor, retention).await)?;
    link.count(tally);
    Ok(())
}
