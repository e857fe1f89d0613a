//! The storm of regions on a cluster and on a Redis that sentinels watch: masters change, and slots move.

use super::{Force, REGIONS, Sky, World, blows, fleet::Fleet, random};
use rand::{RngExt, rngs::SmallRng};
use skywave::server::Server;
use skywave_testing::{RedisServer, Relay};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// The slots of the partitions 0 to 3.
pub const SLOTS: [u64; 4] = [13_907, 9_842, 5_649, 1_584];

pub struct Failovers {
    force: Force,
    random: SmallRng,
    world: Arc<World>,
    fleet: Fleet,
    told: Vec<String>,
}

impl Failovers {
    pub async fn start(force: Force, seed: u64) -> Self {
        let durable = force == Force::Gentle || random(seed, 98).random_bool(0.5);
        let fleet = Fleet::start(durable, force == Force::Full, super::CHANGES).await;
        let world = Arc::new(World::new(seed));
        let storm = Self { force, random: random(seed, 99), world, fleet, told: Vec::new() };
        storm.tell_places();
        storm
    }

    fn tell_places(&self) {
        for (region, nodes) in &self.fleet.nodes {
            let place = |server: &Server| (server.plain().unwrap(), server.node().clone());
            self.world.places.lock().unwrap().insert(*region, nodes.iter().map(place).collect());
        }
    }

    fn tell(&mut self, what: impl std::fmt::Display) {
        self.told.push(format!("{:?} {what}", self.world.begun.elapsed()));
    }

    async fn replace_node(&mut self, region: &'static str) {
        let which = self.random.random_range(0..2);
        drop(self.fleet.nodes.get_mut(region).unwrap().remove(which));
        self.fleet.add_node(region).await;
        self.tell_places();
    }

    /// One of a region's servers that takes writes.
    async fn server(&mut self, region: &str) -> &RedisServer {
        let shard = self.random.random_range(0..3);
        match region {
            "us" => self.fleet.cluster[shard].roles().await.0,
            "ap" => self.fleet.watched.roles().await.0,
            _ => &self.fleet.single,
        }
    }

    fn blow_at_paths(&mut self) {
        let from = ["us", "ap"][self.random.random_range(0..2)];
        let delay = Duration::from_millis(self.random.random_range(0..120));
        let path = &self.fleet.paths[from];
        match self.random.random_range(0..3) {
            0 => path.cut(),
            1 => path.set(|weather| weather.delay = delay),
            _ => self.fleet.paths.values().for_each(Relay::heal),
        }
    }

    /// Another master, which has all; slots that move.
    async fn pass_on(&mut self) {
        let shard = self.random.random_range(0..3);
        match self.random.random_range(0..4) {
            0 => {
                let (_, replica) = self.fleet.cluster[shard].roles().await;
                replica.try_run::<()>("CLUSTER FAILOVER").await;
                // Else a slot that moves may be torn apart, which loses something.
                let becomes_master = async {
                    while !replica.is_master().await {
                        sleep(Duration::from_millis(20)).await;
                    }
                };
                timeout(Duration::from_secs(6), becomes_master).await.ok();
                self.tell(format!("failover of {shard}"));
            }
            _ => self.move_slot().await,
        }
    }

    async fn move_slot(&mut self) {
        let partition = self.random.random_range(0..4);
        let slot = SLOTS[partition];
        let mut random = random(self.random.random(), 0);
        let mut owners = vec![&self.fleet.joined];
        for pair in &self.fleet.cluster {
            owners.push(pair.roles().await.0);
        }
        let mut from = None;
        for (number, server) in owners.iter().enumerate() {
            if blows::has_slot(server, slot).await {
                from = Some(number);
            }
        }
        let Some(from) = from else { return };
        let to = (from + random.random_range(1..owners.len())) % owners.len();
        let said = blows::move_slot(slot, owners[from], owners[to], &mut random).await;
        self.tell(format!("{said} {partition} from {from} to {to}"));
    }

    /// Another master, which may not have all.
    async fn fail_over(&mut self) {
        let shard = self.random.random_range(0..3);
        let kind = self.random.random_range(0..10);
        self.tell(format!("failover {kind} {shard}"));
        let mut random = random(self.random.random(), 1);
        let random = &mut random;
        let (cluster, watched) = (&mut self.fleet.cluster[shard], &mut self.fleet.watched);
        match kind {
            0 => cluster.kill_master(random).await,
            1 | 2 => cluster.take_over_late(random, Some("CLUSTER FAILOVER TAKEOVER")).await,
            3 => cluster.take_over_late(random, None).await,
            4 => {
                let (master, replica) = cluster.roles().await;
                let frozen = if random.random_bool(0.7) { master } else { replica };
                frozen.freeze();
                blows::pause(random, 200..3_000).await;
                frozen.thaw();
            }
            5 => {
                let (_, replica) = cluster.roles().await;
                let how = if random.random_bool(0.5) { "TAKEOVER" } else { "FORCE" };
                replica.try_run::<()>(&format!("CLUSTER FAILOVER {how}")).await;
            }
            6 => {
                // Its words reach nobody; clients reach it all the same.
                let (master, _) = cluster.roles().await;
                master.try_run::<()>("DEBUG DROP-CLUSTER-PACKET-FILTER -2").await;
                blows::pause(random, 200..4_000).await;
                master.insist("DEBUG DROP-CLUSTER-PACKET-FILTER -1").await;
            }
            7 | 8 => watched.kill_master(random).await,
            _ => drop(self.fleet.sentinels.fail_over().await),
        }
    }
}

impl Sky for Failovers {
    fn world(&self) -> &Arc<World> {
        &self.world
    }

    fn told(&self) -> &[String] {
        &self.told
    }

    async fn blow(&mut self) {
        let region = REGIONS[self.random.random_range(0..3)];
        let kinds = if self.force == Force::Gentle { 10 } else { 20 };
        match self.random.random_range(0..kinds) {
            0 | 1 => {
                self.tell("paths");
                self.blow_at_paths();
            }
            2 => {
                self.tell(format!("node of {region}"));
                self.replace_node(region).await;
            }
            3..=5 => self.pass_on().await,
            6..=9 => {
                let mut random = random(self.random.random(), 2);
                let server = self.server(region).await;
                let said = blows::disturb(server, &mut random).await;
                self.tell(format!("{said} of {region}"));
            }
            10..=17 => self.fail_over().await,
            _ => {
                let mut random = random(self.random.random(), 3);
                let server = self.server(region).await;
                let said = blows::rob(server, &mut random).await;
                self.tell(format!("without {said} of {region}"));
            }
        }
    }

    async fn calm(&mut self) {
        self.tell("calm");
        for path in self.fleet.paths.values() {
            path.heal();
            path.set(|weather| weather.delay = Duration::ZERO);
        }
        self.fleet.becomes_whole().await;
        // On a slow machine masters change though nothing is done to them, and what they lose would be told after the
        // end.
        self.fleet.keep_masters().await;
        self.fleet.becomes_whole().await;
        self.tell("whole");
        sleep(Duration::from_millis(100)).await;
    }
}
