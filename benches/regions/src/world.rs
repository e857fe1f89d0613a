//! Regions on one machine: each with its Redis and its nodes, with a wide-area network in between.

use crate::{
    certificate::Certificate,
    cluster,
    node::Node,
    redis::{Redis, Sentinels},
    relay::{Relay, Weather},
    site::Site,
    wan::{Carrier, Conditions, Wan},
};
use anyhow::{Context, bail};
use redis::FromRedisValue;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// The regions, in the order in which there are more and more of them.
pub const REGIONS: [&str; 3] = ["eu", "us", "ap"];
/// Of each region's log, as nodes have it by default.
pub const PARTITIONS: u16 = 16;
/// Of a cluster.
const MASTERS: usize = 3;
const BRIDGE_TIMEOUT: Duration = Duration::from_secs(20);
/// Every node of every region knows it.
const SESSION_SECRET: &str = "a secret that the nodes of all regions share";

/// From a region's nodes to another region's Redis.
type Links = BTreeMap<(&'static str, &'static str), String>;

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The node's binary.
    pub binary: PathBuf,
    /// 1 … 3.
    pub regions: usize,
    pub nodes_per_region: usize,
    /// Of each region's log.
    pub partitions: u16,
    /// Whether Redis writes each acknowledged command to disk first; else it keeps nothing.
    pub durable: bool,
    pub wan: Conditions,
    /// Whether the first region's Redis has a replica and sentinels.
    pub sentinels: bool,
    /// Whether the first region's Redis is a cluster of three masters.
    pub cluster: bool,
    /// Whether the first region's first node has a path of its own to its Redis.
    pub detour: bool,
    /// Whether the second region's nodes do not know of the first region yet.
    pub late_link: bool,
    /// By how many seconds the first region's second node is off.
    pub clock_offset: i32,
    /// The most sessions of each of the first region's nodes, where it is not the default.
    pub sessions: Option<usize>,
    pub seed: u64,
}

impl Plan {
    /// One node in each region, nothing is broken and nothing is in the way: to measure.
    pub fn quiet(binary: PathBuf, regions: usize, partitions: u16, wan: Conditions) -> Self {
        Self {
            binary,
            regions,
            nodes_per_region: 1,
            partitions,
            durable: false,
            wan,
            sentinels: false,
            cluster: false,
            detour: false,
            late_link: false,
            clock_offset: 0,
            sessions: None,
            seed: 1,
        }
    }
}

/// One region.
pub struct Region {
    pub name: &'static str,
    pub redis: Redis,
    /// The other masters of its cluster, if it is one.
    pub others: Vec<Redis>,
    pub nodes: Vec<Node>,
    pub site: Site,
    /// What nodes connect to that ask no sentinels: it leads to whoever is the master.
    pub entrance: Relay,
    /// What its first node connects to instead.
    pub detour: Option<Relay>,
}

impl Region {
    /// All servers that have keys.
    pub fn masters(&self) -> impl Iterator<Item = &Redis> {
        std::iter::once(&self.redis).chain(&self.others)
    }

    /// Runs a command with a key, on the server that has it.
    ///
    /// # Errors
    /// When that server refuses it.
    pub async fn ask<T: FromRedisValue + Send + 'static>(&self, line: &str) -> anyhow::Result<T> {
        for master in self.masters() {
            match master.run(line).await {
                Err(error) if has_moved(&error) => {}
                answer => return answer,
            }
        }
        bail!("no server of {} has this key: {line}", self.name)
    }

    fn cluster_url(&self) -> String {
        let addresses: Vec<String> = self.masters().map(|master| master.address().to_string()).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }
}

fn has_moved(error: &anyhow::Error) -> bool {
    error.downcast_ref::<redis::RedisError>().is_some_and(|error| error.code() == Some("MOVED"))
}

/// All of it; everything ends when it is dropped.
pub struct World {
    pub regions: Vec<Region>,
    pub wan: Wan,
    pub certificate: Certificate,
    pub sentinels: Option<Sentinels>,
    plan: Plan,
    links: Links,
    directory: TempDir,
}

