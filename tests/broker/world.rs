//! A broker of each kind, and what is published on it and read.

use skywave::{
    broadcast::Publication,
    broker::{Broker, Publish, ReadFrom, memory::MemoryBroker},
    config::{Config, NamespaceConfig, Namespaces, Secret},
    host::Host,
    metrics::Metrics,
    redis::{Address, Redis},
    region::broker::{Options, RedisBroker},
    scripts,
};
use skywave_protocol::{Channel, Json, Point, Position, Text};
use skywave_testing::{RedisCluster, RedisServer, eventually, node::broker::Recorder};
use std::{
    any::Any,
    collections::BTreeMap,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Redis,
    Cluster,
}

/// Makes a test for each broker of an `async fn(Kind)`.
#[macro_export]
macro_rules! on_every_broker {
    ($($test:ident,)+) => {
        $(mod $test {
            use $crate::world::Kind;
            #[tokio::test]
            async fn memory() {
                super::$test(Kind::Memory).await;
            }
            #[tokio::test]
            async fn redis() {
                super::$test(Kind::Redis).await;
            }
            #[tokio::test]
            async fn cluster() {
                super::$test(Kind::Cluster).await;
            }
        })+
    };
}

/// A broker, what it delivers, and what it needs.
pub struct World {
    broker: Arc<dyn Broker>,
    pub recorder: Arc<Recorder>,
    _redis: Option<Box<dyn Any + Send>>,
}

impl Deref for World {
    type Target = dyn Broker;
    fn deref(&self) -> &Self::Target {
        &*self.broker
    }
}

/// The URL of a Redis, a prefix for keys that nobody else has, and what is to be kept meanwhile.
async fn redis_of(kind: Kind) -> (String, String, Box<dyn Any + Send>) {
    static TESTS: AtomicUsize = AtomicUsize::new(0);
    let prefix = format!("sky{}", TESTS.fetch_add(1, Ordering::Relaxed));
    if kind == Kind::Cluster {
        let cluster = RedisCluster::shared().await;
        (cluster.url(), prefix, Box::new(cluster))
    } else {
        let server = RedisServer::start().await;
        (server.url(), prefix, Box::new(server))
    }
}

impl World {
    pub async fn new(kind: Kind) -> Self {
        Self::with(kind, |_| {}).await
    }

    pub async fn with(kind: Kind, change: impl FnOnce(&mut NamespaceConfig)) -> Self {
        let recorder = Arc::new(Recorder::default());
        let (origin, namespaces) = (Text::new("eu").unwrap(), namespaces(change));
        if kind == Kind::Memory {
            let broker = Arc::new(MemoryBroker::new(&Host::machine(), origin, namespaces, recorder.clone()));
            return Self { broker, recorder, _redis: None };
        }
        let (url, prefix, keep) = redis_of(kind).await;
        let region = origin.clone();
        let address =
            Address { url: Secret::new(url), ca: None, prefix, partitions: 4, region, scripts: scripts::ALL };
        let metrics = Metrics::new().unwrap();
        let redis = Redis::connect(&Host::machine(), &address, "commands", metrics.redis).await.unwrap();
        let options =
            Options { log_age: Duration::from_secs(60), origin, namespaces, others: BTreeMap::new() };
        let broker = RedisBroker::start(redis, options, &metrics.log_lag, recorder.clone());
        let broker = Arc::new(broker.await.unwrap());
        Self { broker, recorder, _redis: Some(keep) }
    }

    /// The offsets of the first `count` publications that are delivered.
    pub async fn delivered(&self, count: usize) -> Vec<u64> {
        eventually("delivery", async || self.recorder.publications().len() >= count).await;
        offsets(&self.recorder.publications())
    }
}

pub fn namespaces(change: impl FnOnce(&mut NamespaceConfig)) -> Namespaces {
    let mut namespaces = Config::load(None, true, [] as [(&str, &str); 0]).unwrap().channels;
    let chat = namespaces.get_mut("chat").unwrap();
    chat.history = 10;
    chat.history_age = Duration::from_secs(60);
    change(chat);
    namespaces
}

pub fn memory(change: impl FnOnce(&mut NamespaceConfig)) -> Arc<MemoryBroker> {
    let broker = MemoryBroker::new(
        &Host::machine(),
        Text::new("eu").unwrap(),
        namespaces(change),
        Arc::<Recorder>::default(),
    );
    Arc::new(broker)
}

pub fn channel() -> Channel {
    Channel::new("chat:1").unwrap()
}

pub fn message(number: u64, key: Option<&str>) -> Publish {
    Publish {
        channel: channel(),
        data: Json::parse(number.to_string()).unwrap().into(),
        key: key.map(|key| Text::new(key).unwrap()),
        user: None,
    }
}

pub async fn publish(broker: &dyn Broker, count: u64) {
    for number in 1..=count {
        broker.publish(message(number, None)).await.unwrap();
    }
}

pub fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
    publications.iter().map(|publication| publication.frame().offset).collect()
}

pub async fn head(broker: &dyn Broker) -> Position {
    broker.read(&channel(), ReadFrom::Head).await.unwrap().start
}

pub fn at(position: &Position, offset: u64) -> Position {
    let point = position.get("eu").unwrap();
    [(Text::new("eu").unwrap(), Point { epoch: point.epoch.clone(), offset })].into_iter().collect()
}
