//! What a storm does to servers of Redis.

use crate::storms::fleet::{Pair, WHOLE_AGAIN};
use rand::{RngExt, rngs::SmallRng};
use skywave_testing::{RedisServer, cluster::id_of};
use std::{collections::HashMap, time::Duration};
use tokio::time::{sleep, timeout};

pub async fn pause(random: &mut SmallRng, ms: std::ops::Range<u64>) {
    sleep(Duration::from_millis(random.random_range(ms))).await;
}

/// Loses nothing.
pub async fn disturb(server: &RedisServer, random: &mut SmallRng) -> &'static str {
    match random.random_range(0..8) {
        0 => {
            server.try_run::<u64>("CLIENT KILL TYPE normal SKIPME yes").await;
            "normal connections"
        }
        1 => {
            server.try_run::<u64>("CLIENT KILL TYPE pubsub SKIPME yes").await;
            "pubsub connections"
        }
        2 => {
            server.try_run::<()>("SCRIPT FLUSH").await;
            "scripts"
        }
        3 => {
            let kind = if random.random_bool(0.5) { "WRITE" } else { "ALL" };
            let time = random.random_range(100..2_500);
            server.try_run::<()>(&format!("CLIENT PAUSE {time} {kind}")).await;
            pause(random, 0..time).await;
            "pause"
        }
        4 => {
            server.try_run::<()>("CONFIG SET maxmemory 1").await;
            pause(random, 100..2_000).await;
            server.insist("CONFIG SET maxmemory 0").await;
            "memory"
        }
        5 => {
            server.try_run::<()>("CONFIG SET min-replicas-to-write 5").await;
            pause(random, 100..2_000).await;
            server.insist("CONFIG SET min-replicas-to-write 0").await;
            "replicas"
        }
        6 => {
            server
                .try_run_words::<()>(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 300 0 0"])
                .await
                .ok();
            pause(random, 100..2_000).await;
            server
                .try_run_words::<()>(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"])
                .await
                .ok();
            "output buffers"
        }
        _ => {
            // Who is connected stays so, unless it is cut.
            let cut = random.random_bool(0.5);
            let time = Duration::from_millis(random.random_range(100..2_000));
            server.lock_out(cut, time).await;
            "password"
        }
    }
}

/// Loses some of what it has.
pub async fn rob(server: &RedisServer, random: &mut SmallRng) -> String {
    match random.random_range(0..4) {
        0 => {
            server.try_run::<()>("FLUSHALL").await;
            "all".to_owned()
        }
        1 => {
            let used: u64 = server
                .try_run::<String>("INFO memory")
                .await
                .and_then(|info| {
                    info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok())
                })
                .unwrap_or_default();
            server.try_run::<()>("CONFIG SET maxmemory-policy allkeys-random").await;
            server.try_run::<()>(&format!("CONFIG SET maxmemory {}", used * 99 / 100)).await;
            pause(random, 5..200).await;
            server.insist("CONFIG SET maxmemory 0").await;
            server.insist("CONFIG SET maxmemory-policy noeviction").await;
            "evicted".to_owned()
        }
        _ => {
            let mut keys: Vec<String> = server.try_run("KEYS sky:{*").await.unwrap_or_default();
            keys.sort();
            if keys.is_empty() {
                return "nothing".to_owned();
            }
            let key = keys[random.random_range(0..keys.len())].clone();
            server.try_run::<u64>(&format!("DEL {key}")).await;
            format!("key {key}")
        }
    }
}

impl Pair {
    /// The master and the other one.
    pub async fn roles(&self) -> (&RedisServer, &RedisServer) {
        let [one, other] = &self.0;
        if other.is_master().await && !one.is_master().await { (other, one) } else { (one, other) }
    }

    /// Its master dies and comes back, in time or not.
    pub async fn kill_master(&mut self, random: &mut SmallRng) {
        let index = usize::from({
            let (master, _) = self.roles().await;
            std::ptr::eq(master, &self.0[1])
        });
        self.0[index].kill();
        pause(random, 0..3_500).await;
        self.0[index].relaunch().await;
    }

    /// Has the replica take over with what it had some time ago. For a moment there are two masters.
    pub async fn take_over_late(&self, random: &mut SmallRng, command: Option<&str>) {
        let (master, replica) = self.roles().await;
        replica.freeze();
        pause(random, 100..1_500).await;
        master.freeze();
        replica.thaw();
        match command {
            Some(command) => {
                replica.try_run::<()>(command).await;
            }
            None => pause(random, 500..2_500).await,
        }
        pause(random, 0..1_500).await;
        master.thaw();
    }
}

