//! The presence of a node without clients: its sessions come and go when they are told to.

use crate::world::config;
use skywave::{
    broker::BrokerError,
    claim::Claim,
    config::{Addresses, Secret},
    host::Host,
    hub::Hub,
    metrics::Metrics,
    presence::{Presence, Stay},
    redis::{Address, Redis},
    region, scripts,
};
use skywave_protocol::{
    Channel, Text,
    frame::{Members, SessionId},
};
use skywave_testing::{RedisServer, soon};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::task::JoinSet;

/// Each arrival is a later attempt than those before.
static ATTEMPTS: AtomicU64 = AtomicU64::new(1_000);

/// Dropped, its node is gone without a farewell.
pub struct Crowd {
    presence: Arc<Presence>,
    _tasks: JoinSet<()>,
}

/// How to reach a Redis by its URL.
pub fn address(redis: &RedisServer, settings: &[(&str, &str)]) -> Address {
    let config = config(redis, settings);
    Addresses::of(&config, scripts::ALL).unwrap().own.unwrap()
}

pub fn named(name: &str) -> SessionId {
    Text::new(name).unwrap()
}

fn channel() -> Channel {
    Channel::new("chat:1").unwrap()
}

impl Crowd {
    pub async fn on(redis: &RedisServer, settings: &[(&str, &str)]) -> Self {
        Self::by("crowd", &redis.url(), redis, settings).await
    }

    /// A node of that name, which reaches the Redis at `url`.
    pub async fn by(name: &str, url: &str, redis: &RedisServer, settings: &[(&str, &str)]) -> Self {
        let address = Address { url: Secret::new(url), ..address(redis, settings) };
        let config = config(redis, settings);
        let lease = region::presence::lease(&config.heartbeat);
        let redis =
            Redis::connect(&Host::machine(), &address, "crowd", Metrics::new().unwrap().redis).await.unwrap();
        let mut tasks = JoinSet::new();
        let hub = Arc::new(Hub::default());
        let presence =
            region::presence::start(hub, config.channels, redis, name, lease, &mut tasks).await.unwrap();
        tasks.spawn(presence.clone().run());
        Self { presence, _tasks: tasks }
    }

    /// A session comes to `chat:1`.
    pub fn arrives(&self, name: &str) -> Stay {
        self.arrives_by(name, ATTEMPTS.fetch_add(1, Ordering::Relaxed))
    }

    /// As [`Self::arrives`], by the so-manieth attempt of its client.
    pub fn arrives_by(&self, name: &str, attempt: u64) -> Stay {
        let claim = Claim { attempt, turn: 0, since_ms: 0, number: attempt };
        self.presence.arrive(&channel(), (&named(name), claim), None, None).unwrap()
    }

    /// Who is on `chat:1`.
    pub fn members(&self) -> impl Future<Output = Result<Members, BrokerError>> + use<> {
        self.presence.members(&channel())
    }

    /// Waits until Redis has answered all that was said to it.
    pub async fn is_answered(&self) {
        soon(self.members()).await.unwrap();
    }
}
