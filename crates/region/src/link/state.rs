//! What is known of a link, as its leader writes it down for the other nodes of the region.

use super::{Regions, WRITE_INTERVAL};
use crate::keys::RegionKeys as _;
use futures_util::future::join_all;
use redis::Value;
use serde::{Deserialize, Serialize};
use skywave_protocol::{heartbeat::Direction, position::Origin};
use skywave_redis::{Malformed, Redis, Request, reply};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What was written and not renewed is believed for so long: by then another node leads, or none.
const LIFETIME: Duration = Duration::from_secs(4);
const _: () = assert!(LIFETIME.as_millis() >= 3 * WRITE_INTERVAL.as_millis());

/// A link as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// No node of the region leads it, or its leader has not heard enough yet.
    #[default]
    Unknown,
    /// Beats go both ways.
    Up,
    /// In one direction at least they do not.
    Suspected,
}

impl From<Direction> for Condition {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Unknown => Self::Unknown,
            Direction::Up => Self::Up,
            Direction::Suspected => Self::Suspected,
        }
    }
}

/// What the region knows of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// The node that leads it; `None` when none does, as far as is known.
    pub leader: Option<Arc<str>>,
    /// Whether our beats are acknowledged there.
    pub outbound: Direction,
    /// Whether the other region's beats come.
    pub inbound: Direction,
    /// Whether our beats come, as the other region's last beat said.
    pub is_heard: Option<bool>,
    /// The smoothed round-trip time.
    pub srtt: Option<Duration>,
    /// For how long publications of the other region may have waited to be applied here.
    pub lag: Duration,
    /// That is longer than `failover.link_lag`.
    pub lagging: bool,
}

impl LinkState {
    /// The link as a whole: as bad as its worse direction.
    pub fn condition(&self) -> Condition {
        match (self.outbound, self.inbound) {
            (Direction::Suspected, _) | (_, Direction::Suspected) => Condition::Suspected,
            (Direction::Up, Direction::Up) => Condition::Up,
            (Direction::Unknown, _) | (_, Direction::Unknown) => Condition::Unknown,
        }
    }

    /// What the two directions together mean.
    pub(super) fn in_words(&self) -> &'static str {
        match (self.outbound, self.inbound) {
            (Direction::Suspected, Direction::Suspected | Direction::Unknown) => {
                "neither region's beats reach the other"
            }
            (Direction::Suspected, Direction::Up) => {
                "cut one way: our beats are not acknowledged there, while the other region's come"
            }
            (_, Direction::Suspected) => {
                "cut one way: the other region's beats do not come, while ours are acknowledged there"
            }
            (Direction::Unknown | Direction::Up, Direction::Unknown | Direction::Up) => "it is not",
        }
    }

    /// Writes it down, without waiting: while Redis is away nobody can read it either.
    pub(super) fn write(&self, local: &Redis, name: &Origin) {
        let key = local.keys.link_state(name);
        let written = match serde_json::to_string(&Written::of(self)) {
            Ok(written) => written,
            Err(error) => {
                tracing::error!(%error, "a link's state cannot be written down");
                return;
            }
        };
        let lifetime_ms = LIFETIME.as_millis().to_string();
        if local.commands.send(Request::command(["SET", &key, &written, "PX", &lifetime_ms])).is_err() {
            tracing::debug!(link = &**name, "a link's state is not written down: Redis is away");
        }
    }

    pub(super) async fn read(local: &Redis, name: &Origin) -> Self {
        let key = local.keys.link_state(name);
        let written = match local.commands.call(Request::command(["GET", &key])).await {
            Ok(Value::Nil) | Err(_) => return Self::default(),
            Ok(value) => value,
        };
        match Written::parse(written) {
            Ok(written) => written.into(),
            Err(error) => {
                tracing::warn!(%error, key, "a link's state is passed over");
                Self::default()
            }
        }
    }
}

/// What every node knows of its region's links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStates(BTreeMap<Origin, LinkState>);

impl LinkStates {
    pub(super) fn unknown(regions: &Regions) -> Self {
        Self(regions.remotes.iter().map(|remote| (remote.name.clone(), LinkState::default())).collect())
    }

    /// What is written down; unknown where nothing is.
    pub(super) async fn read(regions: &Regions) -> Self {
        let reading = regions
            .remotes
            .iter()
            .map(async |remote| (remote.name.clone(), LinkState::read(&regions.local, &remote.name).await));
        Self(join_all(reading).await.into_iter().collect())
    }

    /// By the regions' names.
    pub fn iter(&self) -> impl Iterator<Item = (&Origin, &LinkState)> {
        self.0.iter()
    }

    pub fn get(&self, region: &str) -> Option<&LinkState> {
        self.0.iter().find(|(name, _)| &***name == region).map(|(_, state)| state)
    }

