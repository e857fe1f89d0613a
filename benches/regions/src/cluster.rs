//! Redis servers that share the slots of a cluster, without replicas: where one hangs, the others go on.

use crate::redis::Redis;
use anyhow::bail;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SLOTS: usize = 16_384;
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// What each of its servers is started with.
pub const SETTINGS: [&str; 6] =
    ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"];

/// Gives each of `masters` its share of the slots, and waits until all know of each other.
///
/// # Errors
/// When they do not agree within 20 s.
pub async fn join(masters: &[Redis]) -> anyhow::Result<()> {
    let count = masters.len();
    for (number, master) in masters.iter().enumerate() {
        let (first, last) = (SLOTS * number / count, SLOTS * (number + 1) / count - 1);
        master.run::<()>(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await?;
        master.run::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await?;
    }
    if let Some((first, others)) = masters.split_first() {
        for other in others {
            let bus: (String, u16) = other.run("CONFIG GET cluster-port").await?;
            let address = other.address();
            let meet = format!("CLUSTER MEET {} {} {}", address.ip(), address.port(), bus.1);
            first.run::<()>(&meet).await?;
        }
    }
    let deadline = Instant::now() + START_TIMEOUT;
    for master in masters {
        while !knows_all(master, count).await? {
            if Instant::now() > deadline {
                bail!("the servers of a cluster do not agree");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

async fn knows_all(master: &Redis, count: usize) -> anyhow::Result<bool> {
    let info: String = master.run("CLUSTER INFO").await?;
    let has = |line: &str| info.lines().any(|one| one.trim() == line);
    Ok(has("cluster_state:ok")
        && has(&format!("cluster_slots_ok:{SLOTS}"))
        && has(&format!("cluster_size:{count}")))
}
