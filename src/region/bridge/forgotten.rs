//! Tells what another region has forgotten: its Redis lost data, be it all of a channel that is known here or the last of it.
//!
//! What was accepted there and had not crossed is lost. Where something follows on a channel its new epoch shows that;
//! on one that is quiet from then on, nothing would.

use super::{
    course::{Interruption, Link},
    cursor::Cursor,
    pull::Head,
    survey,
};
use crate::{
    broker::redis::{point_of, retention::Retention},
    redis::{Request, reply},
};
use redis::Value;
use skywave_protocol::Channel;
use std::collections::HashMap;

/// How many channels are asked for at once; answers are short.
const CHANNELS_AT_ONCE: usize = 1_024;

/// A partition of a log that does not go as far any more as it did.
struct Setback<'a> {
    /// As it stands in this region's Redis.
    cursor: &'a str,
    head: &'a Head,
}

impl<'a> Setback<'a> {
    fn of(cursor: &'a str, head: &'a Head) -> Option<Self> {
        let reached = Cursor::parse(cursor)?;
        (reached.life != head.life && head.born < reached.id).then_some(Self { cursor, head })
    }
}

/// Goes through the channels of this region, where the other one has been set back, and has subscribers told of those on
/// which nothing followed there. `cursors` are those that stand here.
///
/// # Errors
/// See [`Interruption`]; then it is to be done again.
pub async fn tell(link: &Link, heads: &[Head], cursors: &[String]) -> Result<(), Interruption> {
    let stands = heads.iter().zip(cursors).map(|(head, cursor)| Setback::of(cursor, head));
    let setbacks: HashMap<u16, _> =
        (0..).zip(stands).filter_map(|(partition, setback)| Some((partition, setback?))).collect();
    if setbacks.is_empty() {
        return Ok(());
    }
    let region = link.region();
    tracing::warn!(region, partitions = setbacks.len(), "the other region lost data: what it forgot is told");
    let endpoint = &link.applying.local.endpoint;
    let away = |_| Interruption::LocalAway;
    let servers = endpoint.connect_to_all(&format!("survey-{region}")).await.map_err(away)?;
    for server in &servers.all {
        let ask = |request| async move {
            let answer = server.commands.clone().send_packed_command(&server.command(&request)).await;
            answer.and_then(Value::extract_error).map_err(|_| Interruption::LocalAway)
        };
        let work = |partition, channel| {
            let setback = setbacks.get(&partition)?;
            Some(tell_of(link, partition, channel, setback))
        };
        survey::go_through(link, CHANNELS_AT_ONCE, ask, work).await?;
    }
    // What moved from one server to another may have been passed by on both.
    let is_unmoved = servers.layout.is_like(&endpoint.layout().await.map_err(away)?);
    if is_unmoved { Ok(()) } else { Err(Interruption::KeysMoved) }
}

/// A channel that stands in no present life, here or there: it begins anew, and nobody knows how far it went. There somebody
/// may have read it since, and have taken the epoch in which it goes on, but that nothing was published shows in its offset.
async fn tell_of(
    link: &Link,
    partition: u16,
    channel: Channel,
    setback: &Setback<'_>,
) -> Result<(), Interruption> {
    let local = &link.applying.local;
    let key = local.keys.position(&channel);
    let stands = local.commands.call(Request::command(["HGET", &key, link.region()])).await;
    let Ok(stands) = reply::text(stands.map_err(|_| Interruption::LocalAway)?) else { return Ok(()) };
    let life = format!("{}.", setback.head.life);
    let is_of_present = |position: &str| position.starts_with(&life);
    if is_of_present(&stands) {
        return Ok(());
    }
    let there = survey::position(link, partition, &channel).await?;
    let beginning = match point_of(&there).filter(|_| is_of_present(&there)) {
        Some(point) if point.offset > 0 => return Ok(()),
        Some(_) => there,
        None => format!("{}:0", setback.head.fresh_epoch),
    };
    let retention = Retention::of(link.applying.namespaces.get(channel.namespace()));
    survey::lose(link, &channel, &beginning, setback.cursor, retention).await
}
