//! What is asked of Redis about a channel's history, and what it answers.

use super::{Reading, Retained, hand::Room};
use crate::{
    broker::{
        entry::{self, Entry},
        recovery::Head,
        scripts::READ,
        unavailable,
    },
    keys::RegionKeys as _,
};
use redis::Value;
use skywave_channels::broker::BrokerError;
use skywave_protocol::{Channel, Point, Position, Text, position::Origin};
use skywave_redis::{CallError, Commands, Malformed, Request, StreamId, reply};

/// Which entries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    Nothing,
    /// The newest that a reader at this position may miss.
    Missing(&'a Position),
    /// The newest before an entry, or of all.
    Before(Option<StreamId>),
    /// The oldest from an entry on.
    From(StreamId),
}

/// Where a channel stands, and a part of its history in the order in which it was read.
pub(crate) struct Answer {
    pub head: Head,
    /// Those that this node can read.
    pub entries: Vec<Entry>,
    /// The one that was looked at last.
    pub last: Option<StreamId>,
    /// There are no more in this direction.
    pub(crate) exhausted: bool,
    /// Fewer came than were asked for, as more did not fit.
    pub cut: bool,
    /// All of them have their payload.
    pub whole: bool,
    /// Where the channel stands stays longer from now on.
    is_renewed: bool,
}

impl Reading {
    pub(crate) async fn ask(
        &self,
        retained: &Retained,
        part: Part<'_>,
        room: Room,
    ) -> Result<Answer, BrokerError> {
        let (mut commands, request) = (&self.commands, self.request(retained, part, room));
        let mut read = commands.call(request).await;
        if read == Err(CallError::Away) && !commands.is_available() && self.spare.is_available() {
            commands = &self.spare;
            read = commands.call(self.request(retained, part, room)).await;
        }
        let read = read.map_err(unavailable)?;
        let mut answer = self.answer(read, (commands, &retained.channel), room.entries).map_err(|error| {
            tracing::error!(%error, channel = &*retained.channel, "history cannot be read");
            BrokerError::Unavailable
        })?;
        for (origin, point) in retained.over.iter() {
            answer.head.succession.latest.set(origin.clone(), point.clone());
        }
        if answer.is_renewed {
            self.renew_elsewhere(retained);
        }
        Ok(answer)
    }

    /// Has it stay in the other regions as well where the channel stands: here may be all who are subscribed. A region
    /// that cannot be reached is asked the next time.
    fn renew_elsewhere(&self, Retained { channel, position_age, .. }: &Retained) {
        let age_ms = position_age.as_millis().to_string();
        for (region, redis) in &self.others {
            let key = redis.keys.position(channel);
            if redis.commands.send(Request::command(["PEXPIRE", &key, &age_ms, "GT"])).is_err() {
                tracing::debug!(region = &**region, channel = &**channel, "a position is not renewed");
            }
        }
    }

    /// Whether a life of which something was told there is a past one. Then others took over from the server that told
    /// it, which is left.
    pub(crate) fn is_past(&self, commands: &Commands, channel: &Channel, life: &str) -> bool {
        let partition = self.keys.partition(channel);
        let is_past = self.progress.is_past(partition, life);
        if is_past {
            commands.leave_server_of(&self.keys.log(partition));
        }
        is_past
    }

    fn request(&self, retained: &Retained, part: Part<'_>, room: Room) -> Request {
        let Retained { channel, age, position_age, .. } = retained;
        let (order, bound) = match part {
            _ if age.is_none() => ("head", "+".to_owned()),
            Part::Nothing => ("head", "+".to_owned()),
            Part::Missing(_) | Part::Before(None) => ("backward", "+".to_owned()),
            Part::Before(Some(id)) => ("backward", format!("({id}")),
            Part::From(id) => ("forward", id.to_string()),
        };
        let age_ms = age.unwrap_or_default().as_millis();
        let mut args: Vec<Vec<u8>> = [
            order.to_owned(),
            bound,
            room.to_string(),
            age_ms.to_string(),
            self.other_names.clone(),
            channel.to_string(),
            self.own.to_string(),
            position_age.as_millis().to_string(),
        ]
        .map(String::into_bytes)
        .into();
        if let Part::Missing(position) = part {
            for (origin, point) in position.iter() {
                args.push(origin.as_bytes().to_vec());
                args.push(format!("{}:{}", point.epoch, point.offset).into_bytes());
            }
        }
        let partition = self.keys.partition(channel);
        let mut keys = vec![
            self.keys.life(partition),
            self.keys.log(partition),
            self.keys.position(channel),
            self.keys.history(channel),
            self.keys.begun(partition),
        ];
        if !self.others.is_empty() {
            keys.push(self.keys.cursor(partition));
        }
        Request::Script { script: &READ, keys, args }
    }

