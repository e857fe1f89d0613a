//! What a holder of presence asks of Redis.

use super::{
    held, mirror,
    scripts::{ARRIVE, CENSUS, DEPART, HOLDINGS, MEMBERS, RENEW, STANDING, SWEEP},
};
use crate::keys::RegionKeys as _;
use skywave_channels::{
    claim::Claim,
    presence::{MAX_MEMBERS, residents::Resident},
};
use skywave_protocol::{Channel, frame::SessionId};
use skywave_redis::{Keys, Request, Script};
use std::{sync::Arc, time::Duration};

/// The most sessions that one call removes.
const SWEPT: usize = 5_000;
/// About how many entries one step of a scan looks at.
const SCANNED: usize = 500;

/// That a session is on a channel.
pub(crate) struct Hold {
    pub channel: Channel,
    pub session: SessionId,
    /// 0 for an arrival, which is not answered yet.
    pub stay: u64,
    pub since_ms: u64,
    /// As [`held::details`] has them.
    pub details: String,
}

impl Hold {
    pub(crate) fn of(channel: &Channel, resident: &Resident) -> Self {
        let member = &resident.member;
        Self {
            channel: channel.clone(),
            session: member.session.clone(),
            stay: resident.stay,
            since_ms: member.since_ms,
            details: held::details(member, Some(resident.claim)),
        }
    }
}

/// How others are told of those who were not there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Announce {
    Joined,
    /// They are missing by mistake.
    Back,
}

/// That a session is on a channel no longer.
pub(crate) struct Release {
    pub channel: Channel,
    pub session: SessionId,
    /// Of the last transport whose stay ends; absent for any, or where `stay` says it.
    pub claim: Option<Claim>,
    /// The last one that ends; 0 for any.
    pub stay: u64,
}

/// Requests in the name of one holder.
#[derive(Clone)]
pub(crate) struct Requests {
    pub keys: Keys,
    pub holder: Arc<str>,
    /// For how long it holds without renewing.
    pub lease: Duration,
}

impl Requests {
    /// For scripts that begin with `rooms.lua`.
    fn script(
        &self,
        script: &'static Script,
        partition: u16,
        args: impl IntoIterator<Item = Vec<u8>>,
    ) -> Request {
        let mut all = vec![self.keys.presence_news(partition).into_bytes()];
        all.extend(args);
        Request::Script {
            script,
            keys: vec![self.keys.life(partition), self.keys.log(partition), self.keys.holders(partition)],
            args: all,
        }
    }

    fn lease_ms(&self) -> Vec<u8> {
        number(self.lease.as_millis() as u64)
    }

    /// All are of one partition. Answers stay and since when of each.
    pub(crate) fn arrive(&self, partition: u16, announce: Announce, holds: Vec<Hold>) -> Request {
        let announce: &[u8] = match announce {
            Announce::Joined => b"joined",
            Announce::Back => b"back",
        };
        let head = [self.holder.as_bytes().to_vec(), self.lease_ms(), announce.to_vec()];
        let holds = holds.into_iter().flat_map(|hold| {
            [
                hold.channel.as_bytes().to_vec(),
                hold.session.as_bytes().to_vec(),
                number(hold.stay),
                number(hold.since_ms),
                hold.details.into_bytes(),
            ]
        });
        self.script(&ARRIVE, partition, head.into_iter().chain(holds))
    }

    /// All releases are of one partition.
    pub(crate) fn depart(&self, partition: u16, releases: Vec<Release>) -> Request {
        let head = [self.holder.as_bytes().to_vec()];
        let releases = releases.into_iter().flat_map(|one| {
            let claim = one.claim.map(held::claim).unwrap_or_default();
            let (channel, session) = (one.channel.as_bytes().to_vec(), one.session.as_bytes().to_vec());
            [channel, session, number(one.stay), claim.into_bytes()]
        });
        self.script(&DEPART, partition, head.into_iter().chain(releases))
    }

    /// Takes sessions back, whenever they came; none to take back is no request. All are of one partition.
    pub(crate) fn take_back<'a>(
        &self,
        partition: u16,
        places: impl Iterator<Item = &'a (Channel, SessionId)>,
    ) -> Option<Request> {
        let release = |(channel, session): &(Channel, SessionId)| Release {
            channel: channel.clone(),
            session: session.clone(),
            claim: None,
            stay: 0,
        };
        let releases: Vec<_> = places.map(release).collect();
        (!releases.is_empty()).then(|| self.depart(partition, releases))
    }

    /// Answers the holder whose lease had run out, if any, and how many sessions were removed.
    pub(crate) fn sweep(&self, partition: u16) -> Request {
        let (asks, patience) = (self.holder.as_bytes().to_vec(), mirror::PATIENCE.as_millis() as u64);
        let args = [number(SWEPT as u64), asks, self.lease_ms(), number(patience)];
        self.script(&SWEEP, partition, args)
    }

    /// Answers the life, how many sessions are held, and whether the lease had run out.
    pub(crate) fn renew(&self, partition: u16) -> Request {
        Request::Script {
            script: &RENEW,
            keys: vec![
                self.keys.life(partition),
                self.keys.log(partition),
                self.keys.holders(partition),
                self.keys.held_by(partition, &self.holder),
            ],
            args: vec![self.holder.as_bytes().to_vec(), self.lease_ms()],
        }
    }

    /// Answers how many are there, and who.
    pub(crate) fn members(&self, channel: &Channel) -> Request {
        let partition = self.keys.partition(channel);
        Request::Script {
            script: &MEMBERS,
            keys: vec![self.keys.life(partition), self.keys.log(partition), self.keys.room(channel)],
            args: vec![number(MAX_MEMBERS as u64)],
        }
    }

    /// Answers how many sessions the nodes of a region hold. One whose lease ran out counts for `patience` more.
    pub(crate) fn census(&self, partition: u16, patience: Duration) -> Request {
        self.script(&CENSUS, partition, [number(patience.as_millis() as u64)])
    }

    /// A step through what any holder holds, with about `count` of its members.
    pub(crate) fn holdings(&self, partition: u16, holder: &str, cursor: &str, count: usize) -> Request {
        let args = [holder.as_bytes().to_vec(), cursor.as_bytes().to_vec(), number(count as u64)];
        self.script(&HOLDINGS, partition, args)
    }

    /// Answers whether the nodes of a region hold each of these sessions, all of one partition. Only nodes that count
    /// in a [`Self::census`] do.
    pub(super) fn standing(
        &self,
        partition: u16,
        patience: Duration,
        places: &[(Channel, SessionId)],
    ) -> Request {
        let words = |(channel, session): &(Channel, SessionId)| {
            [channel.as_bytes().to_vec(), session.as_bytes().to_vec()]
        };
        let head = [number(patience.as_millis() as u64)];
        self.script(&STANDING, partition, head.into_iter().chain(places.iter().flat_map(words)))
    }

    /// A step through what the holder holds.
    pub(crate) fn scan(&self, partition: u16, cursor: &str) -> Request {
        let key = self.keys.held_by(partition, &self.holder);
        Request::command(["SSCAN", &key, cursor, "COUNT", &SCANNED.to_string()])
    }
}

fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}
