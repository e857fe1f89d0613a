//! Faults: what breaks, who is affected, how it is healed.

use crate::{
    node::clock_library,
    report::Report,
    traffic::{KINDS, Load, Traffic},
    wan::Conditions,
    world::{PARTITIONS, Plan, World},
};
use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{path::PathBuf, time::Duration};
use tokio::time::{Instant, sleep};

/// What a node does not outlive, a region or a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// A node is killed; its host lives and refuses TCP
    NodeKilled,
    /// A node is killed while the other one of its region has no room: it turns away whoever comes
    NodeFull,
    /// A node is told to drain
    NodeDrained,
    /// A node's host goes silent for its clients, and comes back later
    NodeSilent,
    /// A region's Redis is killed, and is back with its data after two seconds
    RedisRestarted,
    /// A region's Redis is killed, and is back without its data after two seconds
    RedisWiped,
    /// A region's Redis is killed, and is back with its data only after its sessions have been sent elsewhere
    RedisAway,
    /// A region's Redis is killed, sentinels make its replica the master, and the former master comes back
    RedisFailover,
    /// A region's Redis stands still again and again, for up to 1.5 s
    RedisSlow,
    /// A node with a clock that is 90 s ahead takes part
    ClockOff,
    /// All links of a region are cut for 30 s; its clients still reach it
    RegionCut,
    /// All links of a region are cut for 30 s, and no log reaches back to that when they heal; histories do
    LogsTrimmed,
    /// From one region nothing gets through to another, though the other way is open
    OneWayCut,
    /// The node that leads a bridge is killed
    LeaderKilled,
    /// All of a region is killed, and comes back later
    RegionDead,
}

/// How it is done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's binary.
    pub binary: PathBuf,
    pub regions: usize,
    pub wan: Conditions,
    pub load: Load,
    pub seed: u64,
    /// Shorter cuts and pauses.
    pub quick: bool,
}

impl Settings {
    fn time(&self, seconds: f64, quick_seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { quick_seconds } else { seconds })
    }
}

/// How long any client may be without service before the bench gives up on it.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(60);
/// After everything is healed and nobody publishes any more, how long the last may be on its way.
const SETTLING: Duration = Duration::from_secs(30);
/// Long enough for the first pings, by which clients learn how long to wait.
const WARM_UP: Duration = Duration::from_secs(3);
const CLOCK_OFFSET_SECONDS: i32 = 90;
/// The region that faults hit first.
const HIT: usize = 0;

impl Fault {
    pub fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How many regions it takes.
    fn regions_needed(self) -> usize {
        match self {
            Self::NodeFull
            | Self::RegionCut
            | Self::LogsTrimmed
            | Self::OneWayCut
            | Self::LeaderKilled
            | Self::RedisAway
            | Self::RegionDead => 2,
            _ => 1,
        }
    }

    /// Whether Redis itself loses what was acknowledged, so that clients have to be told.
    fn may_lose(self) -> bool {
        matches!(self, Self::RedisWiped | Self::RedisFailover)
    }

    /// Why it cannot be shown on this machine, or with so few regions.
    pub fn hindrance(self, settings: &Settings) -> Option<&'static str> {
        match self {
            _ if self.regions_needed() > settings.regions => Some("it takes two regions"),
            Self::ClockOff if clock_library().is_none() => Some("it takes libfaketime: install it"),
            _ => None,
        }
    }

    /// Starts regions and traffic, breaks something, heals it, and checks.
    ///
    /// # Errors
    /// When the scene cannot be set; a guarantee that is broken stands in the report.
    pub async fn run(self, settings: &Settings) -> anyhow::Result<Report> {
        let begun = Instant::now();
        let plan = Plan {
            binary: settings.binary.clone(),
            regions: settings.regions,
            nodes_per_region: 2,
            partitions: PARTITIONS,
            durable: true,
            wan: settings.wan,
            sentinels: self == Self::RedisFailover,
            clock_offset: if self == Self::ClockOff { CLOCK_OFFSET_SECONDS } else { 0 },
            sessions: (self == Self::NodeFull).then_some(settings.load.clients * KINDS.len()),
            seed: settings.seed,
        };
        let mut world = World::start(&plan).await.context("cannot start the regions")?;
        let traffic = Traffic::start(&world, settings.load, settings.seed).await?;
        let clients = traffic.clients();
        sleep(WARM_UP).await;
        let random = SmallRng::seed_from_u64(settings.seed);
        let mut scene = Scene { world: &mut world, traffic: &traffic, settings, random };
        let affected = scene.play(self).await?;
        traffic.served(&affected, SERVICE_TIMEOUT).await;
        sleep(settings.time(5.0, 2.0)).await;
        let services: Vec<_> = affected.iter().map(|client| traffic.service(*client)).collect();
        let outcome = traffic.finish(SETTLING).await;
        let carriage = world.wan.carriage().await?;
        let report = Report::new(
            (self.name(), self.may_lose()),
            settings.seed,
            clients,
            &services,
            outcome,
            carriage,
            begun.elapsed(),
        );
        if !report.is_kept() {
            eprintln!("the logs stay in {}", world.keep_logs().display());
        }
        Ok(report)
    }
}

