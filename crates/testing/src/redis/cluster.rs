//! A Redis Cluster for tests: on free ports, its servers stopped when it is dropped.

use crate::{FREE_PORT, RedisServer, eventually};
use std::sync::{Arc, Weak};
use tokio::sync::Mutex;

const SLOTS: usize = 16_384;

pub struct RedisCluster {
    /// Each has about the same number of slots, in their order.
    pub masters: Vec<RedisServer>,
    /// Of each master one, or none.
    pub replicas: Vec<RedisServer>,
}

impl RedisCluster {
    /// One that tests share; each of them takes keys of its own.
    pub async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<RedisCluster>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    /// Three masters.
    pub async fn start() -> Self {
        Self::of(3, false, &[]).await
    }

    /// Three masters, each with a replica that takes its place.
    pub async fn replicated() -> Self {
        Self::of(3, true, &[]).await
    }

    /// As [`Self::replicated`], its servers with more settings.
    pub async fn replicated_with(settings: &[&str]) -> Self {
        Self::of(3, true, settings).await
    }

    async fn of(count: usize, replicated: bool, settings: &[&str]) -> Self {
        let mut masters = Vec::new();
        for number in 0..count {
            let server = Self::server(settings).await;
            let range = (SLOTS * number / count, SLOTS * (number + 1) / count - 1);
            server.run::<()>(&format!("CLUSTER ADDSLOTSRANGE {} {}", range.0, range.1)).await;
            server.run::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
            masters.push(server);
        }
        let mut cluster = Self { masters, replicas: Vec::new() };
        if replicated {
            for _ in 0..count {
                cluster.replicas.push(Self::server(settings).await);
            }
        }
        let first = &cluster.masters[0];
        for server in cluster.servers().skip(1) {
            meet(first, server).await;
        }
        let all = cluster.servers().count();
        for server in cluster.servers() {
            eventually("acquaintance", async || known_to(server).await == all).await;
        }
        for (replica, master) in cluster.replicas.iter().zip(&cluster.masters) {
            replica.run::<()>(&format!("CLUSTER REPLICATE {}", id_of(master).await)).await;
        }
        for server in cluster.servers() {
            eventually("a whole cluster", async || is_well(server).await).await;
        }
        for replica in &cluster.replicas {
            eventually("replication", async || is_linked(replica).await).await;
        }
        cluster
    }

    /// A server with no slots, which knows nobody.
    async fn server(settings: &[&str]) -> RedisServer {
        let cluster =
            ["--cluster-enabled", "yes", "--cluster-port", FREE_PORT, "--cluster-node-timeout", "1000"];
        let rest = ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"];
        RedisServer::with(&[&cluster[..], &rest[..], settings].concat()).await
    }

    /// A master without slots, which all know.
    pub async fn join(&self) -> RedisServer {
        self.join_with(&[]).await
    }

    /// As [`Self::join`], with more settings.
    pub async fn join_with(&self, settings: &[&str]) -> RedisServer {
        let server = Self::server(settings).await;
        meet(&self.masters[0], &server).await;
        let all = self.servers().count() + 1;
        for one in self.servers().chain([&server]) {
            eventually("acquaintance", async || known_to(one).await == all).await;
        }
        eventually("a whole cluster", async || is_well(&server).await).await;
        server
    }

    /// Gives all slots of a master to another one and forgets it, as `redis-cli --cluster del-node` of an empty one
    /// does. It runs on, and does not know.
    pub async fn forget(&self, leaving: usize, heir: usize) {
        let count = self.masters.len();
        let range = (SLOTS * leaving / count, SLOTS * (leaving + 1) / count - 1);
        let id = id_of(&self.masters[leaving]).await;
        self.masters[leaving].run::<()>(&format!("CLUSTER DELSLOTSRANGE {} {}", range.0, range.1)).await;
        let others = self.masters.iter().enumerate().filter(|(number, _)| *number != leaving);
        let others: Vec<_> = others.map(|(_, server)| server).collect();
        for server in &others {
            server.run::<()>(&format!("CLUSTER FORGET {id}")).await;
        }
        self.masters[heir].run::<()>(&format!("CLUSTER ADDSLOTSRANGE {} {}", range.0, range.1)).await;
        for server in others {
            eventually("a whole cluster", async || is_well(server).await).await;
        }
    }

    pub fn servers(&self) -> impl Iterator<Item = &RedisServer> {
        self.masters.iter().chain(&self.replicas)
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.masters.iter().map(|one| format!("127.0.0.1:{}", one.port())).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The number of the master that had a key at the beginning.
    pub async fn master_of(&self, key: &str) -> usize {
        self.slot_of(key).await * self.masters.len() / SLOTS
    }

    pub async fn slot_of(&self, key: &str) -> usize {
        self.masters[0].run_words(&["CLUSTER", "KEYSLOT", key]).await
    }
}

/// Begins to move a slot.
pub async fn open_slot(slot: usize, from: &RedisServer, to: &RedisServer) {
    to.run::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id_of(from).await)).await;
    from.run::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id_of(to).await)).await;
}

/// Moves up to `count` of the slot's keys; whether there were any.
pub async fn move_keys(slot: usize, from: &RedisServer, to: &RedisServer, count: usize) -> bool {
    let keys: Vec<String> = from.run(&format!("CLUSTER GETKEYSINSLOT {slot} {count}")).await;
    if keys.is_empty() {
        return false;
    }
    let port = to.port().to_string();
    let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
    let words: Vec<_> = words.into_iter().chain(keys.iter().map(String::as_str)).collect();
    from.run_words::<()>(&words).await;
    true
}

/// Ends what [`open_slot`] began.
pub async fn close_slot(slot: usize, from: &RedisServer, to: &RedisServer) {
    let owner = id_of(to).await;
    for server in [to, from] {
        server.run::<()>(&format!("CLUSTER SETSLOT {slot} NODE {owner}")).await;
    }
}

async fn meet(one: &RedisServer, other: &RedisServer) {
    let bus: Vec<String> = other.run("CONFIG GET cluster-port").await;
    one.run::<()>(&format!("CLUSTER MEET 127.0.0.1 {} {}", other.port(), bus[1])).await;
}

pub async fn id_of(server: &RedisServer) -> String {
    server.run("CLUSTER MYID").await
}

async fn known_to(server: &RedisServer) -> usize {
    let nodes: String = server.run("CLUSTER NODES").await;
    nodes.lines().filter(|line| !line.contains("handshake") && !line.contains("noaddr")).count()
}

async fn is_well(server: &RedisServer) -> bool {
    server.run::<String>("CLUSTER INFO").await.contains("cluster_state:ok")
}

pub async fn is_linked(replica: &RedisServer) -> bool {
    replica.run::<String>("INFO replication").await.contains("master_link_status:up")
}