    /// Whether none of the other regions can be reached, and there are any. Then what they publish does not come. What
    /// this region publishes they fetch themselves; this region cannot know that.
    pub fn is_isolated(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|state| state.outbound == Direction::Suspected)
    }

    /// The regions whose link is up and whose distance is known, the nearest first.
    pub fn nearest(&self) -> Vec<&Origin> {
        let up = self.0.iter().filter(|(_, state)| state.condition() == Condition::Up);
        let mut near: Vec<_> = up.filter_map(|(name, state)| Some((state.srtt?, name))).collect();
        near.sort();
        near.into_iter().map(|(_, name)| name).collect()
    }
}

/// How a state stands in Redis.
#[derive(Serialize, Deserialize)]
struct Written {
    leader: Arc<str>,
    outbound: WrittenDirection,
    inbound: WrittenDirection,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_heard: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    srtt_us: Option<u64>,
    lag_ms: u64,
    lagging: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenDirection {
    Unknown,
    Up,
    Suspected,
}

impl Written {
    fn of(state: &LinkState) -> Self {
        Self {
            leader: state.leader.clone().unwrap_or_default(),
            outbound: state.outbound.into(),
            inbound: state.inbound.into(),
            is_heard: state.is_heard,
            // No round trip is believed that is longer than a minute.
            srtt_us: state.srtt.map(|srtt| srtt.as_micros() as u64),
            lag_ms: u64::try_from(state.lag.as_millis()).unwrap_or(u64::MAX),
            lagging: state.lagging,
        }
    }

    fn parse(value: Value) -> Result<Self, Malformed> {
        serde_json::from_slice(&reply::bytes(value)?).map_err(|_| Malformed("state of a link"))
    }
}

impl From<Written> for LinkState {
    fn from(written: Written) -> Self {
        Self {
            leader: Some(written.leader),
            outbound: written.outbound.into(),
            inbound: written.inbound.into(),
            is_heard: written.is_heard,
            srtt: written.srtt_us.map(Duration::from_micros),
            lag: Duration::from_millis(written.lag_ms),
            lagging: written.lagging,
        }
    }
}

impl From<Direction> for WrittenDirection {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Unknown => Self::Unknown,
            Direction::Up => Self::Up,
            Direction::Suspected => Self::Suspected,
        }
    }
}

impl From<WrittenDirection> for Direction {
    fn from(direction: WrittenDirection) -> Self {
        match direction {
            WrittenDirection::Unknown => Self::Unknown,
            WrittenDirection::Up => Self::Up,
            WrittenDirection::Suspected => Self::Suspected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Suspected, Unknown, Up};
    use skywave_protocol::Text;

    fn state(outbound: Direction, inbound: Direction, srtt_ms: Option<u64>) -> LinkState {
        LinkState { outbound, inbound, srtt: srtt_ms.map(Duration::from_millis), ..LinkState::default() }
    }

    fn states(links: &[(&str, LinkState)]) -> LinkStates {
        let links = links.iter().map(|(name, state)| (Text::new(*name).unwrap(), state.clone()));
        LinkStates(links.collect())
    }

    #[test]
    fn a_link_is_up_only_if_both_directions_are() {
        assert_eq!(state(Up, Up, None).condition(), Condition::Up);
        assert_eq!(state(Up, Suspected, None).condition(), Condition::Suspected);
        assert_eq!(state(Suspected, Up, None).condition(), Condition::Suspected);
        assert_eq!(state(Unknown, Up, None).condition(), Condition::Unknown);
        assert_eq!(LinkState::default().condition(), Condition::Unknown);
    }

    #[test]
    fn a_region_is_isolated_when_it_reaches_no_other() {
        let (cut, one_way) = (state(Suspected, Suspected, None), state(Suspected, Up, None));
        assert!(states(&[("us", cut.clone()), ("ap", one_way)]).is_isolated());
        for reached in [state(Up, Up, None), state(Up, Suspected, None), LinkState::default()] {
            assert!(!states(&[("us", cut.clone()), ("ap", reached)]).is_isolated());
        }
        assert!(!LinkStates::default().is_isolated());
    }

    #[test]
    fn the_nearest_region_comes_first_and_one_that_is_not_up_not_at_all() {
        let states = states(&[
            ("ap", state(Up, Up, Some(160))),
            ("cut", state(Suspected, Up, Some(1))),
            ("new", LinkState::default()),
            ("us", state(Up, Up, Some(80))),
        ]);
        let near: Vec<&str> = states.nearest().into_iter().map(|name| &**name).collect();
        assert_eq!(near, ["us", "ap"]);
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let state = LinkState {
            leader: Some("eu-1".into()),
            is_heard: Some(false),
            lag: Duration::from_millis(1_500),
            lagging: true,
            ..state(Up, Suspected, Some(80))
        };
        let written = serde_json::to_vec(&Written::of(&state)).unwrap();
        assert_eq!(LinkState::from(Written::parse(Value::BulkString(written)).unwrap()), state);
        assert!(Written::parse(Value::BulkString(b"{\"outbound\":1}".to_vec())).is_err());
    }
}
