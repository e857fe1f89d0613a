//! What a publication costs each region's Redis, as nodes and regions grow.

use crate::{
    redis::Redis,
    stream::Stream,
    world::{Plan, World},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::sleep;

/// Nodes in one region, and one node in each of more regions.
const SHAPES: [(usize, usize); 5] = [(1, 1), (1, 2), (1, 4), (2, 1), (3, 1)];
const RATE: u64 = 500;
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Commands that a publication causes less often than this are not listed.
const WORTH_LISTING: f64 = 0.05;

/// Counters of one server, or their growth.
#[derive(Debug, Clone, Default)]
struct Counters {
    received_bytes: f64,
    sent_bytes: f64,
    calls: BTreeMap<String, f64>,
}

impl Counters {
    async fn read(redis: &Redis) -> anyhow::Result<Self> {
        let stats: String = redis.run("INFO stats").await?;
        let commands: String = redis.run("INFO commandstats").await?;
        let field = |name: &str| {
            let value = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
        };
        let calls = commands.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        });
        Ok(Self {
            received_bytes: field("total_net_input_bytes"),
            sent_bytes: field("total_net_output_bytes"),
            calls: calls.collect(),
        })
    }

    fn minus(&self, other: &Self) -> Self {
        let of = |name: &str| other.calls.get(name).copied().unwrap_or(0.0);
        Self {
            received_bytes: self.received_bytes - other.received_bytes,
            sent_bytes: self.sent_bytes - other.sent_bytes,
            calls: self.calls.iter().map(|(name, count)| (name.clone(), count - of(name))).collect(),
        }
    }

    fn per(&self, publications: f64) -> Self {
        let calls = self.calls.iter().map(|(name, count)| (name.clone(), count / publications));
        Self {
            received_bytes: self.received_bytes / publications,
            sent_bytes: self.sent_bytes / publications,
            calls: calls.collect(),
        }
    }

    fn list(&self) -> String {
        let mut calls: Vec<_> = self.calls.iter().filter(|(_, count)| **count >= WORTH_LISTING).collect();
        calls.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        calls.into_iter().map(|(name, count)| format!("{name} {count:.1}")).collect::<Vec<_>>().join(", ")
    }
}

/// Measures, and prints a table in Markdown. What goes on without publications is subtracted.
///
/// # Errors
/// When something does not arrive.
pub async fn run(plan: &Plan, time: Duration) -> anyhow::Result<()> {
    println!(
        "| regions | nodes in each | Redis of | commands | received | sent | which (those inside scripts too) |"
    );
    println!("|--:|--:|---|--:|--:|--:|---|");
    for (count, nodes) in SHAPES.into_iter().filter(|(count, _)| *count <= plan.regions) {
        let plan = Plan { regions: count, nodes_per_region: nodes, ..plan.clone() };
        let world = World::start(&plan).await?;
        for (region, counters) in measure(&world, time).await? {
            let commands: f64 = counters.calls.values().sum();
            println!(
                "| {count} | {nodes} | {region} | {commands:.1} | {:.0} B | {:.0} B | {} |",
                counters.received_bytes,
                counters.sent_bytes,
                counters.list()
            );
        }
    }
    Ok(())
}

async fn measure(world: &World, time: Duration) -> anyhow::Result<Vec<(String, Counters)>> {
    let stream = Stream::start(world).await?;
    let warm = stream.publish(RATE, Duration::from_secs(1)).await?;
    stream.arrived(warm, ARRIVAL_TIMEOUT).await?;
    let before = all(world).await?;
    sleep(time).await;
    let idle = all(world).await?;
    let published = stream.publish(RATE, time).await?;
    stream.arrived(warm + published, ARRIVAL_TIMEOUT).await?;
    let after = all(world).await?;
    stream.close().await;
    let regions = world.regions.iter().map(|region| region.name.to_owned());
    let counters = before.iter().zip(&idle).zip(&after).map(|((before, idle), after)| {
        let background = idle.minus(before);
        after.minus(idle).minus(&background).per(published as f64)
    });
    Ok(regions.zip(counters).collect())
}

async fn all(world: &World) -> anyhow::Result<Vec<Counters>> {
    let mut all = Vec::new();
    for region in &world.regions {
        all.push(Counters::read(&region.redis).await?);
    }
    Ok(all)
}
