//! Who is on which channel; changes are told in batches, and a short absence is not told.

mod memory;
pub mod residents;
mod schedule;
pub mod telling;

use crate::{
    broker::BrokerError,
    claim::Claim,
    hub::Hub,
    namespace::{NamespaceConfig, Namespaces},
};
use futures_util::future::BoxFuture;
use memory::MemoryRoster;
use residents::{Resident, Residents, Shards};
use schedule::Due;
use skywave_host::WallClock;
use skywave_protocol::{
    Channel, Json,
    frame::{Member, Members, SessionId},
};
use std::{sync::Arc, time::Duration};
use telling::Telling;
use tokio::time::Instant;

/// The most members that one answer lists; the count is exact beyond it.
pub const MAX_MEMBERS: usize = 1000;

/// Where the members of all nodes that share channels are known.
///
/// All but `members` are called in order, with the residents locked; they never block.
pub trait Roster: Send + Sync {
    /// A session is on the channel that was not on it by this node before.
    fn arrived(&self, residents: &Residents, channel: &Channel, resident: &Resident);

    /// Another transport of a session that is on the channel by this node. It may have been on another node meanwhile.
    fn returned(&self, residents: &Residents, channel: &Channel, resident: &Resident);

    /// A session is on the channel by this node no longer.
    fn departed(&self, residents: &Residents, channel: &Channel, resident: Resident);

    /// Who is there now, what was told before included: all counted, at most [`MAX_MEMBERS`] listed.
    fn members(&self, channel: &Channel) -> BoxFuture<'static, Result<Members, BrokerError>>;
}

/// Presence as a node sees it.
pub struct Presence {
    namespaces: Namespaces,
    shards: Arc<Shards>,
    telling: Arc<Telling>,
    roster: Box<dyn Roster>,
    clock: WallClock,
}

/// A session's presence on a channel. Dropped, it ends after the namespace's grace period, unless
/// the same session has come back by then.
pub struct Stay {
    presence: Arc<Presence>,
    channel: Channel,
    session: SessionId,
    claim: Claim,
}

impl Stay {
    /// Leaves without grace: the session went on purpose.
    pub fn leave(self) {
        self.presence.depart(&self.channel, &self.session, self.claim, Duration::ZERO);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let grace = self.presence.namespace(&self.channel).map_or(Duration::ZERO, |one| one.presence_grace);
        self.presence.depart(&self.channel, &self.session, self.claim, grace);
    }
}

impl Presence {
    /// Presence of a node that shares its channels with no other.
    pub fn of_node(clock: WallClock, hub: Arc<Hub>, namespaces: Namespaces) -> Arc<Self> {
        let shards = Arc::new(Shards::of_one());
        let telling = Arc::new(Telling::new(hub, namespaces.clone()));
        let roster = Box::new(MemoryRoster::new(shards.clone(), telling.clone()));
        Self::new(clock, namespaces, shards, telling, roster)
    }

    /// Presence with a roster that works on the same residents and tells by the same telling.
    pub fn new(
        clock: WallClock,
        namespaces: Namespaces,
        shards: Arc<Shards>,
        telling: Arc<Telling>,
        roster: Box<dyn Roster>,
    ) -> Arc<Self> {
        Arc::new(Self { namespaces, shards, telling, roster, clock })
    }

    fn namespace(&self, channel: &Channel) -> Option<&NamespaceConfig> {
        self.namespaces.of(channel).filter(|namespace| namespace.presence)
    }

    /// The session is on the channel from now on, by the transport with this claim. A newer transport by which it is
    /// there stays. `None` where the namespace has no presence.
    pub fn arrive(
        self: &Arc<Self>,
        channel: &Channel,
        (session, claim): (&SessionId, Claim),
        user: Option<Arc<str>>,
        data: Option<Json>,
    ) -> Option<Stay> {
        self.namespace(channel)?;
        let mut residents = self.shards.of(channel).lock();
        let member = Member { session: session.clone(), user, data, since_ms: self.clock.now_ms() };
        let returns = residents.take_up(channel, &member, claim);
        if !returns {
            residents.insert(channel, Resident::new(member, claim));
        }
        match residents.get(channel, session) {
            // Who came back in time is nothing to tell.
            Some(resident) if returns => self.roster.returned(&residents, channel, resident),
            Some(resident) => self.roster.arrived(&residents, channel, resident),
            None => {}
        }
        Some(Stay { presence: self.clone(), channel: channel.clone(), session: session.clone(), claim })
    }

    fn depart(&self, channel: &Channel, session: &SessionId, claim: Claim, grace: Duration) {
        let leaves_at = Instant::now() + grace;
        if self.shards.of(channel).lock().leave_at(channel, session, claim, leaves_at) {
            self.telling.schedule.add(leaves_at, Due::Leave(channel.clone(), session.clone()));
        }
    }

    /// Who is there now: all of them counted, at most [`MAX_MEMBERS`] listed.
    ///
    /// # Errors
    /// `Unavailable` while those on other nodes cannot be asked for.
    pub fn members(&self, channel: &Channel) -> BoxFuture<'static, Result<Members, BrokerError>> {
        self.roster.members(channel)
    }

    /// Ends absences that lasted and tells the changes, as they fall due. Runs for the node's life.
    pub async fn run(self: Arc<Self>) {
        loop {
            for due in self.telling.schedule.due().await {
                match due {
                    Due::Flush(channel) => self.telling.flush(&channel),
                    Due::Leave(channel, session) => self.end_absence(&channel, &session),
                }
            }
        }
    }

    fn end_absence(&self, channel: &Channel, session: &SessionId) {
        let mut residents = self.shards.of(channel).lock();
        if let Some(resident) = residents.end_absence(channel, session, Instant::now()) {
            self.roster.departed(&residents, channel, resident);
        }
    }
}
