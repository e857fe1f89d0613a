//! What Redis answers to a holder of presence.

use super::held::Held;
use redis::Value;
use skywave_channels::{by_session::BySession, presence::MAX_MEMBERS};
use skywave_protocol::{
    Channel, Text,
    frame::{Member, Members, SessionId},
};
use skywave_redis::{Malformed, reply};

/// Since when a claimed session is held; a stay of 0 when another has it by a newer transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub stay: u64,
    pub since_ms: u64,
}

/// # Errors
/// When it is something else.
pub(crate) fn claimed(value: Value) -> Result<Vec<Claimed>, Malformed> {
    let mut numbers = list(value)?.into_iter().map(number);
    let mut claimed = Vec::new();
    while let Some(stay) = numbers.next() {
        let since_ms = numbers.next().ok_or(Malformed("claim"))??;
        claimed.push(Claimed { stay: stay?, since_ms });
    }
    Ok(claimed)
}

/// How a renewed lease stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Renewed {
    pub life: String,
    /// How many sessions are held.
    pub held: usize,
    /// The lease had run out, or was not there.
    pub(crate) lapsed: bool,
    /// The number of the news that were said last.
    pub said: u64,
}

/// # Errors
/// When it is something else.
pub(crate) fn renewed(value: Value) -> Result<Renewed, Malformed> {
    let [life, held, lapsed, said] = parts(value)?;
    let held = usize::try_from(number(held)?).map_err(|_| Malformed("number"))?;
    let (lapsed, said) = (number(lapsed)? != 0, number(said)?);
    Ok(Renewed { life: reply::text(life)?, held, lapsed, said })
}

/// The holder that was swept, if one was; there may be more.
///
/// # Errors
/// When it is something else.
pub(crate) fn swept(value: Value) -> Result<Option<(String, u64)>, Malformed> {
    let [holder, count] = parts(value)?;
    let holder = reply::text(holder)?;
    Ok(if holder.is_empty() { None } else { Some((holder, number(count)?)) })
}

/// Who is on a channel.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub life: String,
    /// The number of the news that were said last in the partition: the list shows all up to it.
    pub said: u64,
    pub members: Members,
}

/// Members that make no sense are left out of the list.
///
/// # Errors
/// When it is something else.
pub(crate) fn listing(value: Value) -> Result<Listing, Malformed> {
    let [life, count, listed, said] = parts(value)?;
    let mut members: BySession<Member> = BySession::default();
    let mut words = list(listed)?.into_iter();
    while let (Some(session), Some(value)) = (words.next(), words.next()) {
        match Held::parse(&reply::text(session)?, &reply::text(value)?) {
            Ok(held) if members.len() < MAX_MEMBERS => {
                members.insert(held.member.session.clone(), held.member);
            }
            Ok(_) => break,
            Err(error) => tracing::error!(%error, "a member is left out"),
        }
    }
    let members = Members { count: number(count)?, members: members.into_values().collect() };
    Ok(Listing { life: reply::text(life)?, said: number(said)?, members })
}

/// What the nodes of a region hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Census {
    pub life: String,
    /// How many sessions.
    pub held: usize,
    pub holders: Vec<String>,
    /// The number of the news up to which this counts.
    pub said: u64,
}

/// # Errors
/// When it is something else.
pub(crate) fn census(value: Value) -> Result<Census, Malformed> {
    let [life, held, holders, said] = parts(value)?;
    let held = usize::try_from(number(held)?).map_err(|_| Malformed("number"))?;
    let holders = list(holders)?.into_iter().map(reply::text).collect::<Result<_, _>>()?;
    Ok(Census { life: reply::text(life)?, held, holders, said: number(said)? })
}

/// A step through what a holder holds, with the members.
pub(crate) struct Holdings {
    pub next: Option<String>,
    pub held: Vec<(Channel, Held)>,
}

/// Members that make no sense are left out.
///
/// # Errors
/// When it is something else.
pub(crate) fn holdings(value: Value) -> Result<Holdings, Malformed> {
    let [_life, cursor, listed] = parts(value)?;
    let cursor = reply::text(cursor)?;
    let mut held = Vec::new();
    let mut words = list(listed)?.into_iter().map(reply::text);
    while let (Some(channel), Some(session), Some(value)) = (words.next(), words.next(), words.next()) {
        let channel = Channel::new(&channel?).map_err(|_| Malformed("channel"));
        match channel.and_then(|channel| Ok((channel, Held::parse(&session?, &value?)?))) {
            Ok(one) => held.push(one),
            Err(error) => tracing::error!(%error, "a member of another region is left out"),
        }
    }
    Ok(Holdings { next: Some(cursor).filter(|cursor| cursor != "0"), held })
}

/// Whether each of some sessions is held.
///
/// # Errors
/// When it is something else.
pub(crate) fn standing(value: Value) -> Result<Vec<bool>, Malformed> {
    list(value)?.into_iter().map(|answer| Ok(number(answer)? != 0)).collect()
}

/// A step through what a holder holds: where to go on, if there is more, and channel and session of each.
pub(crate) struct Scanned {
    pub next: Option<String>,
    pub held: Vec<(Channel, SessionId)>,
}

/// # Errors
/// When it is something else.
pub(crate) fn scanned(value: Value) -> Result<Scanned, Malformed> {
    let [cursor, entries] = parts(value)?;
    let cursor = reply::text(cursor)?;
    let mut held = Vec::new();
    for entry in list(entries)? {
        match reply::text(entry).ok().as_deref().and_then(channel_and_session) {
            Some(one) => held.push(one),
            None => tracing::error!("an entry of what is held makes no sense"),
        }
    }
    Ok(Scanned { next: Some(cursor).filter(|cursor| cursor != "0"), held })
}

fn channel_and_session(entry: &str) -> Option<(Channel, SessionId)> {
    let (channel, session) = entry.split_once('\u{1f}')?;
    Some((Channel::new(channel).ok()?, Text::new(session).ok()?))
}

fn parts<const COUNT: usize>(value: Value) -> Result<[Value; COUNT], Malformed> {
    list(value)?.try_into().map_err(|_| Malformed("answer"))
}

fn list(value: Value) -> Result<Vec<Value>, Malformed> {
    match value {
        Value::Array(list) => Ok(list),
        _ => Err(Malformed("answer")),
    }
}

fn number(value: Value) -> Result<u64, Malformed> {
    reply::text(value)?.parse().map_err(|_| Malformed("number"))
}