/// Has all that stands in a slot move, or go back, or be torn apart while its master fails.
pub async fn move_slot(slot: u64, from: &RedisServer, to: &RedisServer, random: &mut SmallRng) -> String {
    let (source, target) = (id_of(from).await, id_of(to).await);
    let kind = random.random_range(0..4);
    to.try_run::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}")).await;
    from.try_run::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}")).await;
    let mut moved = 0;
    while let Some(true) = move_keys(slot, from, to, 1 + kind * 3).await {
        moved += 1;
        pause(random, 0..30).await;
        if kind == 0 && moved == 3 {
            // It goes back.
            while let Some(true) = move_keys(slot, to, from, 1).await {}
            settle(slot, &source, &[from, to]).await;
            return "moved back".to_owned();
        }
    }
    settle(slot, &target, &[to, from]).await;
    "moved".to_owned()
}

/// A move that stays open has all calls refused that write keys which are not there yet: whoever has the slot again
/// while keys are in it ends that only when told to.
async fn settle(slot: u64, owner: &str, servers: &[&RedisServer]) {
    for end in [format!("NODE {owner}"), "STABLE".to_owned()] {
        for server in servers {
            // Not one that has become a replica, or as long as it has keys that did not move.
            for _ in 0..3 {
                if server.try_run::<()>(&format!("CLUSTER SETSLOT {slot} {end}")).await.is_some() {
                    break;
                }
            }
        }
    }
}

/// Ends each move that is open, and waits until every slot of `slots` has one master that all know.
pub async fn become_settled(slots: &[u64], servers: &[&RedisServer]) {
    let settled = async {
        while !are_settled(slots, servers).await {
            for (slot, server) in
                slots.iter().flat_map(|slot| servers.iter().map(move |server| (slot, server)))
            {
                server.try_run::<()>(&format!("CLUSTER SETSLOT {slot} STABLE")).await;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(WHOLE_AGAIN, settled).await.expect("slots that no master has, or several");
}

async fn are_settled(slots: &[u64], servers: &[&RedisServer]) -> bool {
    let mut masters = HashMap::new();
    for server in servers {
        let Some(nodes) = server.try_run::<String>("CLUSTER NODES").await else { return false };
        let is_open = nodes.contains("->-") || nodes.contains("-<-");
        let is_well = server.try_run::<String>("CLUSTER INFO").await;
        if is_open || !is_well.is_some_and(|told| told.contains("cluster_state:ok")) {
            return false;
        }
        for slot in slots {
            let owners: Vec<_> = nodes.lines().filter(|line| has(line, *slot)).collect();
            let [owner] = &*owners else { return false };
            let id = owner.split(' ').next().unwrap_or_default().to_owned();
            if *masters.entry(*slot).or_insert_with(|| id.clone()) != id {
                return false;
            }
        }
    }
    true
}

pub async fn move_keys(slot: u64, from: &RedisServer, to: &RedisServer, count: u64) -> Option<bool> {
    let keys: Vec<String> = from.try_run(&format!("CLUSTER GETKEYSINSLOT {slot} {count}")).await?;
    if keys.is_empty() {
        return Some(false);
    }
    let port = to.port().to_string();
    let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "2000", "REPLACE", "KEYS"];
    let words: Vec<_> = words.into_iter().chain(keys.iter().map(String::as_str)).collect();
    from.try_run_words::<redis::Value>(&words).await.ok()?;
    Some(true)
}

/// The slots that a server believes to have.
pub async fn has_slot(server: &RedisServer, slot: u64) -> bool {
    let Some(nodes) = server.try_run::<String>("CLUSTER NODES").await else { return false };
    nodes.lines().any(|line| line.contains("myself") && has(line, slot))
}

/// Whether the server of a line of `CLUSTER NODES` has a slot.
fn has(line: &str, slot: u64) -> bool {
    line.contains("master")
        && line.split(' ').skip(8).any(|range| {
            let mut ends = range.split('-').filter_map(|end| end.parse::<u64>().ok());
            let first = ends.next();
            let last = ends.next().or(first);
            first.zip(last).is_some_and(|(first, last)| (first..=last).contains(&slot))
        })
}

async fn is_whole(pair: &Pair) -> bool {
    let [one, other] = &pair.0;
    let (first, second) = (one.is_master().await, other.is_master().await);
    let replica = match (first, second) {
        (true, false) => other,
        (false, true) => one,
        _ => return false,
    };
    replica
        .try_run::<String>("INFO replication")
        .await
        .is_some_and(|told| told.contains("master_link_status:up"))
}

/// Waits until it has a master and its replica.
pub async fn becomes_whole(pair: &Pair) {
    let whole = async {
        while !is_whole(pair).await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(WHOLE_AGAIN, whole).await.expect("no master with a replica");
}
