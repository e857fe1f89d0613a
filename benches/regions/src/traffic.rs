//! Clients everywhere, of both kinds and on both transports: all publish and all subscribe, and each knows when it was
//! served.

use crate::{
    browsers::Browsers,
    checker::{Identity, Ledger, Reader, Verdict},
    user::{Ear, Heard, Invitation, Kind, Runtime, User},
    world::{Region, World},
};
use anyhow::Context;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use skywave_client::Channel;
use std::{
    path::{Path, PathBuf},
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

/// After the last fault is healed, how long publishes may wait for their answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer from what is retained may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// How much goes on.
#[derive(Debug, Clone)]
pub struct Load {
    /// Rust clients on each node and transport.
    pub clients: usize,
    /// Clients in Chromium on each node and transport.
    pub browsers: usize,
    /// Where the TypeScript client is built, for those in Chromium.
    pub package: PathBuf,
    pub channels: usize,
    /// Between two publishes of one client, by chance from half to one and a half of it.
    pub pause: Duration,
}

impl Load {
    fn on_each_node(&self) -> [(Runtime, usize); 2] {
        [(Runtime::Rust, self.clients), (Runtime::Chromium, self.browsers)]
    }

    /// Which kinds of clients there are.
    pub fn kinds(&self) -> Vec<Kind> {
        let present = self.on_each_node().into_iter().filter(|(_, count)| *count > 0);
        present.flat_map(|(runtime, _)| runtime.kinds()).collect()
    }

    /// How many clients a node has when nothing is broken.
    pub fn of_node(&self) -> usize {
        self.on_each_node().into_iter().map(|(runtime, count)| count * runtime.kinds().len()).sum()
    }
}

/// One client, and what it went through.
struct Member {
    user: User,
    kind: Kind,
    /// The region that it came to.
    home: &'static str,
    /// Where it publishes.
    channel: Channel,
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
    browsers: Vec<Browsers>,
    publishers: JoinSet<()>,
    readers: JoinSet<()>,
    /// Between two publishes of a client.
    pause: Duration,
    seed: u64,
}

/// How long a client was not served.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    pub kind: Kind,
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
    /// Connects all clients and subscribes them; nobody publishes yet.
    ///
    /// # Errors
    /// When not all of them come.
    pub async fn start(world: &World, load: &Load, seed: u64) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            mark: AtomicU64::new(u64::MAX),
            stopping: AtomicBool::new(false),
            ledger: Mutex::default(),
            readers: Mutex::default(),
            faults: Mutex::default(),
        });
        let mut traffic = Self {
            shared,
            members: Vec::new(),
            browsers: Vec::new(),
            publishers: JoinSet::new(),
            readers: JoinSet::new(),
            pause: load.pause,
            seed,
        };
        let channels: Vec<Channel> = (0..load.channels)
            .map(|number| Channel::new(&format!("chat:{number}")))
            .collect::<Result<_, _>>()?;
        // Each with subscriptions to two of the channels.
        let mut pairs = (0..)
            .map(|number| [0, 1].map(|offset| channels[(number + offset) % channels.len()].clone()).to_vec());
        for (runtime, count) in load.on_each_node() {
            for region in &world.regions {
                let mut invited = invitations(world, region, runtime, count);
                for (one, channels) in invited.iter_mut().zip(&mut pairs) {
                    one.channels = channels;
                }
                match runtime {
                    Runtime::Rust => traffic.invite(region, invited).await?,
                    Runtime::Chromium => traffic.open_tabs(world, region, &load.package, invited).await?,
                }
            }
        }
        Ok(traffic)
    }

    /// From now on these clients publish.
    ///
    /// # Errors
    /// When there are too many of them for their numbers.
    pub fn publish(&mut self, clients: &[usize]) -> anyhow::Result<()> {
        for number in clients {
            let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(*number as u64);
            let (shared, member) = (self.shared.clone(), self.members[*number].clone());
            let random = SmallRng::seed_from_u64(seed);
            self.publishers.spawn(publish(shared, member, u32::try_from(*number)?, self.pause, random));
        }
        Ok(())
    }

    async fn invite(&mut self, region: &Region, invited: Vec<Invitation>) -> anyhow::Result<()> {
        for one in invited {
            let kind = one.kind;
            let (user, ears) = region.site.run(User::of_rust(one)).await??;
            self.admit(region, kind, user, ears)?;
        }
        Ok(())
    }

    async fn open_tabs(
        &mut self,
        world: &World,
        region: &Region,
        package: &Path,
        invited: Vec<Invitation>,
    ) -> anyhow::Result<()> {
        if invited.is_empty() {
            return Ok(());
        }
        let name = format!("chromium-{}", region.name);
        let opening = Browsers::open(&name, &region.site, package, world.directory(), &invited);
        let (browsers, opened) = opening.await?;
        self.browsers.push(browsers);
        for (one, (tab, heard)) in invited.iter().zip(opened) {
            let (user, ears) = User::of_chromium(tab, heard);
            self.admit(region, one.kind, user, ears)?;
        }
        Ok(())
    }

    fn admit(&mut self, region: &Region, kind: Kind, user: User, ears: Vec<Ear>) -> anyhow::Result<()> {
        let channel = ears.first().context("no subscription")?.channel.clone();
        let member = Member { user, kind, home: region.name, channel, stamps: Stamps::default() };
        let member = Arc::new(member);
        for ear in ears {
            let reader = Arc::new(Mutex::new(Reader::new(ear.channel.clone())));
            self.shared.readers.lock().push(reader.clone());
            self.readers.spawn(read(self.shared.clone(), member.clone(), ear, reader));
        }
        self.members.push(member);
        Ok(())
    }

    pub fn clients(&self) -> usize {
        self.members.len()
    }

    /// The clients that came to a region at the beginning.
    pub fn of(&self, region: &str) -> Vec<usize> {
        (0..self.members.len()).filter(|index| self.members[*index].home == region).collect()
    }

    /// The clients that `nodes` serve now.
    pub fn on(&self, nodes: &[&str]) -> Vec<usize> {
        let on = |member: &Arc<Member>| member.user.node().is_some_and(|node| nodes.contains(&&*node));
        (0..self.members.len()).filter(|index| on(&self.members[*index])).collect()
    }

    /// Holds that these clients can read what is retained, and are served by one of `nodes`.
    pub async fn are_served(&self, clients: &[usize], nodes: &[&str]) {
        let on_nodes = self.on(nodes);
        let away = clients.iter().filter(|client| !on_nodes.contains(client)).count();
        let mut faults = Vec::new();
        if away > 0 {
            faults.push(format!("sent away, though all could be read: {away} of {}", clients.len()));
        }
        for member in clients.iter().map(|client| &self.members[*client]) {
            match timeout(READ_TIMEOUT, member.user.read_back(&member.channel)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => faults.push(format!("history of {}: {error}", &*member.channel)),
                Err(_) => faults.push(format!("history of {} does not come", &*member.channel)),
            }
        }
        self.shared.faults.lock().extend(faults);
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
        for member in std::mem::take(&mut self.members) {
            member.user.close().await;
        }
        let mut faults = std::mem::take(&mut *self.shared.faults.lock());
        for browsers in self.browsers {
            faults.extend(browsers.close().await.err().map(|error| error.to_string()));
        }
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

/// The clients of a region's nodes. Every other one knows its own node alone, and learns of the rest.
fn invitations(world: &World, region: &Region, runtime: Runtime, count: usize) -> Vec<Invitation> {
    let mut invited = Vec::new();
    for node in &region.nodes {
        for (number, kind) in (0..count).flat_map(|number| runtime.kinds().map(|kind| (number, kind))) {
            let mut urls = vec![node.url()];
            if number % 2 == 1 {
                let peers = region.nodes.iter().filter(|peer| peer.name != node.name);
                urls.extend(peers.map(|peer| peer.url()));
            }
            let certificate_sha256 = world.certificate.sha256;
            invited.push(Invitation { kind, urls, certificate_sha256, channels: Vec::new() });
        }
    }
    invited
}

/// Publishes until it is told to stop, each when the one before is answered.
async fn publish(
    shared: Arc<Shared>,
    member: Arc<Member>,
    publisher: u32,
    pause: Duration,
    mut random: SmallRng,
) {
    let (mut number, channel) = (0, &member.channel);
    while !shared.stopping.load(Ordering::Acquire) {
        sleep(pause.mul_f64(random.random_range(0.5..1.5))).await;
        number += 1;
        let begun = shared.now();
        match member.user.publish(channel, (publisher, number, begun)).await {
            Ok(place) => {
                let now = shared.now();
                shared.ledger.lock().acknowledge(channel, Identity { publisher, number }, place);
                let mark = shared.mark.load(Ordering::Acquire);
                if now >= mark {
                    member.stamps.slowest_publish.fetch_max(now - begun, Ordering::AcqRel);
                }
                if begun >= mark {
                    stamp(&member.stamps.acknowledged, now);
                }
            }
            Err(error) => {
                return shared.faults.lock().push(format!("publish {number} on {}: {error}", &**channel));
            }
        }
    }
}

/// Sets it once.
fn stamp(stamp: &AtomicU64, now: u64) {
    let _ = stamp.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
}

async fn read(shared: Arc<Shared>, member: Arc<Member>, mut ear: Ear, reader: Arc<Mutex<Reader>>) {
    while let Some(heard) = ear.next().await {
        match heard {
            Heard::Publication((publisher, number, sent), place) => {
                reader.lock().publication(Identity { publisher, number }, place);
                if sent >= shared.mark.load(Ordering::Acquire) {
                    stamp(&member.stamps.received, shared.now());
                }
            }
            Heard::Gap(place) => reader.lock().gap(place),
            Heard::Wrong(reason) => shared.faults.lock().push(format!("{}: {reason}", &*ear.channel)),
        }
    }
}
