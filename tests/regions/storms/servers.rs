//! The storm of regions on one Redis each: links are cut and slow, and Redis restart, forget, fill up and have clocks
//! that jump.

use super::{CHANGES, CHANNELS, Force, HOME, REGIONS, SETTLING, Sky, World, random};
use crate::deployment::{Deployment, ear};
use rand::{RngExt, rngs::SmallRng};
use skywave::server::Server;
use skywave_testing::{RedisServer, Relay};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{sleep, timeout};

pub struct Storm {
    force: Force,
    random: SmallRng,
    world: Arc<World>,
    deployment: Deployment,
    /// Regions of which another one is without for now.
    out: BTreeMap<(&'static str, &'static str), Relay>,
    /// Regions whose clocks are not set back: of lives that have earlier names than one before, no order is known.
    fallen: BTreeSet<&'static str>,
    told: Vec<String>,
}

impl Storm {
    pub async fn start(force: Force, seed: u64) -> Self {
        let mut servers = Vec::new();
        for name in REGIONS {
            let server = match force {
                Force::Gentle => RedisServer::durable().await,
                Force::Full => RedisServer::with_clock().await,
            };
            servers.push((name, server));
        }
        let mut deployment = Deployment::on(servers, "", CHANGES).await;
        for name in REGIONS {
            deployment.add_node(name).await;
        }
        let storm = Self {
            force,
            random: random(seed, 99),
            world: Arc::new(World::new(seed)),
            deployment,
            out: BTreeMap::new(),
            fallen: BTreeSet::new(),
            told: Vec::new(),
        };
        storm.tell_places();
        storm
    }

    fn tell_places(&self) {
        for region in &self.deployment.regions {
            let place = |server: &Server| (server.plain().unwrap(), server.node().clone());
            let places = region.nodes.iter().map(place).collect();
            self.world.places.lock().unwrap().insert(region.name, places);
        }
    }

    fn redis(&self, region: &str) -> &RedisServer {
        &self.deployment.region(region).redis
    }

    /// Loses what was accepted, or what was brought.
    async fn lose(&mut self, what: u32, region: &'static str) {
        let partition = self.random.random_range(0..4);
        match what {
            10 => self.forget_cursor(region).await,
            11 => self.redis(region).run::<()>("SAVE").await,
            12 if self.random.random_bool(0.5) => self.redis(region).run::<()>("FLUSHALL").await,
            13 => {
                let kept = self.random.random_range(0..5);
                let trim = format!("XTRIM sky:{{{partition}}}:log MAXLEN = {kept}");
                self.redis(region).run::<u64>(&trim).await;
            }
            14 | 15 => {
                let mut keys: Vec<String> =
                    self.redis(region).run(&format!("KEYS sky:{{{partition}}}:*")).await;
                keys.sort();
                if !keys.is_empty() {
                    let key = &keys[self.random.random_range(0..keys.len())];
                    self.told.push(format!("without {key}"));
                    self.redis(region).run::<u64>(&format!("DEL {key}")).await;
                }
            }
            16 => {
                // As hours are: what is older is gone.
                let ahead = [-7_200, -300, -5, 0, 5, 300, 7_200][self.random.random_range(0..7)];
                let ahead = if self.fallen.contains(region) { 0 } else { ahead };
                self.told.push(format!("clock {ahead}"));
                self.redis(region).set_clock(ahead).await;
            }
            17 => {
                self.redis(region).run::<()>("CONFIG SET maxmemory 1").await;
                let pause = self.random.random_range(100..3_000);
                sleep(Duration::from_millis(pause)).await;
                self.redis(region).run::<()>("CONFIG SET maxmemory 0").await;
            }
            _ => {}
        }
    }

    /// Two regions lose all while they are cut off from each other.
    async fn lose_both(&mut self, region: &'static str, other: &'static str) {
        for (here, there) in [(region, other), (other, region)] {
            self.path(here, there, |path| {
                path.cut();
                path.reset();
            });
        }
        let pause = self.random.random_range(0..300);
        sleep(Duration::from_millis(pause)).await;
        self.redis(region).run::<()>("FLUSHALL").await;
        self.redis(other).run::<()>("FLUSHALL").await;
    }

    /// Where a link began is lost, with where a channel stands, and what the region publishes comes before all is
    /// filled in.
    async fn lose_the_beginning(&mut self, region: &'static str) {
        let channel = CHANNELS[self.random.random_range(0..CHANNELS.len())];
        let others = REGIONS.iter().filter(|other| **other != region);
        others.for_each(|other| self.path(region, other, Relay::cut));
        for partition in 0..4 {
            let keys = format!("DEL sky:{{{partition}}}:cursor sky:{{{partition}}}:pos:{channel}");
            self.redis(region).run::<u64>(&keys).await;
        }
        let pause = self.random.random_range(0..300);
        sleep(Duration::from_millis(pause)).await;
    }

