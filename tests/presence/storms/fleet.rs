//! The nodes of two regions, their Redis and the paths between them, and what a storm does to them.

use super::ear::Ear;
use crate::{
    crowd::{address, named},
    world::{AT_ONCE, config},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use redis::FromRedisValue;
use skywave::{
    claim::Claim,
    config::Secret,
    host::Host,
    hub::Hub,
    metrics::Metrics,
    presence::{Presence, Stay},
    redis::{Address, Redis},
    region::{self, Remote, presence::mirror::Mirror},
};
use skywave_protocol::{Channel, Text};
use skywave_testing::{RedisServer, Relay};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const REGIONS: [&str; 2] = ["eu", "us"];
/// Longer than anything lasts in a gentle storm.
const GRACE: (&str, &str) = ("CHANNELS__CHAT__PRESENCE_GRACE", "8s");
const IN_BATCHES: (&str, &str) = ("CHANNELS__CHAT__PRESENCE_BATCH", "300ms");
/// A region that is not heard for so long is taken for gone.
const PATIENCE: Duration = Duration::from_secs(12);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Whatever it is, it is shorter than a lease, and nothing is lost.
    Gentle,
    Full,
}

pub struct Node {
    region: usize,
    presence: Arc<Presence>,
    hub: Arc<Hub>,
    /// To the Redis of its region, and to the other one's.
    path: Relay,
    far: Relay,
    ears: Vec<Ear>,
    _tasks: JoinSet<()>,
}

pub struct Fleet {
    force: Force,
    settings: [(&'static str, &'static str); 2],
    random: SmallRng,
    begun: Instant,
    redis: Vec<RedisServer>,
    nodes: BTreeMap<u64, Node>,
    count: u64,
    pub told: Vec<String>,
}

fn channel() -> Channel {
    Channel::new("chat:1").unwrap()
}