    fn answer(
        &self,
        value: Value,
        (commands, channel): (&Commands, &Channel),
        wanted: usize,
    ) -> Result<Answer, Malformed> {
        let Value::Array(parts) = value else { return Err(Malformed("answer")) };
        let Ok(
            [
                life,
                fresh_epoch,
                Value::Array(positions),
                Value::Array(entries),
                count,
                whole,
                Value::Array(filled),
                Value::Array(coming),
                over,
                Value::Array(latest),
                Value::Array(beginnings),
                is_renewed,
                Value::Array(firsts),
            ],
        ) = <[Value; 13]>::try_from(parts)
        else {
            return Err(Malformed("answer"));
        };
        let beginnings = points(beginnings)?.into_iter().collect();
        let life = reply::text(life)?;
        let mut head = self.head_of(&life, &reply::text(fresh_epoch)?, positions)?;
        head.succession.latest = points(latest)?.into_iter().collect();
        for (origin, first) in points(firsts)? {
            head.firsts.set(origin, first);
        }
        head.begin(beginnings);
        head.filled = points(filled)?.into_iter().collect();
        head.coming = coming.into_iter().map(origin).collect::<Result<_, _>>()?;
        let is_past = self.is_past(commands, channel, &life);
        if is_past || reply::text(over)? == "1" {
            // What is lost is told once the next life has begun, or is read.
            head.coming.push(self.own.clone());
        }
        let asked: usize = reply::text(count)?.parse().map_err(|_| Malformed("count"))?;
        let exhausted = entries.len() < asked || asked == 0;
        let cut = !exhausted && asked < wanted;
        let whole: usize = reply::text(whole)?.parse().map_err(|_| Malformed("count"))?;
        let mut answer = Answer {
            head,
            last: None,
            exhausted,
            cut,
            whole: whole == entries.len(),
            is_renewed: reply::text(is_renewed)? == "1",
            entries: Vec::with_capacity(entries.len()),
        };
        for value in entries {
            let (id, fields) = reply::parts(value)?;
            answer.last = Some(id);
            match entry::publication(id, fields) {
                Ok(publication) => answer.entries.push(Entry { id, publication }),
                // The tail told of it; who does not get it is told that it is lost.
                Err(error) => tracing::debug!(%error, %id, "an entry of a history is passed over"),
            }
        }
        Ok(answer)
    }

    fn head_of(&self, life: &str, fresh_epoch: &str, positions: Vec<Value>) -> Result<Head, Malformed> {
        let epoch = Text::new(fresh_epoch).map_err(|_| Malformed("epoch"))?;
        let mut head = Head::of(self.own.clone());
        head.position.set(self.own.clone(), Point { epoch, offset: 0 });
        for (origin, point) in points(positions)? {
            // One of an earlier life is past: the next publication begins another epoch.
            if origin != self.own || is_of(life, &point.epoch) {
                head.position.set(origin, point);
            } else if point.offset > 0 {
                head.firsts.set(origin, Point { offset: 0, ..point });
            }
        }
        Ok(head)
    }
}

fn origin(name: Value) -> Result<Origin, Malformed> {
    Text::new(reply::text(name)?).map_err(|_| Malformed("origin"))
}

/// Pairs of origin and point.
fn points(pairs: Vec<Value>) -> Result<Vec<(Origin, Point)>, Malformed> {
    let mut pairs = pairs.into_iter();
    let mut points = Vec::new();
    while let (Some(name), Some(point)) = (pairs.next(), pairs.next()) {
        points.push((origin(name)?, point_of(&reply::text(point)?).ok_or(Malformed("position"))?));
    }
    Ok(points)
}

/// Whether an epoch is one of a life.
pub(crate) fn is_of(life: &str, epoch: &str) -> bool {
    epoch.strip_prefix(life).is_some_and(|turn| turn.starts_with('.'))
}

/// The point that a script writes as `epoch:offset`.
pub(crate) fn point_of(text: &str) -> Option<Point> {
    let (epoch, offset) = text.rsplit_once(':')?;
    Some(Point { epoch: Text::new(epoch).ok()?, offset: offset.parse().ok()? })
}
