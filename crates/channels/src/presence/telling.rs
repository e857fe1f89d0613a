//! Tells the subscribers of this node who came and went, in batches.

use super::{
    MAX_MEMBERS,
    schedule::{Due, Schedule},
};
use crate::{broadcast::Broadcast, by_session::BySession, hub::Hub, namespace::Namespaces};
use parking_lot::Mutex;
use skywave_protocol::{
    Channel,
    frame::{Member, PresenceChanged},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The most changes that one `presence_changed` lists.
const MAX_CHANGES: usize = MAX_MEMBERS;

/// Changes that were not told yet, and when they will be.
pub struct Telling {
    hub: Arc<Hub>,
    namespaces: Namespaces,
    pub(super) schedule: Schedule,
    untold: Mutex<HashMap<Channel, Changes>>,
}

/// A change of who is on a channel.
#[derive(Debug, Clone)]
pub enum Change {
    Joined(Member),
    Left(Member),
}

/// What is to be told of one channel.
#[derive(Default)]
struct Changes {
    joined: BySession<Member>,
    left: BySession<Member>,
    count: u64,
    /// The count is told even if nobody is known to have come or gone.
    recount: bool,
    /// When they are told is settled.
    is_due: bool,
    /// Somebody has a list that may show a part of them.
    listed: bool,
    /// A list is being read for somebody. It may show a part of these changes, and of what is heard until it is there.
    reading: bool,
}

impl Changes {
    /// Takes a change in. Joining and leaving of one session cancel out, unless somebody may have a list from between
    /// them; then the later one is told. Beyond the most that can be told, only the count shows it.
    fn add(&mut self, change: Change) {
        let (member, these, others) = match change {
            Change::Joined(member) => (member, &mut self.joined, &mut self.left),
            Change::Left(member) => (member, &mut self.left, &mut self.joined),
        };
        let is_undone = others.remove(&member.session).is_some();
        if (!is_undone || self.listed || self.reading) && these.len() < MAX_CHANGES {
            these.insert(member.session.clone(), member);
        }
    }

    fn told(self, channel: Channel) -> Option<PresenceChanged> {
        let joined: Vec<_> = self.joined.into_values().collect();
        let room = MAX_CHANGES - joined.len();
        let left: Vec<_> = self.left.into_values().take(room).collect();
        if joined.is_empty() && left.is_empty() && !self.recount {
            return None;
        }
        Some(PresenceChanged { channel, count: self.count, joined, left })
    }
}

impl Telling {
    pub fn new(hub: Arc<Hub>, namespaces: Namespaces) -> Self {
        Self { hub, namespaces, schedule: Schedule::default(), untold: Mutex::default() }
    }

    /// Takes in changes after which `count` are there; without any, that so many are there. They are told together
    /// with others, `least` from now or later.
    pub fn add(&self, channel: &Channel, changes: Vec<Change>, count: u64, least: Duration) {
        let mut untold = self.untold.lock();
        let waiting = untold.entry(channel.clone()).or_default();
        if !std::mem::replace(&mut waiting.is_due, true) {
            let flush_at = Instant::now() + self.batch(channel).max(least);
            self.schedule.add(flush_at, Due::Flush(channel.clone()));
        }
        waiting.count = count;
        waiting.recount |= changes.is_empty();
        for change in changes {
            waiting.add(change);
        }
    }

    /// A subscriber has a list that may show a part of what was not told yet.
    pub fn listed(&self, channel: &Channel) {
        if let Some(waiting) = self.untold.lock().get_mut(channel) {
            waiting.listed = true;
        }
    }

    /// A list of the channel is being read for subscribers, or not any more.
    pub fn reads(&self, channel: &Channel, reading: bool) {
        let mut untold = self.untold.lock();
        if reading {
            untold.entry(channel.clone()).or_default().reading = true;
        } else if let Some(waiting) = untold.get_mut(channel) {
            (waiting.reading, waiting.listed) = (false, true);
            if !waiting.is_due {
                untold.remove(channel);
            }
        }
    }

    /// Nobody is there to be told what waits.
    pub fn forget(&self, channel: &Channel) {
        let mut untold = self.untold.lock();
        let reading = untold.remove(channel).is_some_and(|waiting| waiting.reading);
        if reading {
            untold.insert(channel.clone(), Changes { reading, ..Changes::default() });
        }
    }

    /// Corrects the count of what waits to be told; `false` when nothing waits.
    pub fn correct(&self, channel: &Channel, count: u64) -> bool {
        let mut untold = self.untold.lock();
        let Some(waiting) = untold.get_mut(channel).filter(|waiting| waiting.is_due) else { return false };
        waiting.count = count;
        true
    }

    fn batch(&self, channel: &Channel) -> Duration {
        self.namespaces.of(channel).map_or(Duration::ZERO, |one| one.presence_batch)
    }

    /// Tells what has gathered.
    pub fn flush(&self, channel: &Channel) {
        let changes = {
            let mut untold = self.untold.lock();
            let changes = untold.remove(channel);
            if changes.as_ref().is_some_and(|changes| changes.reading) {
                untold.insert(channel.clone(), Changes { reading: true, ..Changes::default() });
            }
            changes
        };
        if let Some(told) = changes.and_then(|changes| changes.told(channel.clone())) {
            self.hub.presence_changed(&Broadcast::new(told));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::Text;

    fn telling() -> (Telling, Channel) {
        let telling = Telling::new(Arc::default(), Namespaces::default());
        (telling, Channel::new("chat:1").unwrap())
    }

    fn one() -> Member {
        Member { session: Text::new("s1").unwrap(), user: None, data: None, since_ms: 1 }
    }

    /// What would be told now of who comes and leaves again.
    fn told_of_one_who_comes_and_leaves(telling: &Telling, channel: &Channel) -> Option<PresenceChanged> {
        telling.add(channel, vec![Change::Joined(one())], 1, Duration::ZERO);
        telling.add(channel, vec![Change::Left(one())], 0, Duration::ZERO);
        let told = std::mem::take(telling.untold.lock().get_mut(channel).unwrap());
        told.told(channel.clone())
    }

    #[test]
    fn who_comes_and_leaves_at_once_is_not_told_unless_a_list_may_show_them() {
        let (telling, channel) = telling();
        assert_eq!(told_of_one_who_comes_and_leaves(&telling, &channel), None);
        telling.reads(&channel, true);
        assert_eq!(told_of_one_who_comes_and_leaves(&telling, &channel).unwrap().left, [one()]);
    }

    #[test]
    fn while_a_list_is_read_what_is_told_meanwhile_ends_nothing_and_then_nothing_is_kept() {
        let (telling, channel) = telling();
        telling.reads(&channel, true);
        telling.add(&channel, vec![Change::Joined(one())], 1, Duration::ZERO);
        telling.flush(&channel);
        assert!(telling.untold.lock()[&channel].reading);
        telling.reads(&channel, false);
        assert!(telling.untold.lock().is_empty());
        // With something that waits to be told, it is a list that may show a part of that.
        telling.reads(&channel, true);
        telling.add(&channel, vec![Change::Joined(one())], 1, Duration::ZERO);
        telling.reads(&channel, false);
        telling.add(&channel, vec![Change::Left(one())], 0, Duration::ZERO);
        let told = telling.untold.lock().remove(&channel).unwrap().told(channel);
        assert_eq!(told.unwrap().left, [one()]);
    }
}
