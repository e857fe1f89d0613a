//! A steady stream of publications from one region, and how late each arrives in every region.

use crate::{site::Site, world::World};
use anyhow::Context;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use skywave_client::{
    CertificateCheck, ChannelEvent, Client, ClientOptions, Json, Payload, SubscribeOptions, TransportChoice,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Spread over all partitions, hardly two on one.
const CHANNELS: usize = 128;
const PUBLISHERS: u64 = 4;
/// Publishes of one publisher that wait for their answer at once.
const IN_FLIGHT: usize = 1024;
/// What a subscription holds for its reader.
const QUEUE: usize = 65_536;
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a publisher sleeps at a time; what is due by then goes out together.
pub const TICK: Duration = Duration::from_millis(2);

/// What one subscriber has received.
#[derive(Default)]
pub struct Arrivals {
    count: AtomicU64,
    /// From the publisher's call to the subscriber's reader, in microseconds.
    delays: Mutex<Vec<u64>>,
}

impl Arrivals {
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The delays since this was asked last.
    pub fn take_delays(&self) -> Vec<u64> {
        std::mem::take(&mut *self.delays.lock())
    }
}

/// A subscriber on each node, and publishers in the first region.
pub struct Stream {
    /// By region and node.
    pub arrivals: Vec<(String, Arc<Arrivals>)>,
    publishers: Vec<Client>,
    subscribers: Vec<Client>,
    readers: JoinSet<()>,
    begun: Instant,
}

impl Stream {
    pub async fn start(world: &World) -> anyhow::Result<Self> {
        let mut stream = Self {
            arrivals: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            readers: JoinSet::new(),
            begun: Instant::now(),
        };
        let check = CertificateCheck::Sha256(vec![world.certificate.sha256]);
        for region in &world.regions {
            for node in &region.nodes {
                let client = connect(&region.site, &node.url(), check.clone()).await?;
                stream.subscribe(region.name, client).await?;
            }
        }
        let home = world.regions.first().context("no region")?;
        for number in 0..PUBLISHERS {
            let node = &home.nodes[usize::try_from(number)? % home.nodes.len()];
            stream.publishers.push(connect(&home.site, &node.url(), check.clone()).await?);
        }
        Ok(stream)
    }

    async fn subscribe(&mut self, region: &str, client: Client) -> anyhow::Result<()> {
        let arrivals = Arc::new(Arrivals::default());
        for number in 0..CHANNELS {
            let mut subscription =
                client.subscribe(&format!("chat:{number}"), SubscribeOptions::default()).await?;
            let (arrivals, begun) = (arrivals.clone(), self.begun);
            self.readers.spawn(async move {
                while let Some(event) = subscription.next().await {
                    if let ChannelEvent::Publication(publication) = event
                        && let Payload::Json(json) = &publication.data
                        && let Ok(sent) = serde_json::from_str::<u64>(json.get())
                    {
                        arrivals.count.fetch_add(1, Ordering::AcqRel);
                        arrivals.delays.lock().push(micros(begun).saturating_sub(sent));
                    }
                }
            });
        }
        self.arrivals.push((region.to_owned(), arrivals));
        self.subscribers.push(client);
        Ok(())
    }

    /// Publishes at `rate` per second for so long, and waits for the answers; gives how many were acknowledged.
    ///
    /// # Errors
    /// When a publish is refused for good.
    pub async fn publish(&self, rate: u64, time: Duration) -> anyhow::Result<u64> {
        let mut publishing = JoinSet::new();
        for (number, client) in self.publishers.iter().enumerate() {
            publishing.spawn(publish(client.clone(), number, rate, time, self.begun));
        }
        let mut acknowledged = 0;
        while let Some(done) = publishing.join_next().await {
            acknowledged += done??;
        }
        Ok(acknowledged)
    }

    /// Waits until `count` have arrived everywhere.
    ///
    /// # Errors
    /// When they have not by `limit`.
    pub async fn arrived(&self, count: u64, limit: Duration) -> anyhow::Result<()> {
        let all = async {
            while self.arrivals.iter().any(|(_, arrivals)| arrivals.count() < count) {
                sleep(TICK).await;
            }
        };
        let counts = || self.arrivals.iter().map(|(region, one)| format!("{region} {}", one.count()));
        let outcome = timeout(limit, all).await;
        outcome.with_context(|| format!("of {count}: {}", counts().collect::<Vec<_>>().join(", ")))
    }

    pub async fn close(self) {
        for client in self.publishers.iter().chain(&self.subscribers) {
            client.close().await;
        }
    }
}

/// A client with room for what is measured, over WebSocket.
///
/// # Errors
/// When there is no session within [`START_TIMEOUT`].
pub async fn connect(site: &Site, url: &str, certificate: CertificateCheck) -> anyhow::Result<Client> {
    let options = ClientOptions {
        transport: TransportChoice::WebSocket,
        certificate,
        subscription_queue: QUEUE,
        publish_queue: 2 * IN_FLIGHT,
        ..ClientOptions::new(url)
    };
    Ok(site.run(timeout(START_TIMEOUT, Client::connect(options))).await?.context("no session")??)
}

/// One publisher's share of the stream, on its own channels.
async fn publish(
    client: Client,
    publisher: usize,
    rate: u64,
    time: Duration,
    begun: Instant,
) -> anyhow::Result<u64> {
    let start = Instant::now();
    let interval = Duration::from_secs(1).mul_f64(PUBLISHERS as f64 / rate as f64);
    let count = (time.as_secs_f64() / interval.as_secs_f64()) as u64;
    let numbers = stream::unfold(0, |number: u64| async move {
        let due = start + interval.mul_f64(number as f64);
        if due > Instant::now() + TICK {
            sleep_until(due).await;
        }
        (number < count).then_some((number, number + 1))
    });
    let share = CHANNELS / usize::try_from(PUBLISHERS)?;
    let publishes = numbers.map(|number| {
        let client = client.clone();
        let channel = format!("chat:{}", publisher * share + usize::try_from(number).unwrap_or(0) % share);
        async move {
            let data = Json::of(&micros(begun))?;
            client.publish(&channel, data).await?;
            anyhow::Ok(())
        }
    });
    let mut answers = Box::pin(publishes.buffer_unordered(IN_FLIGHT));
    let mut acknowledged = 0;
    while let Some(answer) = answers.next().await {
        answer?;
        acknowledged += 1;
    }
    Ok(acknowledged)
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}
