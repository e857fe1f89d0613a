//! Faults: what breaks, who is affected, how it is healed.

use crate::{
    node::clock_library,
    report::Report,
    scene::Scene,
    traffic::{Load, Traffic},
    wan::Conditions,
    world::{PARTITIONS, Plan, World},
};
use anyhow::Context;
use rand::{SeedableRng, rngs::SmallRng};
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
    /// A region's Redis refuses writes from its start after it was killed, for 10 s, and can be read
    RedisRefusesWrites,
    /// A region's Redis loses all that it has, three times, and nobody is disconnected
    RedisFlushed,
    /// Of a region's Redis Cluster, a master on which another region listens, and which has no channels, stands still
    /// for 2.2 s, three times
    ClusterMasterHangs,
    /// What a node asks of its Redis is 300 ms late, and what it follows is not; the other node of its region is killed
    CommandsSlow,
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
    /// A region's nodes learn one by one of another region, of 50,000 channels
    LinkBegins,
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
    pub(crate) fn time(&self, seconds: f64, quick_seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { quick_seconds } else { seconds })
    }
}

/// How long any client may be without service before the bench gives up on it.
pub(crate) const SERVICE_TIMEOUT: Duration = Duration::from_secs(60);
/// After everything is healed and nobody publishes any more, how long the last may be on its way.
const SETTLING: Duration = Duration::from_secs(30);
/// Long enough for the first pings, by which clients learn how long to wait.
const WARM_UP: Duration = Duration::from_secs(3);
/// Several channels share each of them, and one of a cluster's masters has none.
const CLUSTER_PARTITIONS: u16 = 2;
const CLOCK_OFFSET_SECONDS: i32 = 90;
/// The region that faults hit first.
pub(crate) const HIT: usize = 0;

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
            | Self::ClusterMasterHangs
            | Self::LinkBegins
            | Self::RedisAway
            | Self::RegionDead => 2,
            _ => 1,
        }
    }

    /// Whether Redis itself loses what was acknowledged, so that clients have to be told.
    fn may_lose(self) -> bool {
        matches!(self, Self::RedisWiped | Self::RedisFlushed | Self::RedisFailover)
    }

    /// Why it cannot be shown on this machine, or with so few regions.
    pub fn hindrance(self, settings: &Settings) -> Option<&'static str> {
        match self {
            _ if self.regions_needed() > settings.regions => Some("it takes two regions"),
            Self::ClockOff if clock_library().is_none() => Some("it takes libfaketime: install it"),
            _ => None,
        }
    }

    /// Who publishes from the beginning on: what a region accepts before another one knows of it, that one's
    /// subscribers do not get.
    fn publishers(self, world: &World, traffic: &Traffic) -> Vec<usize> {
        let regions = world.regions.iter().skip(usize::from(self == Self::LinkBegins));
        regions.flat_map(|region| traffic.of(region.name)).collect()
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
            partitions: if self == Self::ClusterMasterHangs { CLUSTER_PARTITIONS } else { PARTITIONS },
            durable: true,
            wan: settings.wan,
            sentinels: self == Self::RedisFailover,
            cluster: self == Self::ClusterMasterHangs,
            detour: self == Self::CommandsSlow,
            late_link: self == Self::LinkBegins,
            clock_offset: if self == Self::ClockOff { CLOCK_OFFSET_SECONDS } else { 0 },
            sessions: (self == Self::NodeFull).then_some(settings.load.of_node()),
            seed: settings.seed,
        };
        let mut world = World::start(&plan).await.context("cannot start the regions")?;
        let mut traffic = Traffic::start(&world, &settings.load, settings.seed).await?;
        let clients = traffic.clients();
        traffic.publish(&self.publishers(&world, &traffic))?;
        sleep(WARM_UP).await;
        let random = SmallRng::seed_from_u64(settings.seed);
        let mut scene = Scene { world: &mut world, traffic: &mut traffic, settings, random };
        let affected = match scene.play(self).await {
            Ok(affected) => affected,
            Err(error) => {
                return Err(error.context(format!("the logs stay in {}", world.keep_logs().display())));
            }
        };
        traffic.served(&affected, SERVICE_TIMEOUT).await;
        sleep(settings.time(5.0, 2.0)).await;
        let services: Vec<_> = affected.iter().map(|client| traffic.service(*client)).collect();
        let outcome = traffic.finish(SETTLING).await;
        let carriage = world.wan.carriage().await?;
        let report = Report::new(
            (self.name(), self.may_lose()),
            settings.seed,
            (&settings.load.kinds(), clients),
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
