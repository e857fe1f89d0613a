//! Tells the subscribers of this node who came and went, in batches.

use super::{
    MAX_MEMBERS,
    schedule::{Due, Schedule},
};
use crate::{broadcast::Broadcast, config::NamespaceConfig, hub::Hub};
use parking_lot::Mutex;
use skywave_protocol::{
    Channel,
    frame::{Member, PresenceChanged, SessionId},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// The most changes that one `presence_changed` lists.
const MAX_CHANGES: usize = MAX_MEMBERS;

/// Changes that were not told yet, and when they will be.
pub struct Telling {
    hub: Arc<Hub>,
    namespaces: Arc<BTreeMap<String, NamespaceConfig>>,
    schedule: Arc<Schedule>,
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
    joined: HashMap<SessionId, Member>,
    left: HashMap<SessionId, Member>,
    count: u64,
    /// The count is told even if nobody is known to have come or gone.
    recount: bool,
    /// When they are told is settled.
    is_due: bool,
    /// Somebody has, or gets, a list that may show a part of them.
    listed: bool,
    /// Until then such a list may show what is heard later; it is forgotten then.
    listed_until: Option<Instant>,
}

impl Changes {
    /// Takes a change in; joining and leaving of one session cancel out, unless somebody may have a list from between
    /// them: then the later one is told. Beyond the most that can be told, only the count shows it.
    fn add(&mut self, change: Change) {
        let (member, these, others) = match change {
            Change::Joined(member) => (member, &mut self.joined, &mut self.left),
            Change::Left(member) => (member, &mut self.left, &mut self.joined),
        };
        let is_undone = others.remove(&member.session).is_some();
        if (!is_undone || self.listed) && these.len() < MAX_CHANGES {
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
    pub fn new(
        hub: Arc<Hub>,
        namespaces: Arc<BTreeMap<String, NamespaceConfig>>,
        schedule: Arc<Schedule>,
    ) -> Self {
        Self { hub, namespaces, schedule, untold: Mutex::default() }
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

    /// A subscriber has, or gets, a list that may show what was not told yet, or what is heard within `lag`.
    pub fn listed(&self, channel: &Channel, lag: Duration) {
        let mut untold = self.untold.lock();
        if lag.is_zero() {
            if let Some(waiting) = untold.get_mut(channel) {
                waiting.listed = true;
            }
            return;
        }
        let waiting = untold.entry(channel.clone()).or_default();
        waiting.listed = true;
        let until = Instant::now() + lag;
        if waiting.listed_until.replace(until).is_none() {
            self.schedule.add(until, Due::Forget(channel.clone()));
        }
    }

    /// Forgets that a list was given, unless a newer one was.
    pub fn forget_list(&self, channel: &Channel) {
        let mut untold = self.untold.lock();
        let Some(waiting) = untold.get_mut(channel) else { return };
        if let Some(until) = waiting.listed_until.filter(|until| *until > Instant::now()) {
            return self.schedule.add(until, Due::Forget(channel.clone()));
        }
        waiting.listed_until = None;
        if !waiting.is_due {
            untold.remove(channel);
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
        self.namespaces.get(channel.namespace()).map_or(Duration::ZERO, |one| one.presence_batch)
    }

    /// Tells what has gathered.
    pub fn flush(&self, channel: &Channel) {
        let changes = {
            let mut untold = self.untold.lock();
            let changes = untold.remove(channel);
            if let Some(until) = changes.as_ref().and_then(|changes| changes.listed_until) {
                let kept = Changes { listed: true, listed_until: Some(until), ..Changes::default() };
                untold.insert(channel.clone(), kept);
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

    const LAG: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn however_many_lists_are_given_one_time_is_kept_to_forget_them_and_then_none() {
        let schedule = Arc::new(Schedule::default());
        let telling = Telling::new(Arc::default(), Arc::default(), schedule.clone());
        let channel = Channel::new("chat:1").unwrap();
        let member = Member { session: Text::new("s1").unwrap(), user: None, data: None, since_ms: 1 };
        let tell = |forgotten: &mut usize, due: Vec<Due>| {
            for due in due {
                match due {
                    Due::Flush(channel) => telling.flush(&channel),
                    Due::Forget(channel) => {
                        *forgotten += 1;
                        telling.forget_list(&channel);
                    }
                    Due::Leave(..) => {}
                }
            }
        };
        let mut forgotten = 0;
        for _ in 0..100 {
            telling.listed(&channel, LAG);
            telling.add(&channel, vec![Change::Joined(member.clone())], 1, Duration::ZERO);
            tell(&mut forgotten, schedule.due().await);
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        while !telling.untold.lock().is_empty() {
            tell(&mut forgotten, schedule.due().await);
        }
        // In twelve seconds, every two: once it is due a newer list moves it by at most the lag.
        assert!(forgotten <= 7, "{forgotten}");
    }
}
