//! Clients everywhere, on both transports: all publish and all subscribe, and each knows when it was served.

use crate::{
    checker::{Identity, Ledger, Place, Reader, Verdict},
    site::Site,
    world::World,
};
use anyhow::Context;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use skywave_client::{
    CertificateCheck, Channel, ChannelEvent, Client, ClientOptions, Json, Network, Payload, SubscribeOptions,
    Subscription, TransportChoice, TransportKind,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

pub const KINDS: [TransportKind; 2] = [TransportKind::WebTransport, TransportKind::WebSocket];
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// After the last fault is healed, how long publishes may wait for their answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// How much goes on.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// On each node and transport.
    pub clients: usize,
    pub channels: usize,
    /// Between two publishes of one client, by chance from half to one and a half of it.
    pub pause: Duration,
}

/// One client, and what it went through.
struct Member {
    client: Client,
    kind: TransportKind,
    stamps: Stamps,
}

/// Microseconds since the beginning; 0: not yet.
#[derive(Default)]
struct Stamps {
    acknowledged: AtomicU64,
    received: AtomicU64,
    /// The longest wait for an answer, of publishes answered since the mark.
    slowest_publish: AtomicU64,
}

struct Shared {
    begun: Instant,
    /// When the fault came; what was published before does not count as service.
    mark: AtomicU64,
    stopping: AtomicBool,
    ledger: Mutex<Ledger>,
    readers: Mutex<Vec<Arc<Mutex<Reader>>>>,
    faults: Mutex<Vec<String>>,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }
}

/// The running traffic.
pub struct Traffic {
    shared: Arc<Shared>,
    members: Vec<Arc<Member>>,
    publishers: JoinSet<()>,
    readers: JoinSet<()>,
}

/// How long a client was not served.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    pub kind: TransportKind,
    /// From the fault to the first acknowledgement and the first publication after it; `None`: never.
    pub served_after: Option<Duration>,
    pub slowest_publish: Duration,
}

/// How it all came out.
#[derive(Debug)]
pub struct Outcome {
    pub acknowledged: usize,
    /// Publishes that nobody answered, though all was healed.
    pub unanswered: usize,
    pub verdict: Verdict,
    /// Subscriptions that ended, publishes that were refused for good.
    pub faults: Vec<String>,
}

impl Traffic {
    /// Connects all clients, subscribes them and begins to publish.
    pub async fn start(world: &World, load: Load, seed: u64) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            mark: AtomicU64::new(u64::MAX),
            stopping: AtomicBool::new(false),
            ledger: Mutex::default(),
            readers: Mutex::default(),
            faults: Mutex::default(),
        });
        let channels: Vec<Channel> = (0..load.channels)
            .map(|number| Channel::new(&format!("chat:{number}")))
            .collect::<Result<_, _>>()?;
        let mut traffic =
            Self { shared, members: Vec::new(), publishers: JoinSet::new(), readers: JoinSet::new() };
        let mut subscriptions = Vec::new();
        for (site, options, kind) in clients(world, load) {
            let connecting = timeout(START_TIMEOUT, Client::connect(options));
            let client = site.run(connecting).await?.context("no session")??;
            let member = Arc::new(Member { client, kind, stamps: Stamps::default() });
            let number = traffic.members.len();
            for channel in [0, 1].map(|offset| &channels[(number + offset) % channels.len()]) {
                let subscription = member.client.subscribe(channel, SubscribeOptions::default()).await?;
                subscriptions.push((member.clone(), subscription));
            }
            traffic.members.push(member);
        }
        // Nobody publishes before everybody is there.
        for (member, subscription) in subscriptions {
            let reader = Arc::new(Mutex::new(Reader::new(subscription.channel().clone())));
            traffic.shared.readers.lock().push(reader.clone());
            traffic.readers.spawn(read(traffic.shared.clone(), member, subscription, reader));
        }
        for (number, member) in traffic.members.iter().enumerate() {
            let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
            let (shared, channel) = (traffic.shared.clone(), channels[number % channels.len()].clone());
            let publisher = u32::try_from(number)?;
            traffic.publishers.spawn(publish(shared, member.clone(), publisher, channel, load.pause, random));
        }
        Ok(traffic)
    }

    pub fn clients(&self) -> usize {
        self.members.len()
    }

    /// The clients that `nodes` serve now.
    pub fn on(&self, nodes: &[&str]) -> Vec<usize> {
        let on = |member: &Arc<Member>| {
            member.client.connected().is_some_and(|connected| nodes.contains(&&*connected.node))
        };
        (0..self.members.len()).filter(|index| on(&self.members[*index])).collect()
    }

    /// The fault is there: from here on the time is taken.
    pub fn mark(&self) {
        for member in &self.members {
            for stamp in
                [&member.stamps.acknowledged, &member.stamps.received, &member.stamps.slowest_publish]
            {
                stamp.store(0, Ordering::Release);
            }
        }
        self.shared.mark.store(self.shared.now(), Ordering::Release);
    }

    /// Waits until all `clients` are served, or no longer than `limit`.
    pub async fn served(&self, clients: &[usize], limit: Duration) {
        let all = async {
            while clients.iter().any(|index| self.service(*index).served_after.is_none()) {
                sleep(POLL).await;
            }
        };
        // Whoever is not served by then is told of by `service`.
        let _ = timeout(limit, all).await;
    }

    pub fn service(&self, client: usize) -> Service {
        let member = &self.members[client];
        let load = |stamp: &AtomicU64| stamp.load(Ordering::Acquire);
        let mark = self.shared.mark.load(Ordering::Acquire);
        let (acknowledged, received) = (load(&member.stamps.acknowledged), load(&member.stamps.received));
        let served = acknowledged > 0 && received > 0;
        Service {
            kind: member.kind,
            served_after: served
                .then(|| Duration::from_micros(acknowledged.max(received).saturating_sub(mark))),
            slowest_publish: Duration::from_micros(load(&member.stamps.slowest_publish)),
        }
    }

    /// Stops publishing, and waits until everything acknowledged has arrived or `settling` is over.
    pub async fn finish(mut self, settling: Duration) -> Outcome {
        self.shared.stopping.store(true, Ordering::Release);
        let answered = async { while self.publishers.join_next().await.is_some() {} };
        let _ = timeout(ANSWER_TIMEOUT, answered).await;
        let unanswered = self.publishers.len();
        self.publishers.shutdown().await;
        let deadline = Instant::now() + settling;
        while Instant::now() < deadline && !self.verdict().lost.is_empty() {
            sleep(POLL).await;
        }
        // Whatever is repeated late would come about now.
        sleep(Duration::from_millis(500)).await;
        let verdict = self.verdict();
        self.readers.shutdown().await;
        for member in &self.members {
            member.client.close().await;
        }
        let faults = std::mem::take(&mut *self.shared.faults.lock());
        Outcome { acknowledged: self.shared.ledger.lock().len(), unanswered, verdict, faults }
    }

    fn verdict(&self) -> Verdict {
        let ledger = self.shared.ledger.lock();
        let readers = self.shared.readers.lock();
        readers.iter().fold(Verdict::default(), |mut sum, reader| {
            sum.add(reader.lock().verdict(&ledger));
            sum
        })
    }
}

