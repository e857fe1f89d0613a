//! The members that are here by this node, those included whose transport has just ended.

use crate::{by_session::BySession, claim::Claim};
use parking_lot::Mutex;
use skywave_protocol::{
    Channel,
    frame::{Member, SessionId},
};
use std::collections::HashMap;
use tokio::time::Instant;

/// A member that is here by this node.
#[derive(Debug, Clone)]
pub struct Resident {
    pub member: Member,
    /// That of the transport which holds it now. An older one neither takes it over nor ends it.
    pub claim: Claim,
    /// With nodes that share a Redis: the stay that Redis answered, 0 before. It grows whenever the session passes to
    /// another node. It counts beside nodes of the version before, which tell no claims.
    pub stay: u64,
    /// The last stay by which such a node took the session over.
    taken: u64,
    leaves_at: Option<Instant>,
}

impl Resident {
    pub fn new(member: Member, claim: Claim) -> Self {
        Self { member, claim, stay: 0, taken: 0, leaves_at: None }
    }
}

/// The residents of all channels, in parts that have a lock of their own.
pub struct Shards {
    shards: Vec<Mutex<Residents>>,
    /// The partition of a channel where there are so many.
    partition_of: fn(&Channel, u16) -> u16,
}

impl Shards {
    /// All channels together.
    pub fn of_one() -> Self {
        Self::new(1, |_, _| 0)
    }

    /// By partitions of channels.
    pub fn new(partitions: u16, partition_of: fn(&Channel, u16) -> u16) -> Self {
        Self { shards: (0..partitions.max(1)).map(|_| Mutex::default()).collect(), partition_of }
    }

    pub fn of(&self, channel: &Channel) -> &Mutex<Residents> {
        // There are no more shards than a u16 counts.
        self.part((self.partition_of)(channel, self.shards.len() as u16))
    }

    /// The residents of a partition's channels.
    pub fn part(&self, partition: u16) -> &Mutex<Residents> {
        &self.shards[usize::from(partition)]
    }
}

/// The residents of some channels.
#[derive(Default)]
pub struct Residents {
    channels: HashMap<Channel, BySession<Resident>>,
    len: usize,
}

impl Residents {
    /// Another transport of a session that is here holds it from now on, and shows what its token says. A newer one
    /// goes on to hold it. `false` when the session is not here.
    pub fn take_up(&mut self, channel: &Channel, member: &Member, claim: Claim) -> bool {
        let Some(resident) = self.get_mut(channel, &member.session) else { return false };
        if resident.claim <= claim {
            resident.claim = claim;
            resident.member = Member { since_ms: resident.member.since_ms, ..member.clone() };
            // It may have been elsewhere since the last one was answered.
            resident.stay = 0;
            resident.leaves_at = None;
        }
        true
    }

    pub fn insert(&mut self, channel: &Channel, resident: Resident) {
        let room = self.channels.entry(channel.clone()).or_default();
        if room.insert(resident.member.session.clone(), resident).is_none() {
            self.len += 1;
        }
    }

    /// Begins the session's absence, if this transport still holds it.
    pub(crate) fn leave_at(
        &mut self,
        channel: &Channel,
        session: &SessionId,
        claim: Claim,
        at: Instant,
    ) -> bool {
        match self.get_mut(channel, session) {
            Some(one) if one.claim == claim && one.leaves_at.is_none() => {
                one.leaves_at = Some(at);
                true
            }
            _ => false,
        }
    }

    /// Takes the session out, if its absence is over.
    pub(crate) fn end_absence(
        &mut self,
        channel: &Channel,
        session: &SessionId,
        now: Instant,
    ) -> Option<Resident> {
        let over = self.get(channel, session)?.leaves_at.is_some_and(|at| at <= now);
        if over { self.remove(channel, session) } else { None }
    }

    fn remove(&mut self, channel: &Channel, session: &SessionId) -> Option<Resident> {
        let room = self.channels.get_mut(channel)?;
        let resident = room.remove(session);
        self.len -= usize::from(resident.is_some());
        if room.is_empty() {
            self.channels.remove(channel);
        }
        resident
    }

    pub fn get(&self, channel: &Channel, session: &SessionId) -> Option<&Resident> {
        self.channels.get(channel)?.get(session)
    }

    fn get_mut(&mut self, channel: &Channel, session: &SessionId) -> Option<&mut Resident> {
        self.channels.get_mut(channel)?.get_mut(session)
    }

    /// Redis answered that the session is here since `stay`; with 0, that another node has it by a newer transport.
    pub fn claimed(
        &mut self,
        channel: &Channel,
        session: &SessionId,
        claim: Claim,
        stay: u64,
        since_ms: u64,
    ) {
        let Some(resident) = self.get_mut(channel, session).filter(|one| one.claim == claim) else {
            return;
        };
        resident.stay = resident.stay.max(stay);
        resident.member.since_ms = since_ms;
        if stay == 0 || resident.taken > resident.stay {
            self.remove(channel, session);
        }
    }

    /// Another node took the session over. It is not here any more, unless it came back since.
    pub fn taken(&mut self, channel: &Channel, session: &SessionId, claim: Option<Claim>, stay: u64) {
        let Some(resident) = self.get_mut(channel, session) else { return };
        let is_elsewhere = match claim {
            Some(claim) => claim > resident.claim,
            None => {
                resident.taken = resident.taken.max(stay);
                // Before the answer it is not known which came first.
                resident.stay > 0 && resident.taken > resident.stay
            }
        };
        if is_elsewhere {
            self.remove(channel, session);
        }
    }

    /// How many are here on all channels.
    pub fn total(&self) -> usize {
        self.len
    }

    /// All that are here.
    pub fn all(&self) -> Vec<(Channel, SessionId)> {
        let sessions = |(channel, room): (&Channel, &BySession<Resident>)| {
            let channel = channel.clone();
            room.keys().map(move |session| (channel.clone(), session.clone())).collect::<Vec<_>>()
        };
        self.channels.iter().flat_map(sessions).collect()
    }

    /// How many are here on the channel.
    pub fn count(&self, channel: &Channel) -> u64 {
        self.channels.get(channel).map_or(0, |room| room.len() as u64)
    }

    /// Who is here on the channel.
    pub fn on(&self, channel: &Channel) -> impl Iterator<Item = &Resident> {
        self.channels.get(channel).into_iter().flat_map(BySession::values)
    }
}
