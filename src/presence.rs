//! Who is on which channel of this node; changes are batched, and a short absence is not told.

use crate::{broadcast::Broadcast, broker::wall_ms, config::NamespaceConfig, hub::Hub};
use parking_lot::Mutex;
use skywave_protocol::{
    Channel, Json,
    frame::{Member, Members, PresenceChanged, SessionId},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// The most members that one answer lists; the count is exact beyond it.
pub const MAX_MEMBERS: usize = 1000;

/// Presence of all channels of this node.
pub struct Presence {
    hub: Arc<Hub>,
    namespaces: BTreeMap<String, NamespaceConfig>,
    state: Mutex<State>,
    stays: AtomicU64,
    /// Something is due earlier than before.
    changed: Notify,
}

#[derive(Default)]
struct State {
    channels: HashMap<Channel, Room>,
    due: BTreeMap<Instant, Vec<Due>>,
}

/// What is to be done at its time.
enum Due {
    /// Tell the channel's changes.
    Flush(Channel),
    /// End the session's absence, if it still is one.
    Leave(Channel, SessionId),
}

/// One channel's members.
#[derive(Default)]
struct Room {
    members: HashMap<SessionId, Resident>,
    /// Members that others were not yet told of.
    joined: HashMap<SessionId, Member>,
    left: HashMap<SessionId, Member>,
    flush_at: Option<Instant>,
}

struct Resident {
    member: Member,
    /// The transport that holds this membership; an older one's end does not end it.
    stay: u64,
    leaves_at: Option<Instant>,
}

/// A session's presence on a channel. Dropped, it ends after the namespace's grace period, unless
/// the same session has come back by then.
pub struct Stay {
    presence: Arc<Presence>,
    channel: Channel,
    session: SessionId,
    stay: u64,
}

impl Stay {
    /// Leaves without grace: the session went on purpose.
    pub fn leave(self) {
        self.presence.depart(&self.channel, &self.session, self.stay, Duration::ZERO);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let grace = self.presence.namespace(&self.channel).map_or(Duration::ZERO, |one| one.presence_grace);
        self.presence.depart(&self.channel, &self.session, self.stay, grace);
    }
}

impl Presence {
    pub fn new(hub: Arc<Hub>, namespaces: BTreeMap<String, NamespaceConfig>) -> Arc<Self> {
        Arc::new(Self {
            hub,
            namespaces,
            state: Mutex::default(),
            stays: AtomicU64::new(0),
            changed: Notify::new(),
        })
    }

    fn namespace(&self, channel: &Channel) -> Option<&NamespaceConfig> {
        self.namespaces.get(channel.namespace()).filter(|namespace| namespace.presence)
    }

    /// The session is on the channel from now on. `None` where the namespace has no presence.
    pub fn arrive(
        self: &Arc<Self>,
        channel: &Channel,
        session: &SessionId,
        user: Option<Arc<str>>,
        data: Option<Json>,
    ) -> Option<Stay> {
        let batch = self.namespace(channel)?.presence_batch;
        let stay = self.stays.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        let room = state.channels.entry(channel.clone()).or_default();
        if let Some(resident) = room.members.get_mut(session) {
            // It came back in time: nothing to tell.
            resident.stay = stay;
            resident.leaves_at = None;
        } else {
            let member = Member { session: session.clone(), user, data, since_ms: wall_ms() };
            room.members.insert(session.clone(), Resident { member: member.clone(), stay, leaves_at: None });
            if room.left.remove(session).is_none() {
                room.joined.insert(session.clone(), member);
            }
            self.flush_after(&mut state, channel, batch);
        }
        Some(Stay { presence: self.clone(), channel: channel.clone(), session: session.clone(), stay })
    }

    fn depart(&self, channel: &Channel, session: &SessionId, stay: u64, grace: Duration) {
        let mut state = self.state.lock();
        let Some(resident) = state.channels.get_mut(channel).and_then(|room| room.members.get_mut(session))
        else {
            return;
        };
        if resident.stay != stay || resident.leaves_at.is_some() {
            return;
        }
        let leaves_at = Instant::now() + grace;
        resident.leaves_at = Some(leaves_at);
        self.schedule(&mut state, leaves_at, Due::Leave(channel.clone(), session.clone()));
    }

    /// Who is there now: all of them counted, the first [`MAX_MEMBERS`] listed.
    pub fn members(&self, channel: &Channel) -> Members {
        let state = self.state.lock();
        let Some(room) = state.channels.get(channel) else { return Members::default() };
        let members = room.members.values().take(MAX_MEMBERS).map(|one| one.member.clone()).collect();
        Members { count: room.members.len() as u64, members }
    }

    fn flush_after(&self, state: &mut State, channel: &Channel, batch: Duration) {
        let Some(room) = state.channels.get_mut(channel) else { return };
        if room.flush_at.is_none() {
            let at = Instant::now() + batch;
            room.flush_at = Some(at);
            self.schedule(state, at, Due::Flush(channel.clone()));
        }
    }

    fn schedule(&self, state: &mut State, at: Instant, due: Due) {
        let first = state.due.first_key_value().is_none_or(|(first, _)| at < *first);
        state.due.entry(at).or_default().push(due);
        if first {
            self.changed.notify_one();
        }
    }

    /// Ends absences that lasted and tells the changes, as they fall due. Runs for the node's life.
    pub async fn run(self: Arc<Self>) {
        loop {
            let next = self.state.lock().due.first_key_value().map(|(at, _)| *at);
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(next) => self.settle(Instant::now()),
            }
        }
    }

    fn settle(&self, now: Instant) {
        let mut changes = Vec::new();
        let mut state = self.state.lock();
        while let Some(entry) = state.due.first_entry() {
            if *entry.key() > now {
                break;
            }
            for due in entry.remove() {
                match due {
                    Due::Flush(channel) => changes.extend(flush(&mut state, channel)),
                    Due::Leave(channel, session) => self.end_absence(&mut state, &channel, &session, now),
                }
            }
        }
        drop(state);
        for change in changes {
            self.hub.presence_changed(&Broadcast::new(change));
        }
    }

    fn end_absence(&self, state: &mut State, channel: &Channel, session: &SessionId, now: Instant) {
        let Some(room) = state.channels.get_mut(channel) else { return };
        let over = |resident: &Resident| resident.leaves_at.is_some_and(|at| at <= now);
        if !room.members.get(session).is_some_and(over) {
            return;
        }
        if let Some(resident) = room.members.remove(session)
            && room.joined.remove(session).is_none()
        {
            room.left.insert(session.clone(), resident.member);
        }
        let batch = self.namespace(channel).map_or(Duration::ZERO, |one| one.presence_batch);
        self.flush_after(state, channel, batch);
    }
}

fn flush(state: &mut State, channel: Channel) -> Option<PresenceChanged> {
    let room = state.channels.get_mut(&channel)?;
    room.flush_at = None;
    let joined: Vec<_> = std::mem::take(&mut room.joined).into_values().collect();
    let left: Vec<_> = std::mem::take(&mut room.left).into_values().collect();
    let count = room.members.len() as u64;
    if count == 0 {
        state.channels.remove(&channel);
    }
    if joined.is_empty() && left.is_empty() {
        return None;
    }
    Some(PresenceChanged { channel, count, joined, left })
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