impl Fleet {
    pub async fn start(seed: u64, force: Force) -> Self {
        let redis = vec![RedisServer::durable().await, RedisServer::durable().await];
        let mut fleet = Self {
            force,
            settings: [if seed.is_multiple_of(2) { AT_ONCE } else { IN_BATCHES }, GRACE],
            random: SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003) + 7),
            begun: Instant::now(),
            redis,
            nodes: BTreeMap::new(),
            count: 0,
            told: Vec::new(),
        };
        for number in 0..4 {
            fleet.add_node(number % 2).await;
        }
        fleet
    }

    pub fn tell(&mut self, what: String) {
        self.told.push(format!("{:?} {what}", self.begun.elapsed()));
    }

    pub fn lives(&self, node: u64) -> bool {
        self.nodes.contains_key(&node)
    }

    pub fn any_node(&mut self) -> u64 {
        let nodes: Vec<_> = self.nodes.keys().copied().collect();
        nodes[self.random.random_range(0..nodes.len())]
    }

    pub fn arrive(&self, node: u64, name: &str, attempt: u64) -> Stay {
        let claim = Claim { attempt, turn: 0, since_ms: 0, number: attempt };
        self.nodes[&node].presence.arrive(&channel(), (&named(name), claim), None, None).unwrap()
    }

    async fn add_node(&mut self, region: usize) {
        let (here, there) = (&self.redis[region], &self.redis[1 - region]);
        let (path, far) = (Relay::tcp(here.port()).await, Relay::tcp(there.port()).await);
        let metrics = || Metrics::new().unwrap().redis;
        let at = |url: String| Address { url: Secret::new(&*url), ..address(here, &self.settings) };
        let own = at(path.url("redis"));
        let begun = Instant::now();
        let local = loop {
            match Redis::connect(&Host::machine(), &own, "storm", metrics()).await {
                Ok(redis) => break redis,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        let config = config(here, &self.settings);
        let lease = region::presence::lease(&config.heartbeat);
        self.count += 1;
        let (hub, id) = (Arc::new(Hub::default()), format!("node-{}", self.count));
        let (presence, mut tasks) = loop {
            let mut tasks = JoinSet::new();
            let parts = (hub.clone(), config.channels.clone(), local.clone());
            let presence = region::presence::start(parts.0, parts.1, parts.2, &id, lease, &mut tasks).await;
            match presence {
                Ok(presence) => break (presence, tasks),
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
            }
        };
        tasks.spawn(presence.clone().run());
        let redis = Redis::reach(&Host::machine(), &at(far.url("redis")), "remote", metrics()).unwrap();
        let name = Text::new(REGIONS[1 - region]).unwrap();
        let remote = Remote { name, url: "https://localhost:1".into(), redis };
        tasks.spawn(Mirror::new(remote, local, &id, PATIENCE).run());
        let mut node = Node { region, presence, hub, path, far, ears: Vec::new(), _tasks: tasks };
        node.listen(self.begun).await;
        self.nodes.insert(self.count, node);
        let (count, region) = (self.count, REGIONS[region]);
        self.tell(format!("node {count} in {region}"));
    }

    /// All who listen take what they are told.
    pub async fn hear(&mut self, movers: &BTreeSet<String>) {
        for (number, node) in &mut self.nodes {
            for ear in &mut node.ears {
                let lost = ear.hear(movers);
                assert!(
                    lost.is_empty(),
                    "node {number}: {lost:?} only moved\n{}\n{}",
                    ear.trace.make_contiguous().join("\n"),
                    self.told.join("\n")
                );
            }
        }
        if self.random.random_bool(0.05) {
            let (number, begun) = (self.any_node(), self.begun);
            let node = self.nodes.get_mut(&number).unwrap();
            if self.random.random_bool(0.5) {
                node.ears.clear();
            }
            node.listen(begun).await;
        }
    }

    /// Who knows something else than what is so.
    pub async fn wrong(&mut self, truth: &BTreeSet<String>) -> Option<String> {
        for (number, node) in &mut self.nodes {
            if node.ears.is_empty() {
                node.listen(self.begun).await;
            }
            let listed = node.presence.members(&channel()).await.ok();
            let Some(listed) = listed else { return Some(format!("node {number} cannot tell")) };
            let names: BTreeSet<_> = listed.members.iter().map(|one| one.session.to_string()).collect();
            if names != *truth || listed.count != names.len() as u64 {
                return Some(format!("node {number} lists {names:?} ({}) for {truth:?}", listed.count));
            }
            for ear in &mut node.ears {
                if ear.known != *truth || ear.is_incomplete {
                    return Some(format!(
                        "an ear of node {number} knows {:?} for {truth:?}, incomplete {}\n{}",
                        ear.known,
                        ear.is_incomplete,
                        ear.trace.make_contiguous().join("\n")
                    ));
                }
            }
        }
        None
    }

    /// Does something to a region, its nodes or its links. Gives the nodes that are gone now.
    pub async fn blow(&mut self) -> Vec<u64> {
        let (region, node) = (self.random.random_range(0..2), self.any_node());
        let what = self.random.random_range(0..if self.force == Force::Full { 20 } else { 15 });
        let time = Duration::from_millis(self.random.random_range(50..2_000));
        self.tell(format!("{what} at {} or {node}", REGIONS[region]));
        match what {
            0..6 => self.blow_at_paths(what, region, node, time).await,
            6..13 => self.blow_at_redis(what, region, time).await,
            13 | 14 => return self.replace_node(node, what == 13).await,
            _ => self.rob(what, region, node).await,
        }
        Vec::new()
    }

    async fn blow_at_paths(&self, what: u32, region: usize, node: u64, time: Duration) {
        match what {
            0 | 1 => {
                self.nodes[&node].path.cut();
                sleep(time).await;
                if what == 0 {
                    self.nodes[&node].path.reset();
                }
                self.nodes[&node].path.heal();
            }
            2 => self.nodes[&node].path.reset(),
            3 => self.nodes[&node].far.reset(),
            4 => self.cut_off(region, time).await,
            _ => self.nodes.values().for_each(|one| one.far.set(|weather| weather.delay = time / 10)),
        }
    }

    /// The nodes of a region do not reach the other one for so long.
    async fn cut_off(&self, region: usize, time: Duration) {
        let nodes = || self.nodes.values().filter(|node| node.region == region);
        nodes().for_each(|node| node.far.cut());
        sleep(time).await;
        nodes().for_each(|node| node.far.heal());
    }

    /// Loses nothing.
    async fn blow_at_redis(&mut self, what: u32, region: usize, time: Duration) {
        match what {
            6 => self.run::<u64>(region, "CLIENT KILL TYPE normal SKIPME yes").await,
            7 => self.run::<u64>(region, "CLIENT KILL TYPE pubsub SKIPME yes").await,
            8 => self.run::<()>(region, "SCRIPT FLUSH").await,
            9 => self.run::<()>(region, &format!("CLIENT PAUSE {} ALL", time.as_millis())).await,
            10 => {
                self.run::<()>(region, "CONFIG SET maxmemory 1").await;
                sleep(time).await;
                self.redis[region].insist("CONFIG SET maxmemory 0").await;
            }
            11 => {
                self.redis[region].freeze();
                sleep(time).await;
                self.redis[region].thaw();
            }
            _ => self.redis[region].restart().await,
        }
    }

    /// Loses who is there, or lets leases run out.
    async fn rob(&mut self, what: u32, region: usize, node: u64) {
        match what {
            15 => self.run::<()>(region, "FLUSHALL").await,
            16 | 17 => {
                let mut keys: Vec<String> = self.redis[region].run("KEYS sky:{2}:*").await;
                // Of a channel's members nobody keeps a second list.
                keys.retain(|key| !key.ends_with(":presence:chat:1"));
                keys.sort();
                if !keys.is_empty() {
                    let key = keys[self.random.random_range(0..keys.len())].clone();
                    self.tell(format!("without {key}"));
                    self.run::<u64>(region, &format!("DEL {key}")).await;
                }
            }
            18 => {
                let time = self.random.random_range(3_000..12_000);
                self.nodes[&node].path.cut();
                sleep(Duration::from_millis(time)).await;
                self.nodes[&node].path.heal();
            }
            _ => {
                let time = self.random.random_range(3_000..14_000);
                self.cut_off(region, Duration::from_millis(time)).await;
            }
        }
    }

    /// Has a region's Redis do this, if it can.
    async fn run<T: FromRedisValue>(&self, region: usize, line: &str) {
        let _: Option<T> = self.redis[region].try_run(line).await;
    }

    /// Another one takes the place of a node that dies, or ends.
    async fn replace_node(&mut self, number: u64, dies: bool) -> Vec<u64> {
        let region = self.nodes[&number].region;
        self.add_node(region).await;
        if let Some(node) = self.nodes.remove(&number) {
            if dies {
                node.path.cut();
                node.far.cut();
            }
            drop(node);
        }
        self.tell(format!("node {number} is gone"));
        vec![number]
    }

    pub fn calm(&mut self) {
        self.tell("calm".to_owned());
        for node in self.nodes.values() {
            for path in [&node.path, &node.far] {
                path.heal();
                path.set(|weather| weather.delay = Duration::ZERO);
            }
        }
    }
}

impl Node {
    async fn listen(&mut self, begun: Instant) {
        let channel = channel();
        let listening = Ear::of(&self.hub, &self.presence, &channel, begun);
        if let Ok(Some(ear)) = tokio::time::timeout(Duration::from_secs(3), listening).await {
            self.ears.push(ear);
        }
    }
}
