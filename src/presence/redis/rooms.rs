//! The channels whose changes subscribers of this node are told, and what they were told last.

use super::held::{Held, News};
use crate::{
    hub::Hub,
    presence::{
        MAX_MEMBERS,
        telling::{Change, Telling},
    },
};
use parking_lot::Mutex;
use skywave_protocol::{
    Channel,
    frame::{Member, Members, SessionId},
};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// What is swept from a channel is told together even where changes are told at once.
const SWEEP_BATCH: Duration = Duration::from_millis(500);

/// News that a list shows may be heard so much later than the list.
const LAG: Duration = Duration::from_secs(2);

/// All watched channels.
pub struct Rooms {
    hub: Arc<Hub>,
    telling: Arc<Telling>,
    rooms: Mutex<HashMap<Channel, Room>>,
}

/// One channel, as its subscribers know it once all that waits has been told.
#[derive(Default)]
struct Room {
    /// All of its members while they are few; only then can it be said who was missed.
    everyone: Option<HashMap<SessionId, Member>>,
    count: Option<u64>,
}

impl Room {
    fn joined(&mut self, held: Held) -> Change {
        if let Some(everyone) = &mut self.everyone {
            everyone.insert(held.member.session.clone(), held.member.clone());
        }
        self.everyone.take_if(|everyone| everyone.len() > MAX_MEMBERS);
        Change::Joined(held.member)
    }

    fn left(&mut self, held: Held) -> Change {
        if let Some(everyone) = &mut self.everyone {
            everyone.remove(&held.member.session);
        }
        Change::Left(held.member)
    }

    fn lacks(&self, session: &SessionId) -> bool {
        self.everyone.as_ref().is_some_and(|everyone| !everyone.contains_key(session))
    }

    /// Takes `members` for who is there; answers how that differs.
    fn replace(&mut self, members: &Members) -> Vec<Change> {
        let listed = members.members.iter().map(|member| (member.session.clone(), member.clone()));
        let new: Option<HashMap<_, _>> = is_complete(members).then(|| listed.collect());
        let mut changes = Vec::new();
        if let (Some(old), Some(new)) = (&self.everyone, &new) {
            let lacking = |member: &&Member, from: &HashMap<_, _>| !from.contains_key(&member.session);
            let joined = new.values().filter(|member| lacking(member, old)).cloned();
            let left = old.values().filter(|member| lacking(member, new)).cloned();
            changes.extend(joined.map(Change::Joined).chain(left.map(Change::Left)));
        }
        self.everyone = new;
        changes
    }
}

fn is_complete(members: &Members) -> bool {
    members.count == members.members.len() as u64
}

impl Rooms {
    pub fn new(hub: Arc<Hub>, telling: Arc<Telling>) -> Self {
        Self { hub, telling, rooms: Mutex::default() }
    }

    /// Tells the channel's subscribers what changed. Until things are `settled`, numbers alone are not told.
    pub fn heard(&self, news: News, settled: bool) {
        let News { channel, count, joined, back, left, swept, .. } = news;
        let watched = self.hub.is_watched(&channel);
        let mut rooms = self.rooms.lock();
        if !watched {
            // Whoever watches later asks who is there.
            rooms.remove(&channel);
            return;
        }
        let room = rooms.entry(channel.clone()).or_default();
        // A full list may not name everyone.
        let is_full = |list: &[Held]| list.len() >= MAX_MEMBERS;
        room.everyone.take_if(|_| is_full(&joined) || is_full(&back) || is_full(&left));
        let mut changes: Vec<_> = joined.into_iter().map(|one| room.joined(one)).collect();
        for one in back {
            if room.lacks(&one.member.session) {
                changes.push(room.joined(one));
            }
        }
        changes.extend(left.into_iter().map(|one| room.left(one)));
        let least = if swept { SWEEP_BATCH } else { Duration::ZERO };
        let differs = settled && room.count.is_some_and(|told| told != count);
        if changes.is_empty() && differs {
            // Those who are back come in parts.
            room.count = Some(count);
            self.telling.add(&channel, changes, count, SWEEP_BATCH);
        } else if !changes.is_empty() {
            room.count = Some(count);
            self.telling.add(&channel, changes, count, least);
        } else if self.telling.correct(&channel, count) {
            room.count = Some(count);
        }
    }

    /// Who is there is about to be read for subscribers.
    pub fn lists(&self, channel: &Channel) {
        if self.hub.is_watched(channel) {
            self.telling.listed(channel, LAG);
        }
    }

    /// A subscriber is told who is there; from that on it can be said who was missed.
    pub fn listed(&self, channel: &Channel, members: &Members) {
        if self.hub.is_watched(channel) {
            self.telling.listed(channel, LAG);
            let mut rooms = self.rooms.lock();
            let room = rooms.entry(channel.clone()).or_default();
            room.count.get_or_insert(members.count);
            if room.everyone.is_none() {
                room.replace(members);
            }
        }
    }

    /// Tells how who is there differs from what was told.
    pub fn compare(&self, channel: &Channel, members: &Members) {
        let mut rooms = self.rooms.lock();
        let Some(room) = rooms.get_mut(channel) else { return };
        let changes = room.replace(members);
        let differs = room.count.replace(members.count).is_some_and(|count| count != members.count);
        if differs || !changes.is_empty() {
            self.telling.add(channel, changes, members.count, Duration::ZERO);
        }
    }

    /// The watched channels; the others are forgotten.
    pub fn watched(&self) -> Vec<Channel> {
        let channels: Vec<_> = self.rooms.lock().keys().cloned().collect();
        let (watched, others): (Vec<_>, Vec<_>) =
            channels.into_iter().partition(|channel| self.hub.is_watched(channel));
        let mut rooms = self.rooms.lock();
        for channel in others {
            rooms.remove(&channel);
        }
        watched
    }
}