struct Scene<'a> {
    world: &'a mut World,
    traffic: &'a Traffic,
    settings: &'a Settings,
    random: SmallRng,
}

impl Scene<'_> {
    /// Breaks and heals; gives the clients that are affected.
    async fn play(&mut self, fault: Fault) -> anyhow::Result<Vec<usize>> {
        match fault {
            Fault::NodeKilled | Fault::NodeFull => self.kill_node(None).await,
            Fault::LeaderKilled => {
                let leader = self.leader().await?;
                self.kill_node(Some(leader)).await
            }
            Fault::NodeDrained => self.drain_node().await,
            Fault::NodeSilent => self.silence_node().await,
            Fault::RedisRestarted => self.kill_redis(Duration::from_secs(2), false).await,
            Fault::RedisWiped => self.kill_redis(Duration::from_secs(2), true).await,
            Fault::RedisAway => self.kill_redis(self.settings.time(20.0, 10.0), false).await,
            Fault::RedisFailover => self.fail_over().await,
            Fault::RedisSlow => self.slow_redis().await,
            Fault::ClockOff => self.go_on().await,
            Fault::RegionCut => self.cut_region(false).await,
            Fault::LogsTrimmed => self.cut_region(true).await,
            Fault::OneWayCut => self.cut_one_way().await,
            Fault::RegionDead => self.kill_region().await,
        }
    }

    fn any_node(&mut self) -> String {
        let nodes = &self.world.regions[HIT].nodes;
        nodes[self.random.random_range(0..nodes.len())].name.clone()
    }

    fn nodes_of(&self, region: usize) -> Vec<String> {
        self.world.regions[region].nodes.iter().map(|node| node.name.clone()).collect()
    }

    fn clients_of(&self, region: usize) -> Vec<usize> {
        let nodes = self.nodes_of(region);
        self.traffic.on(&nodes.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Who leads the bridge into the first region.
    async fn leader(&self) -> anyhow::Result<String> {
        let (here, there) = (&self.world.regions[HIT], &self.world.regions[HIT + 1]);
        let holder: Option<String> =
            here.redis.run(&format!("HGET sky:lease:bridge:{} holder", there.name)).await?;
        let holder = holder.context("nobody leads the bridge")?;
        let mut nodes = here.nodes.iter().map(|node| node.name.clone());
        nodes.find(|name| holder.starts_with(name.as_str())).with_context(|| format!("{holder} is no node"))
    }

    async fn kill_node(&mut self, name: Option<String>) -> anyhow::Result<Vec<usize>> {
        let name = name.unwrap_or_else(|| self.any_node());
        let affected = self.traffic.on(&[&name]);
        self.world.node(&name)?.kill().await?;
        self.traffic.mark();
        self.traffic.served(&affected, SERVICE_TIMEOUT).await;
        sleep(self.settings.time(3.0, 1.0)).await;
        self.world.node(&name)?.start().await?;
        Ok(affected)
    }

    async fn drain_node(&mut self) -> anyhow::Result<Vec<usize>> {
        let name = self.any_node();
        let affected = self.traffic.on(&[&name]);
        self.traffic.mark();
        self.world.node(&name)?.drain()?;
        self.world.node(&name)?.drained().await?;
        self.traffic.served(&affected, SERVICE_TIMEOUT).await;
        self.world.node(&name)?.start().await?;
        Ok(affected)
    }

    async fn silence_node(&mut self) -> anyhow::Result<Vec<usize>> {
        let name = self.any_node();
        let affected = self.traffic.on(&[&name]);
        self.world.node(&name)?.relay.open(false);
        self.traffic.mark();
        self.traffic.served(&affected, SERVICE_TIMEOUT).await;
        sleep(self.settings.time(5.0, 1.0)).await;
        self.world.node(&name)?.relay.open(true);
        Ok(affected)
    }

    async fn kill_redis(&mut self, away: Duration, wiped: bool) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT);
        let redis = &mut self.world.regions[HIT].redis;
        redis.kill().await?;
        self.traffic.mark();
        if wiped {
            redis.wipe()?;
        }
        sleep(away).await;
        redis.relaunch().await?;
        Ok(affected)
    }

    async fn fail_over(&mut self) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT);
        let region = &mut self.world.regions[HIT];
        let (name, former) = (region.name, region.redis.address());
        region.redis.kill().await?;
        self.traffic.mark();
        let sentinels = self.world.sentinels.as_ref().context("there are no sentinels")?;
        let deadline = Instant::now() + SERVICE_TIMEOUT;
        loop {
            match sentinels.master().await {
                Ok(master) if master != former => {
                    self.world.lead_to(name, master);
                    break;
                }
                _ if Instant::now() > deadline => anyhow::bail!("no sentinel promotes the replica"),
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
        self.traffic.served(&affected, SERVICE_TIMEOUT).await;
        // It takes itself for the master, until the sentinels notice.
        self.world.regions[HIT].redis.relaunch().await?;
        sleep(self.settings.time(5.0, 2.0)).await;
        Ok(affected)
    }

    async fn slow_redis(&mut self) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT);
        self.traffic.mark();
        let end = Instant::now() + self.settings.time(20.0, 6.0);
        while Instant::now() < end {
            let redis = &self.world.regions[HIT].redis;
            redis.freeze(true)?;
            sleep(Duration::from_millis(self.random.random_range(50..1500))).await;
            redis.freeze(false)?;
            sleep(Duration::from_millis(self.random.random_range(100..1000))).await;
        }
        Ok(affected)
    }

    async fn go_on(&mut self) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT);
        self.traffic.mark();
        sleep(self.settings.time(10.0, 3.0)).await;
        Ok(affected)
    }

    async fn cut_region(&mut self, trimmed: bool) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT);
        let name = self.world.regions[HIT].name;
        self.world.set_links(name, false);
        self.traffic.mark();
        sleep(self.settings.time(30.0, 8.0)).await;
        if trimmed {
            self.trim_logs().await?;
        }
        self.world.set_links(name, true);
        Ok(affected)
    }

    /// As the age of logs does, sooner.
    async fn trim_logs(&self) -> anyhow::Result<()> {
        let mut trimmed = 0;
        for region in &self.world.regions {
            for partition in 0..PARTITIONS {
                trimmed +=
                    region.redis.run::<u64>(&format!("XTRIM sky:{{{partition}}}:log MAXLEN 0")).await?;
            }
        }
        if trimmed == 0 { anyhow::bail!("nothing was in the logs") } else { Ok(()) }
    }

    async fn cut_one_way(&mut self) -> anyhow::Result<Vec<usize>> {
        let mut affected = self.clients_of(HIT);
        affected.extend(self.clients_of(HIT + 1));
        let (from, to) = (self.world.regions[HIT].name, self.world.regions[HIT + 1].name);
        self.world.set_way(from, to, false);
        self.traffic.mark();
        sleep(self.settings.time(30.0, 8.0)).await;
        self.world.set_way(from, to, true);
        Ok(affected)
    }

    async fn kill_region(&mut self) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT);
        let region = &mut self.world.regions[HIT];
        for node in &mut region.nodes {
            node.kill().await?;
        }
        region.redis.kill().await?;
        self.traffic.mark();
        self.traffic.served(&affected, SERVICE_TIMEOUT).await;
        sleep(self.settings.time(10.0, 2.0)).await;
        self.world.regions[HIT].redis.relaunch().await?;
        self.world.start_nodes(HIT).await?;
        Ok(affected)
    }
}
