//! Who is on which channel; changes are told in batches, and a short absence is not told.

mod memory;
pub mod redis;
mod residents;
mod schedule;
mod telling;

use self::redis::RedisRoster;
pub use self::redis::mirror;
use crate::{
    broker::{BrokerError, wall_ms},
    claim::Claim,
    config::NamespaceConfig,
    hub::Hub,
    redis::{ConnectError, Redis},
};
use futures_util::future::BoxFuture;
use memory::MemoryRoster;
use residents::{Resident, Residents, Shards};
use schedule::{Due, Schedule};
use skywave_protocol::{
    Channel, Json,
    frame::{Member, Members, SessionId},
    heartbeat::HeartbeatConfig,
};
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};
use telling::Telling;
use tokio::{task::JoinSet, time::Instant};

/// The most members that one answer lists; the count is exact beyond it.
pub const MAX_MEMBERS: usize = 1000;

/// The bounds of a node's lease.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(30);
/// The part of it that may have passed when a node falls silent (2 s), what a client waits for longer while it knows
/// little of its path, and what it takes to get to another node.
const MOVING: Duration = Duration::from_secs(8);

/// For how long the members of a node that does not renew are held: longer than a client in the foreground takes to
/// notice (1.1 × `foreground_max`) and to move, so that its moving is not told. 10 to 30 s.
pub fn lease(heartbeat: &HeartbeatConfig) -> Duration {
    (heartbeat.foreground_max.mul_f64(1.2) + MOVING).clamp(*LEASE.start(), *LEASE.end())
}

/// Where the members of all nodes that share channels are known.
///
/// All but `members` are called in order, with the residents locked; they never block.
trait Roster: Send + Sync {
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
    namespaces: Arc<BTreeMap<String, NamespaceConfig>>,
    shards: Arc<Shards>,
    schedule: Arc<Schedule>,
    telling: Arc<Telling>,
    roster: Box<dyn Roster>,
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
    pub fn of_node(hub: Arc<Hub>, namespaces: BTreeMap<String, NamespaceConfig>) -> Arc<Self> {
        let namespaces = Arc::new(namespaces);
        let shards = Arc::new(Shards::new(1));
        let schedule = Arc::new(Schedule::default());
        let telling = Arc::new(Telling::new(hub, namespaces.clone(), schedule.clone()));
        let roster = Box::new(MemoryRoster::new(shards.clone(), telling.clone()));
        Arc::new(Self { namespaces, shards, schedule, telling, roster })
    }

    /// Presence of a node that shares its channels with those that use the same Redis. When the node is gone, its
    /// members leave after `lease` (see [`lease`]).
    ///
    /// # Errors
    /// See [`ConnectError`]. Once connected, a connection that breaks is made anew for as long as it takes.
    pub async fn of_region(
        hub: Arc<Hub>,
        namespaces: BTreeMap<String, NamespaceConfig>,
        redis: Redis,
        node: &str,
        lease: Duration,
        tasks: &mut JoinSet<()>,
    ) -> Result<Arc<Self>, ConnectError> {
        let namespaces = Arc::new(namespaces);
        let shards = Arc::new(Shards::new(redis.keys.partitions()));
        let schedule = Arc::new(Schedule::default());
        let telling = Arc::new(Telling::new(hub.clone(), namespaces.clone(), schedule.clone()));
        // A node that is started again does not hold what it held before.
        let holder = format!("{node}.{:010x}", rand::random::<u64>() >> 24).into();
        let parts = (shards.clone(), hub, telling.clone());
        let roster = Box::new(RedisRoster::start(redis, holder, lease, parts, tasks).await?);
        Ok(Arc::new(Self { namespaces, shards, schedule, telling, roster }))
    }

    fn namespace(&self, channel: &Channel) -> Option<&NamespaceConfig> {
        self.namespaces.get(channel.namespace()).filter(|namespace| namespace.presence)
    }

    /// The session is on the channel from now on, by the transport with this claim; unless it is there by a newer
    /// transport, which stays. `None` where the namespace has no presence.
    pub fn arrive(
        self: &Arc<Self>,
        channel: &Channel,
        (session, claim): (&SessionId, Claim),
        user: Option<Arc<str>>,
        data: Option<Json>,
    ) -> Option<Stay> {
        self.namespace(channel)?;
        let mut residents = self.shards.of(channel).lock();
        let member = Member { session: session.clone(), user, data, since_ms: wall_ms() };
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
            self.schedule.add(leaves_at, Due::Leave(channel.clone(), session.clone()));
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
            for due in self.schedule.due().await {
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

#[cfg(test)]
mod tests {
    use super::*;
    use skywave_protocol::heartbeat::{Action, Activity, Heartbeat, PathKind};

    /// The longest for which a client may take a silent connection for a live one, after the first two pings.
    fn longest_silence(config: &HeartbeatConfig, path: PathKind) -> Duration {
        let mut now = std::time::Instant::now();
        let mut heartbeat = Heartbeat::new(config, path, Activity::Foreground, now);
        let mut pings = 0;
        while pings < 2 {
            match heartbeat.poll(now) {
                Action::Wait(at) => now = at,
                Action::Ping { seq } => {
                    pings += 1;
                    now += Duration::from_millis(20);
                    heartbeat.pong(seq, now);
                }
                Action::Dead => panic!("it answers"),
            }
        }
        heartbeat.schedule().interval + heartbeat.schedule().timeout
    }

    #[test]
    fn a_client_in_the_foreground_has_time_to_move_before_the_lease_ends() {
        for seconds in [5, 10, 15] {
            let heartbeat = HeartbeatConfig {
                foreground_max: Duration::from_secs(seconds),
                ..HeartbeatConfig::default()
            };
            for path in [PathKind::Udp, PathKind::Tcp] {
                let time_to_move = lease(&heartbeat).saturating_sub(longest_silence(&heartbeat, path));
                assert!(time_to_move >= Duration::from_secs(4), "{path:?}, {seconds} s: {time_to_move:?}");
            }
        }
    }

    #[test]
    fn no_member_of_a_node_that_is_gone_is_held_for_longer_than_half_a_minute() {
        let lease_of = |seconds| {
            lease(&HeartbeatConfig {
                foreground_max: Duration::from_secs(seconds),
                ..HeartbeatConfig::default()
            })
            .as_secs()
        };
        assert_eq!([1, 10, 300].map(lease_of), [10, 20, 30]);
    }
}