/// The clients of each node. Every other one knows its own node alone, and learns of the rest.
fn clients(world: &World, load: Load) -> Vec<(Site, ClientOptions, TransportKind)> {
    let mut clients = Vec::new();
    for region in &world.regions {
        for node in &region.nodes {
            for (number, kind) in (0..load.clients).flat_map(|number| KINDS.map(|kind| (number, kind))) {
                let mut options = ClientOptions::new(node.url());
                if number % 2 == 1 {
                    let peers = region.nodes.iter().filter(|peer| peer.name != node.name);
                    options.urls.extend(peers.map(|peer| peer.url()));
                }
                options.transport = match kind {
                    TransportKind::WebTransport => TransportChoice::WebTransport,
                    TransportKind::WebSocket => TransportChoice::WebSocket,
                };
                options.certificate = CertificateCheck::Sha256(vec![world.certificate.sha256]);
                options.network = Network { background: Some(false), ..Network::default() };
                clients.push((region.site.clone(), options, kind));
            }
        }
    }
    clients
}

/// Publishes until it is told to stop, each when the one before is answered.
async fn publish(
    shared: Arc<Shared>,
    member: Arc<Member>,
    publisher: u32,
    channel: Channel,
    pause: Duration,
    mut random: SmallRng,
) {
    let mut number = 0;
    while !shared.stopping.load(Ordering::Acquire) {
        sleep(pause.mul_f64(random.random_range(0.5..1.5))).await;
        number += 1;
        let begun = shared.now();
        let data = match Json::of(&(publisher, number, begun)) {
            Ok(data) => data,
            Err(error) => return shared.faults.lock().push(error.to_string()),
        };
        match member.client.publish(&channel, data).await {
            Ok(published) => {
                let now = shared.now();
                let identity = Identity { publisher, number };
                shared.ledger.lock().acknowledge(&channel, identity, Place::from(&published));
                let mark = shared.mark.load(Ordering::Acquire);
                if now >= mark {
                    member.stamps.slowest_publish.fetch_max(now - begun, Ordering::AcqRel);
                }
                if begun >= mark {
                    stamp(&member.stamps.acknowledged, now);
                }
            }
            Err(error) => {
                return shared.faults.lock().push(format!("publish {number} on {}: {error}", &*channel));
            }
        }
    }
}

/// Sets it once.
fn stamp(stamp: &AtomicU64, now: u64) {
    let _ = stamp.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
}

async fn read(
    shared: Arc<Shared>,
    member: Arc<Member>,
    mut subscription: Subscription,
    reader: Arc<Mutex<Reader>>,
) {
    while let Some(event) = subscription.next().await {
        match event {
            ChannelEvent::Publication(publication) => {
                let Some((publisher, number, sent)) = content(&publication.data) else {
                    shared.faults.lock().push(format!("{:?} is no message", publication.data));
                    continue;
                };
                let place = Place {
                    origin: publication.origin,
                    epoch: publication.epoch,
                    offset: publication.offset,
                };
                reader.lock().publication(Identity { publisher, number }, place);
                if sent >= shared.mark.load(Ordering::Acquire) {
                    stamp(&member.stamps.received, shared.now());
                }
            }
            ChannelEvent::Gap(gap) => reader.lock().gap(&gap),
            ChannelEvent::Unsubscribed { code, reason } => {
                let channel = subscription.channel();
                shared.faults.lock().push(format!("{} ended: {reason} ({code:?})", &**channel));
            }
            _ => {}
        }
    }
}

fn content(data: &Payload) -> Option<(u32, u64, u64)> {
    match data {
        Payload::Json(json) => serde_json::from_str(json.get()).ok(),
        _ => None,
    }
}
