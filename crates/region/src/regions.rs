//! All regions of the deployment, seen from one of them.

use skywave_protocol::position::Origin;
use skywave_redis::{Address, ConnectError, Redis, Stranger, metrics::RedisMetrics};
use std::{collections::BTreeMap, sync::Arc};

/// Where another region is.
pub struct Elsewhere {
    pub redis: Address,
    /// Where clients reach it.
    pub url: Arc<str>,
}

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
    /// Begins to connect to every other region, without waiting, from where `local` is connected to.
    ///
    /// # Errors
    /// When a URL makes no sense.
    pub fn reach(
        own: Origin,
        local: Redis,
        others: Vec<Elsewhere>,
        metrics: &RedisMetrics,
    ) -> Result<Self, ConnectError> {
        let remotes = others.into_iter().map(|Elsewhere { redis: address, url }| {
            let name = address.region.clone();
            let redis =
                Redis::reach(&local.endpoint.host, &address, &format!("remote-{name}"), metrics.clone())?;
            Ok(Remote { name, url, redis })
        });
        let remotes = remotes.collect::<Result<_, ConnectError>>()?;
        Ok(Self { own, local, remotes })
    }

    /// The Redis of each other region.
    pub fn redis_by_name(&self) -> BTreeMap<Origin, Redis> {
        self.remotes.iter().map(|remote| (remote.name.clone(), remote.redis.clone())).collect()
    }
}
