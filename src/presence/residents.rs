//! The members that are here by this node, those included whose transport has just ended.

use crate::redis::keys::partition_of;
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
    /// The transport that holds it now; an older one's end does not end it.
    transport: u64,
    leaves_at: Option<Instant>,
}

impl Resident {
    pub fn new(member: Member, transport: u64) -> Self {
        Self { member, transport, leaves_at: None }
    }
}

/// The residents of all channels, in parts that have a lock of their own.
pub struct Shards(Vec<Mutex<Residents>>);

impl Shards {
    pub fn new(count: u16) -> Self {
        Self((0..count.max(1)).map(|_| Mutex::default()).collect())
    }

    pub fn of(&self, channel: &Channel) -> &Mutex<Residents> {
        // There are no more shards than a u16 counts.
        &self.0[usize::from(partition_of(channel, self.0.len() as u16))]
    }
}

/// The residents of some channels.
#[derive(Default)]
pub struct Residents {
    channels: HashMap<Channel, HashMap<SessionId, Resident>>,
}

impl Residents {
    /// Another transport of a session that is here holds it from now on. `false` when the session is not here.
    pub fn take_up(&mut self, channel: &Channel, session: &SessionId, transport: u64) -> bool {
        let Some(resident) = self.get_mut(channel, session) else { return false };
        resident.transport = transport;
        resident.leaves_at = None;
        true
    }

    pub fn insert(&mut self, channel: &Channel, resident: Resident) {
        let room = self.channels.entry(channel.clone()).or_default();
        room.insert(resident.member.session.clone(), resident);
    }

    /// Begins the session's absence, if this transport still holds it.
    pub fn leave_at(&mut self, channel: &Channel, session: &SessionId, transport: u64, at: Instant) -> bool {
        match self.get_mut(channel, session) {
            Some(one) if one.transport == transport && one.leaves_at.is_none() => {
                one.leaves_at = Some(at);
                true
            }
            _ => false,
        }
    }

    /// Takes the session out, if its absence is over.
    pub fn end_absence(&mut self, channel: &Channel, session: &SessionId, now: Instant) -> Option<Resident> {
        let over = self.get(channel, session)?.leaves_at.is_some_and(|at| at <= now);
        if over { self.remove(channel, session) } else { None }
    }

    fn remove(&mut self, channel: &Channel, session: &SessionId) -> Option<Resident> {
        let room = self.channels.get_mut(channel)?;
        let resident = room.remove(session);
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

    /// How many are here on the channel.
    pub fn count(&self, channel: &Channel) -> u64 {
        self.channels.get(channel).map_or(0, |room| room.len() as u64)
    }

    /// Who is here on the channel.
    pub fn on(&self, channel: &Channel) -> impl Iterator<Item = &Resident> {
        self.channels.get(channel).into_iter().flat_map(HashMap::values)
    }
}
