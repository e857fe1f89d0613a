//! The other regions as this node knows them: each one's Redis, kept in reach, and what is done with it.

pub mod addresses;
pub mod bridge;
pub mod identity;
pub mod lease;
pub mod link;

use crate::{
    broker::redis::doubts::Doubts,
    config::Config,
    metrics::Metrics,
    redis::{ConnectError, Redis, Scripts, ownership::Stranger},
};
use addresses::Addresses;
use bridge::Bridge;
use lease::Candidate;
use link::{Links, MeasuredLag};
use parking_lot::Mutex;
use skywave_protocol::position::Origin;
use std::{collections::BTreeMap, sync::Arc};

/// Another region.
#[derive(Clone)]
pub struct Remote {
    pub name: Origin,
    /// Where clients reach it.
    pub url: Arc<str>,
    /// Its Redis; calls fail as unavailable while it cannot be reached.
    pub redis: Redis,
}

impl Remote {
    /// Why its Redis is not used; `None` while it is, or nothing is known of it.
    pub fn stranger(&self) -> Option<Stranger> {
        self.redis.endpoint.ownership.stranger()
    }
}

/// All regions of the deployment, seen from this one.
pub struct Regions {
    pub own: Origin,
    /// This region's Redis.
    pub local: Redis,
    /// In the order of the configuration.
    pub remotes: Vec<Remote>,
}

impl Regions {
    /// Begins to connect to every other region, without waiting.
    ///
    /// # Errors
    /// When a URL makes no sense.
    pub fn reach(
        config: &Config,
        own: Origin,
        local: Redis,
        scripts: Scripts,
        metrics: &Metrics,
    ) -> Result<Self, ConnectError> {
        let addresses =
            Addresses::of(config, scripts).map_err(|_| ConnectError::Url("the region's name is too long"))?;
        let remotes = config.regions.iter().zip(addresses.others).map(|(region, address)| {
            let name = address.region.clone();
            let redis = Redis::reach(&address, &format!("remote-{name}"), metrics.redis.clone())?;
            Ok(Remote { name, url: region.url.as_str().into(), redis })
        });
        Ok(Self { own, local, remotes: remotes.collect::<Result<_, ConnectError>>()? })
    }

    /// The bridges from all other regions, to be run for as long as the node does.
    pub fn bridges(&self, config: &Config, metrics: &Metrics, links: &Arc<Links>) -> Vec<Bridge> {
        let bridge = |remote: &Remote| {
            // Two nodes may have been given one id.
            let holder = format!("{} {:016x}", config.node.id, rand::random::<u64>());
            Bridge {
                remote: remote.clone(),
                local: self.local.clone(),
                candidate: Candidate::new(
                    self.local.clone(),
                    &format!("bridge:{}", remote.name),
                    holder.into(),
                ),
                namespaces: config.channels.clone(),
                log_age: config.broker.log_age,
                metrics: metrics.link(&remote.name),
                reached: Mutex::default(),
                doubts: Doubts::of_all(self.local.keys.partitions()),
                links: links.clone(),
                lag: MeasuredLag::default(),
            }
        };
        self.remotes.iter().map(bridge).collect()
    }

    /// The Redis of each other region.
    pub fn redis_by_name(&self) -> BTreeMap<Origin, Redis> {
        self.remotes.iter().map(|remote| (remote.name.clone(), remote.redis.clone())).collect()
    }
}

/// What a node shares with others.
#[derive(Clone)]
pub enum Sharing {
    /// Nothing: it has no Redis.
    Alone,
    /// Its region's Redis, and the links to the other regions, if there are any.
    WithRegion { regions: Arc<Regions>, links: Arc<Links> },
}

impl Sharing {
    /// The region's Redis; `None` where the node is alone.
    pub fn redis(&self) -> Option<&Redis> {
        match self {
            Self::Alone => None,
            Self::WithRegion { regions, .. } => Some(&regions.local),
        }
    }

    /// The other regions.
    pub fn remotes(&self) -> &[Remote] {
        match self {
            Self::Alone => &[],
            Self::WithRegion { regions, .. } => &regions.remotes,
        }
    }

    /// What is known of the links to them; `None` where the node is alone.
    pub fn links(&self) -> Option<&Arc<Links>> {
        match self {
            Self::Alone => None,
            Self::WithRegion { links, .. } => Some(links),
        }
    }
}