impl World {
    /// Starts everything and waits until all nodes are ready.
    pub async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("skywave-regions-").tempdir()?;
        let names: Vec<_> = REGIONS.into_iter().take(plan.regions).collect();
        let (wan, sites) = Wan::between(&names, plan.wan, plan.seed).await?;
        let mut regions = Vec::new();
        for (name, site) in names.into_iter().zip(sites) {
            regions.push(region(name, site, plan, directory.path()).await?);
        }
        let sentinels = match regions.first() {
            Some(region) if plan.sentinels => {
                Some(Sentinels::watch(region.name, &region.redis, directory.path()).await?)
            }
            _ => None,
        };
        let certificate = Certificate::create(directory.path())?;
        let (plan, links) = (plan.clone(), Links::new());
        let mut world = Self { regions, wan, certificate, sentinels, plan, links, directory };
        world.links = world.link().await?;
        let late = world.plan.late_link.then_some((REGIONS[1], REGIONS[0]));
        world.configure(late);
        if world.plan.clock_offset != 0 {
            let offset = world.plan.clock_offset;
            world.node("eu-2")?.offset_clock(offset);
        }
        for region in 0..world.regions.len() {
            world.start_nodes(region).await?;
        }
        let bridged = world.bridged(late, BRIDGE_TIMEOUT).await;
        bridged.with_context(|| format!("the logs stay in {}", world.keep_logs().display()))?;
        Ok(world)
    }

    /// Waits until every region has a cursor in every log of the others: what was published before is history.
    /// The nodes of the region `late.0` do not know of `late.1`.
    pub async fn bridged(
        &self,
        late: Option<(&'static str, &'static str)>,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        for here in &self.regions {
            let others = self.regions.iter().filter(|there| there.name != here.name);
            for there in others.filter(|there| late != Some((here.name, there.name))) {
                for partition in 0..self.plan.partitions {
                    let line = format!("HEXISTS sky:{{{partition}}}:cursor {}", there.name);
                    while !here.ask::<bool>(&line).await? {
                        if Instant::now() > deadline {
                            bail!("{} is not bridged to {}", there.name, here.name);
                        }
                        sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Where each region's nodes reach each other region's Redis.
    async fn link(&mut self) -> anyhow::Result<Links> {
        let (mut links, plan) = (Links::new(), &self.plan);
        for from in &self.regions {
            for to in self.regions.iter().filter(|to| to.name != from.name) {
                let sentinels = self.sentinels.as_ref().filter(|sentinels| sentinels.region() == to.name);
                let url = match sentinels {
                    // Addresses that sentinels tell lead past a relay.
                    Some(sentinels) if plan.wan.carrier == Carrier::Packets => sentinels.url(),
                    // So do those that a cluster tells, which has no other.
                    _ if !to.others.is_empty() => to.cluster_url(),
                    _ => {
                        let target = to.entrance.address();
                        let path = self.wan.path(from.name, to.name, target, plan.wan, plan.seed);
                        format!("redis://{}", path.await?)
                    }
                };
                links.insert((from.name, to.name), url);
            }
        }
        Ok(links)
    }

    /// Tells all nodes, at their next start, of all regions. Those of the region `late.0` are not told of `late.1`.
    pub fn configure(&mut self, late: Option<(&'static str, &'static str)>) {
        let (plan, links) = (&self.plan, &self.links);
        let urls: Vec<(&str, String)> = self
            .regions
            .iter()
            .filter_map(|region| Some((region.name, region.nodes.first()?.url())))
            .collect();
        for region in &mut self.regions {
            let sentinels = self.sentinels.as_ref().filter(|sentinels| sentinels.region() == region.name);
            let redis = match sentinels {
                Some(sentinels) => sentinels.url(),
                None if !region.others.is_empty() => region.cluster_url(),
                None => format!("redis://{}", region.entrance.address()),
            };
            let mut common = settings(region.name, &redis, plan.partitions);
            if let Some(sessions) = plan.sessions.filter(|_| region.name == REGIONS[0]) {
                common.push(("LIMITS__SESSIONS".to_owned(), sessions.to_string()));
            }
            for (key, file) in
                [("TLS__CERTIFICATE", &self.certificate.chain), ("TLS__KEY", &self.certificate.key)]
            {
                common.push((key.to_owned(), file.display().to_string()));
            }
            let others = urls.iter().filter(|(name, _)| *name != region.name);
            for (name, url) in others.filter(|(name, _)| late != Some((region.name, *name))) {
                let link = &links[&(region.name, *name)];
                let key = |key: &str| format!("REGIONS__{}__{key}", name.to_uppercase());
                common.push((key("REDIS"), link.clone()));
                common.push((key("URL"), url.clone()));
            }
            let mut detour = region.detour.as_ref().map(|path| format!("redis://{}", path.address()));
            for node in &mut region.nodes {
                let path = detour.take().map(|url| ("BROKER__URL", url));
                let own = [("NODE__ID", node.name.clone()), ("NODE__URL", node.url())];
                let own = own.into_iter().chain(path).map(|(key, value)| (key.to_owned(), value));
                node.configure(common.iter().cloned().chain(own).collect());
            }
        }
    }

    pub async fn start_nodes(&mut self, region: usize) -> anyhow::Result<()> {
        for node in &mut self.regions[region].nodes {
            node.start().await?;
        }
        Ok(())
    }

    pub fn node(&mut self, name: &str) -> anyhow::Result<&mut Node> {
        let mut nodes = self.regions.iter_mut().flat_map(|region| &mut region.nodes);
        nodes.find(|node| node.name == name).with_context(|| format!("there is no node {name}"))
    }

    /// Cuts or heals what goes from one region to another, and not what comes back.
    pub fn set_way(&self, from: &str, to: &str, open: bool) {
        self.wan.open(from, to, open);
    }

    /// Cuts or heals all links of a region.
    pub fn set_links(&self, region: &str, open: bool) {
        for other in self.regions.iter().filter(|other| other.name != region) {
            self.set_way(region, other.name, open);
            self.set_way(other.name, region, open);
        }
    }

    /// Leads those who ask no sentinels to the region's Redis that stands at `address` now.
    pub fn lead_to(&self, region: &str, address: SocketAddr) {
        for own in self.regions.iter().filter(|own| own.name == region) {
            own.entrance.lead_to(address);
        }
    }

    /// Where the logs of all processes are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Keeps the logs of all processes, and says where.
    pub fn keep_logs(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }
}

async fn region(name: &'static str, site: Site, plan: &Plan, directory: &Path) -> anyhow::Result<Region> {
    let file = format!("redis-{name}");
    let is_first = name == REGIONS[0];
    let mut others = Vec::new();
    let redis = match plan.durable {
        true if plan.cluster && is_first => {
            let mut masters = Vec::new();
            for number in 1..=MASTERS {
                masters.push(Redis::of_cluster(&format!("{file}-{number}"), &site, directory).await?);
            }
            cluster::join(&masters).await?;
            others = masters.split_off(1);
            masters.remove(0)
        }
        true => Redis::durable(&file, &site, directory).await?,
        false => Redis::start(&file, &site, directory, &[]).await?,
    };
    let path = || Relay::tcp(site.address(), redis.address(), Weather::CLEAR, plan.seed);
    let entrance = site.run(path()).await??;
    let detour = if plan.detour && is_first { Some(site.run(path()).await??) } else { None };
    let mut nodes = Vec::new();
    for number in 1..=plan.nodes_per_region {
        let node = format!("{name}-{number}");
        nodes.push(Node::new(&node, name, &site, &plan.binary, directory, plan.seed).await?);
    }
    Ok(Region { name, redis, others, nodes, site, entrance, detour })
}

/// What all nodes of a region have in common.
fn settings(region: &str, redis: &str, partitions: u16) -> Vec<(String, String)> {
    let partitions = partitions.to_string();
    let settings = [
        ("NODE__REGION", region),
        ("LISTEN__PLAIN", ""),
        ("LISTEN__ADMIN", "127.0.0.1:0"),
        ("AUTH__SESSION_SECRET", SESSION_SECRET),
        ("BROKER__KIND", "redis"),
        ("BROKER__URL", redis),
        ("BROKER__PARTITIONS", &partitions),
        ("CHANNELS__CHAT__HISTORY", "100000"),
        ("LIMITS__REQUESTS_PER_SECOND", "10000"),
        ("LIMITS__PUBLISHES_PER_SECOND", "10000"),
        ("DRAIN__DEADLINE", "5s"),
        ("LOG__LEVEL", "info"),
    ];
    let no_presence = ["CALL", "CHAT", "DOC", "PRESENCE", "ROOM", "TEST"]
        .map(|namespace| (format!("CHANNELS__{namespace}__PRESENCE"), "false".to_owned()));
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    settings.into_iter().chain(no_presence).collect()
}
