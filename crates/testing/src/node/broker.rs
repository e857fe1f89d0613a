//! Brokers of several nodes on one Redis, and what each of them delivers.

use crate::{RedisServer, eventually, soon};
use futures_util::future::BoxFuture;
use skywave::{
    broadcast::{Event, Publication},
    broker::{Accepted, Broker, BrokerError, Chunk, Delivery, Publish, ReadFrom},
    config::{Config, Secret},
    host::Host,
    metrics::Metrics,
    redis::{Address, ConnectError, Redis},
    region::broker::{Options, RedisBroker},
};
use skywave_protocol::{Channel, Json, Point, Position, Text};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// What a node's hub was given.
#[derive(Default)]
pub struct Recorder {
    publications: Mutex<Vec<Arc<Publication>>>,
    events: Mutex<Vec<Arc<Event>>>,
    /// How often it was told that what it knows of the channel may not be what there is.
    doubts: AtomicUsize,
}

impl Delivery for Recorder {
    fn publication(&self, publication: &Arc<Publication>) {
        self.publications.lock().unwrap().push(publication.clone());
    }

    fn event(&self, event: &Arc<Event>) {
        self.events.lock().unwrap().push(event.clone());
    }

    fn uncertain(&self, is_affected: &dyn Fn(&Channel) -> bool) {
        self.doubts.fetch_add(usize::from(is_affected(&channel())), Ordering::Relaxed);
    }

    fn is_followed(&self, _: &Channel) -> bool {
        false
    }
}

impl Recorder {
    pub fn publications(&self) -> Vec<Arc<Publication>> {
        self.publications.lock().unwrap().clone()
    }

    pub fn events(&self) -> Vec<Arc<Event>> {
        self.events.lock().unwrap().clone()
    }
}

/// A node, as far as its broker is concerned.
pub struct Node {
    pub broker: RedisBroker,
    pub redis: Redis,
    pub recorder: Arc<Recorder>,
    pub metrics: Metrics,
}

/// What a node has to be told.
pub struct Settings {
    pub address: Address,
    pub options: Options,
}

pub fn settings(server: &RedisServer) -> Settings {
    settings_at(&server.url())
}

/// Of a node of another region than `eu`.
pub fn settings_in(region: &str, url: &str) -> Settings {
    let mut settings = settings_at(url);
    settings.options.origin = Text::new(region).unwrap();
    settings.address.region = settings.options.origin.clone();
    settings
}

pub fn settings_at(url: &str) -> Settings {
    let mut namespaces = Config::load(None, true, [] as [(&str, &str); 0]).unwrap().channels;
    let chat = namespaces.get_mut("chat").unwrap();
    chat.history = 1_000;
    chat.history_age = Duration::from_secs(600);
    let origin = Text::new("eu").unwrap();
    let address = Address {
        url: Secret::new(url),
        ca: None,
        prefix: "sky".to_owned(),
        partitions: 4,
        region: origin.clone(),
        scripts: skywave::scripts::ALL,
    };
    let log_age = Duration::from_secs(600);
    Settings {
        address,
        options: Options { log_age, origin, namespaces, others: std::collections::BTreeMap::new() },
    }
}

impl Node {
    pub async fn new(server: &RedisServer) -> Self {
        Self::with(settings(server)).await.unwrap()
    }

    pub async fn with(settings: Settings) -> Result<Self, ConnectError> {
        let metrics = Metrics::new().unwrap();
        let redis =
            Redis::connect(&Host::machine(), &settings.address, "commands", metrics.redis.clone()).await?;
        let recorder = Arc::new(Recorder::default());
        let broker =
            RedisBroker::start(redis.clone(), settings.options, &metrics.log_lag, recorder.clone()).await?;
        Ok(Self { broker, redis, recorder, metrics })
    }

    pub fn publications(&self) -> Vec<Arc<Publication>> {
        self.recorder.publications()
    }

    /// What was delivered on a channel: epoch, offset and payload of each, in order.
    pub fn delivered(&self, channel: &str) -> Vec<(String, u64, String)> {
        let publications = self.publications();
        let frames = publications.iter().map(|publication| publication.frame());
        frames
            .filter(|frame| &*frame.channel == channel)
            .map(|frame| (frame.epoch.to_string(), frame.offset, format!("{:?}", frame.data)))
            .collect()
    }

    /// Waits until so many publications have been delivered.
    pub async fn deliveries(&self, count: usize) {
        eventually("delivery", async || self.publications().len() >= count).await;
    }

    /// How often subscribers of the channel were made to read on from where they stand.
    pub fn doubts(&self) -> usize {
        self.recorder.doubts.load(Ordering::Relaxed)
    }

    pub fn events(&self) -> Vec<Arc<Event>> {
        self.recorder.events()
    }

    pub fn try_publish(&self, number: u64) -> BoxFuture<'static, Result<Accepted, BrokerError>> {
        self.broker.publish(message("chat:1", number, None))
    }

    pub async fn publish(&self, number: u64) -> Accepted {
        self.try_publish(number).await.unwrap()
    }

    pub async fn head(&self) -> Position {
        self.insist_on_reading(ReadFrom::Head).await.start
    }

    pub async fn read(&self, position: &Position) -> Chunk {
        self.insist_on_reading(ReadFrom::Position(position.clone())).await
    }

    /// Reads as a session does: again, until there is an answer.
    async fn insist_on_reading(&self, from: ReadFrom) -> Chunk {
        let insisting = async {
            loop {
                match self.broker.read(&channel(), from.clone()).await {
                    Ok(chunk) => return chunk,
                    Err(BrokerError::Unavailable) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        soon(insisting).await
    }

    /// Publishes as a client does: again with its key, until it is accepted.
    pub async fn insist(&self, channel: &str, number: u64, key: &str) -> Accepted {
        let insisting = async {
            loop {
                match self.broker.publish(message(channel, number, Some(key))).await {
                    Ok(accepted) => return accepted,
                    Err(BrokerError::Unavailable) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        soon(insisting).await
    }

    /// Waits until the node can use Redis again.
    pub async fn available(&self) {
        eventually("Redis", async || self.broker.is_available()).await;
    }

    /// How often the connection of this name was made anew.
    pub fn reconnects(&self, connection: &str) -> u64 {
        self.metrics.redis.reconnects.with_label_values(&[connection]).get()
    }
}

pub fn channel() -> Channel {
    Channel::new("chat:1").unwrap()
}

pub fn message(channel: &str, number: u64, key: Option<&str>) -> Publish {
    Publish {
        channel: Channel::new(channel).unwrap(),
        data: Json::parse(number.to_string()).unwrap().into(),
        key: key.map(|key| Text::new(key).unwrap()),
        user: None,
    }
}

/// The position of the one origin.
pub fn at(epoch: &str, offset: u64) -> Position {
    let point = Point { epoch: Text::new(epoch).unwrap(), offset };
    [(Text::new("eu").unwrap(), point)].into_iter().collect()
}

pub fn offsets(chunk: &Chunk) -> Vec<u64> {
    chunk.publications.iter().map(|publication| publication.frame().offset).collect()
}
