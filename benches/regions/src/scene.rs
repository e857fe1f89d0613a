//! What is done to the regions while clients publish: how each fault is made and healed.

use crate::{
    faults::{Fault, HIT, SERVICE_TIMEOUT, Settings},
    seeding::seed,
    traffic::Traffic,
    world::{PARTITIONS, World},
};
use anyhow::Context;
use rand::{RngExt, rngs::SmallRng};
use skywave_client::CertificateCheck;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a master stands still: long enough for the others to give up their connections to it.
const HANGING: Duration = Duration::from_millis(2_200);
const COMMANDS_LATE: Duration = Duration::from_millis(300);
/// How long a link may take to begin.
const BEGINNING: Duration = Duration::from_secs(600);

pub struct Scene<'a> {
    pub world: &'a mut World,
    pub traffic: &'a mut Traffic,
    pub settings: &'a Settings,
    pub random: SmallRng,
}

impl Scene<'_> {
    /// Breaks and heals; gives the clients that are affected.
    pub async fn play(&mut self, fault: Fault) -> anyhow::Result<Vec<usize>> {
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
            Fault::RedisRefusesWrites => self.refuse_writes().await,
            Fault::RedisFlushed => self.flush_redis().await,
            Fault::ClusterMasterHangs => self.hang_masters().await,
            Fault::CommandsSlow => self.slow_commands().await,
            Fault::ClockOff => self.go_on().await,
            Fault::RegionCut => self.cut_region(false).await,
            Fault::LogsTrimmed => self.cut_region(true).await,
            Fault::OneWayCut => self.cut_one_way().await,
            Fault::LinkBegins => self.begin_link().await,
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

    async fn refuse_writes(&mut self) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT);
        let redis = &mut self.world.regions[HIT].redis;
        redis.kill().await?;
        self.traffic.mark();
        // It has no replica.
        redis.relaunch_with(&["--min-replicas-to-write", "1"]).await?;
        sleep(self.settings.time(10.0, 5.0)).await;
        let nodes = self.nodes_of(HIT);
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        self.traffic.are_served(&affected, &nodes).await;
        self.world.regions[HIT].redis.run::<()>("CONFIG SET min-replicas-to-write 0").await?;
        Ok(affected)
    }

    async fn flush_redis(&mut self) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT);
        self.traffic.mark();
        for _ in 0..3 {
            self.world.regions[HIT].redis.run::<()>("FLUSHALL").await?;
            // What is accepted until the links have begun anew is lost with the next one.
            sleep(self.settings.time(10.0, 8.0)).await;
        }
        Ok(affected)
    }

    async fn hang_masters(&mut self) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT);
        self.traffic.mark();
        for _ in 0..3 {
            let hanging = self.listened_to().await?;
            let master = self.world.regions[HIT].masters().nth(hanging).context("no such master")?;
            master.freeze(true)?;
            sleep(HANGING).await;
            master.freeze(false)?;
            sleep(self.settings.time(5.0, 3.0)).await;
        }
        Ok(affected)
    }

    /// The number of a master that has no channels, on which another region hears what this one accepts.
    async fn listened_to(&mut self) -> anyhow::Result<usize> {
        let region = &self.world.regions[HIT];
        let deadline = Instant::now() + SERVICE_TIMEOUT;
        loop {
            for (number, master) in region.masters().enumerate() {
                let listened_to: Vec<String> = master.run("PUBSUB CHANNELS sky:*:out").await?;
                let has_log = async |partition: u16| {
                    master.run::<u64>(&format!("EXISTS sky:{{{partition}}}:log")).await.is_ok()
                };
                if !listened_to.is_empty() && !has_log(0).await && !has_log(1).await {
                    return Ok(number);
                }
            }
            anyhow::ensure!(Instant::now() < deadline, "no other region listens to such a master");
            // Whoever listens chooses by chance.
            for master in region.masters() {
                master.run::<u64>("CLIENT KILL TYPE pubsub").await?;
            }
            sleep(Duration::from_secs(2)).await;
        }
    }

    async fn slow_commands(&mut self) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT);
        let other = self.nodes_of(HIT).pop().context("no node")?;
        let detour = |scene: &Self, late| -> anyhow::Result<()> {
            scene.world.regions[HIT].detour.as_ref().context("no detour")?.delay_commands(late);
            Ok(())
        };
        detour(self, COMMANDS_LATE)?;
        self.traffic.mark();
        sleep(self.settings.time(5.0, 2.0)).await;
        // Its sessions come to the slow one, and read there what they missed.
        self.world.node(&other)?.kill().await?;
        self.traffic.mark();
        self.traffic.served(&affected, SERVICE_TIMEOUT).await;
        sleep(self.settings.time(5.0, 2.0)).await;
        self.world.node(&other)?.start().await?;
        detour(self, Duration::ZERO)?;
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

    async fn begin_link(&mut self) -> anyhow::Result<Vec<usize>> {
        let affected = self.clients_of(HIT + 1);
        let (region, certificate) = (&self.world.regions[HIT], self.world.certificate.sha256);
        let (site, url) = (region.site.clone(), region.nodes[0].url());
        let count = if self.settings.quick { 5_000 } else { 50_000 };
        seed(&site, &url, CertificateCheck::Sha256(vec![certificate]), count).await?;
        self.world.configure(None);
        self.traffic.mark();
        for name in self.nodes_of(HIT + 1) {
            let node = self.world.node(&name)?;
            node.drain()?;
            node.drained().await?;
            node.start().await?;
        }
        self.world.bridged(None, BEGINNING).await?;
        self.traffic.publish(&self.traffic.of(self.world.regions[HIT].name))?;
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