    /// A region that is cut off restarts, and then loses all with all who know of it, while its clock stands behind.
    /// Nobody sees what it begins before the others know: whose epoch has an earlier name is led back where it has not
    /// come yet.
    async fn lose_all_knowledge(&mut self, region: &'static str) {
        if !self.out.is_empty() {
            return;
        }
        for other in REGIONS {
            for (here, there) in [(region, other), (other, region)] {
                self.path(here, there, |path| {
                    path.cut();
                    path.reset();
                });
            }
        }
        self.deployment.region_mut(region).redis.restart().await;
        let pause = self.random.random_range(100..1_500);
        sleep(Duration::from_millis(pause)).await;
        let elsewhere = REGIONS.iter().find(|other| **other != region).unwrap();
        let deaf = ear(elsewhere, self.redis(elsewhere)).await;
        self.world.places.lock().unwrap().insert(region, Vec::new());
        self.deployment.region_mut(region).nodes.clear();
        self.deployment.region_mut(region).ear = deaf;
        self.redis(region).set_clock(-7_200).await;
        self.redis(region).run::<()>("FLUSHALL").await;
        for _ in 0..2 {
            self.deployment.add_node(region).await;
        }
        self.redis(region).set_clock(0).await;
        self.fallen.insert(region);
        self.deployment.region_mut(region).ear = ear(region, self.redis(region)).await;
        self.deployment.paths.values().for_each(Relay::heal);
        let known = async || {
            while !self.is_known(region).await {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(SETTLING, known()).await.unwrap();
        self.tell_places();
    }

    /// Whether all regions have come to the present lives of this one.
    async fn is_known(&self, region: &str) -> bool {
        for partition in 0..4 {
            let life: Option<String> =
                self.redis(region).run(&format!("HGET sky:{{{partition}}}:life life")).await;
            for other in REGIONS.iter().filter(|other| **other != region) {
                let cursor: Option<String> =
                    self.redis(other).run(&format!("HGET sky:{{{partition}}}:cursor {region}")).await;
                if life.is_none() || cursor.unwrap_or_default().split(' ').next() != life.as_deref() {
                    return false;
                }
            }
        }
        true
    }

    fn path(&self, region: &'static str, other: &'static str, change: impl FnOnce(&Relay)) {
        if let Some(path) = self.deployment.paths.get(&(region, other)) {
            change(path);
        }
    }

    async fn forget_cursor(&mut self, region: &str) {
        let partition = self.random.random_range(0..4);
        self.redis(region).run::<u64>(&format!("DEL sky:{{{partition}}}:cursor")).await;
    }

    /// Another node takes the place of one that ends without a farewell.
    async fn replace_node(&mut self, region: &str) {
        let which = self.random.random_range(0..2);
        drop(self.deployment.region_mut(region).nodes.remove(which));
        self.deployment.add_node(region).await;
        self.tell_places();
    }

    /// Nodes that start from now on know nothing of the other region, or know of it again.
    async fn take_out_or_put_back(&mut self, region: &'static str, other: &'static str) {
        // Without the region that orders, its namespace would be refused.
        let is_fit = |name: &&&'static str| **name != HOME && **name != region;
        let other = if other == HOME { *REGIONS.iter().find(is_fit).unwrap() } else { other };
        let pair = (region, other);
        match self.out.remove(&pair) {
            Some(path) => drop(self.deployment.paths.insert(pair, path)),
            None => self.out.extend(self.deployment.paths.remove_entry(&pair)),
        }
        self.renew(region).await;
    }

    /// Nodes that know what is so now take the place of all of a region, one after the other.
    async fn renew(&mut self, region: &str) {
        for _ in 0..2 {
            drop(self.deployment.region_mut(region).nodes.remove(0));
            self.deployment.add_node(region).await;
            self.tell_places();
        }
    }
}

impl Sky for Storm {
    fn world(&self) -> &Arc<World> {
        &self.world
    }

    fn told(&self) -> &[String] {
        &self.told
    }

    /// Does something to a region, or to its path to another one.
    async fn blow(&mut self) {
        let region = REGIONS[self.random.random_range(0..3)];
        let other =
            *REGIONS.iter().filter(|name| **name != region).nth(self.random.random_range(0..2)).unwrap();
        let what = self.random.random_range(
            0..match self.force {
                Force::Gentle => 10,
                Force::Full => 22,
            },
        );
        self.told.push(format!("{:?} {what} {region} {other}", self.world.begun.elapsed()));
        match what {
            0 | 1 => self.path(region, other, Relay::cut),
            2 | 3 => self.deployment.paths.values().for_each(Relay::heal),
            4 => {
                let delay = Duration::from_millis(self.random.random_range(0..120));
                self.path(region, other, |path| path.set(|weather| weather.delay = delay));
            }
            5 => self.redis(region).cut_connections().await,
            6 => {
                self.redis(region).freeze();
                let pause = self.random.random_range(100..1_500);
                sleep(Duration::from_millis(pause)).await;
                self.redis(region).thaw();
            }
            7 => self.deployment.region_mut(region).redis.restart().await,
            8 => self.replace_node(region).await,
            9 => self.take_out_or_put_back(region, other).await,
            10..18 => self.lose(what, region).await,
            18 => self.lose_both(region, other).await,
            19 => self.lose_the_beginning(region).await,
            _ => self.lose_all_knowledge(region).await,
        }
    }

    async fn calm(&mut self) {
        self.told.push(format!("{:?} calm", self.world.begun.elapsed()));
        let changed: BTreeSet<_> = self.out.keys().map(|(region, _)| *region).collect();
        self.deployment.paths.append(&mut self.out);
        for path in self.deployment.paths.values() {
            path.heal();
            path.set(|weather| weather.delay = Duration::ZERO);
        }
        for region in changed {
            self.renew(region).await;
        }
        for region in REGIONS {
            self.deployment.bridged(region).await;
        }
    }
}
