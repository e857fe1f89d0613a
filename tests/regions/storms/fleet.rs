//! Three regions: `eu` on a single Redis, `us` on a cluster whose masters have replicas, `ap` on a Redis that sentinels
//! watch.

use crate::{
    deployment::{config_file, config_of},
    storms::{REGIONS, blows, failovers::SLOTS},
};
use skywave::{config::Config, server::Server};
use skywave_testing::{RedisCluster, RedisServer, Relay, Sentinels, cluster::is_linked, eventually};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

/// How long sentinels may take until there are a master and its replica again: for 30 s they do nothing where they
/// could not run for 2 s.
pub const WHOLE_AGAIN: Duration = Duration::from_secs(90);

/// Two servers, of which the second begins as a replica of the first.
pub struct Pair(pub [RedisServer; 2]);

pub struct Fleet {
    pub single: RedisServer,
    /// With a master that joined later and has no slots at first.
    pub cluster: Vec<Pair>,
    pub joined: RedisServer,
    pub seeds: String,
    pub watched: Pair,
    pub sentinels: Sentinels,
    /// To the single one, from the others.
    pub paths: BTreeMap<&'static str, Relay>,
    pub nodes: BTreeMap<&'static str, Vec<Server>>,
    changes: &'static str,
}

impl Fleet {
    pub async fn start(durable: bool, fails_over: bool, changes: &'static str) -> Self {
        let durability: &[&str] =
            if durable { &["--appendonly", "yes", "--appendfsync", "always"] } else { &[] };
        let common = [durability, &["--enable-debug-command", "yes"]].concat();
        let single = RedisServer::with(&common).await;
        let loyalty = ["--cluster-replica-no-failover", if fails_over { "no" } else { "yes" }];
        let cluster = RedisCluster::replicated_with(&[&common[..], &loyalty].concat()).await;
        let joined = cluster.join_with(&common).await;
        let seeds = cluster.url();
        let master = RedisServer::with(&common).await;
        let port = master.port().to_string();
        let replica = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let replica = RedisServer::with(&[&common[..], &replica].concat()).await;
        eventually("replication", async || is_linked(&replica).await).await;
        let sentinels = Sentinels::watch(&master, if fails_over { 500 } else { 60_000 }).await;
        let mut paths = BTreeMap::new();
        for name in ["us", "ap"] {
            paths.insert(name, Relay::tcp(single.port()).await);
        }
        let RedisCluster { masters, replicas, .. } = cluster;
        let cluster = masters.into_iter().zip(replicas).map(|(one, other)| Pair([one, other])).collect();
        let mut fleet = Self {
            single,
            cluster,
            joined,
            seeds,
            watched: Pair([master, replica]),
            sentinels,
            paths,
            nodes: BTreeMap::new(),
            changes,
        };
        for name in REGIONS {
            for _ in 0..2 {
                fleet.add_node(name).await;
            }
        }
        for name in REGIONS {
            eventually("the bridges", async || fleet.is_bridged(name).await).await;
        }
        fleet
    }

    /// Whether a region has a cursor in each other region's log.
    async fn is_bridged(&self, name: &str) -> bool {
        let servers: Vec<_> = match name {
            "us" => self.cluster.iter().map(|pair| &pair.0[0]).collect(),
            "ap" => vec![&self.watched.0[0]],
            _ => vec![&self.single],
        };
        for other in REGIONS.iter().filter(|other| **other != name) {
            for partition in 0..4 {
                let mut cursor = None;
                for server in &servers {
                    let asked = format!("HGET sky:{{{partition}}}:cursor {other}");
                    cursor = cursor.or(server.try_run::<Option<String>>(&asked).await.flatten());
                }
                if cursor.is_none() {
                    return false;
                }
            }
        }
        true
    }

    fn cluster_servers(&self) -> impl Iterator<Item = &RedisServer> {
        self.cluster.iter().flat_map(|pair| &pair.0).chain([&self.joined])
    }

    /// Waits until each master has a replica and each slot a master.
    pub async fn becomes_whole(&self) {
        for pair in self.cluster.iter().chain([&self.watched]) {
            blows::becomes_whole(pair).await;
        }
        let servers: Vec<_> = self.cluster_servers().collect();
        blows::become_settled(&SLOTS, &servers).await;
    }

    /// No replica takes over any more by itself, and no server is soon given up for being slow.
    pub async fn keep_masters(&self) {
        for server in self.cluster_servers() {
            server.insist("CONFIG SET cluster-replica-no-failover yes").await;
            server.insist("CONFIG SET cluster-node-timeout 10000").await;
        }
        self.sentinels.believe_in_it_for(60_000).await;
    }

    /// How a region's Redis is reached, from another region's nodes or its own.
    fn url(&self, name: &str, from: &str) -> String {
        match (name, self.paths.get(from)) {
            ("us", _) => self.seeds.clone(),
            ("ap", _) => self.sentinels.url(),
            (_, Some(path)) => path.url("redis"),
            (_, None) => self.single.url(),
        }
    }

    fn config(&self, name: &str) -> Config {
        let others = REGIONS.iter().filter(|other| **other != name);
        let others = others.map(|other| (*other, self.url(other, name)));
        config_of(&config_file(name, &self.url(name, name), self.changes, others))
    }

    /// Adds a node, as soon as its Redis has masters.
    pub async fn add_node(&mut self, name: &'static str) {
        let begun = Instant::now();
        let node = loop {
            match Server::start(self.config(name)).await {
                Ok(node) => break node,
                Err(error) => assert!(begun.elapsed() < WHOLE_AGAIN, "{name}: {error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        self.nodes.entry(name).or_default().push(node);
    }
}
