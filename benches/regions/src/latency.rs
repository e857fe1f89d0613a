//! How much longer than the network needs a publication takes to another region, and how fast a link catches up.

use crate::{
    probe::Probe,
    report::Quantiles,
    stream::{Arrivals, Stream, TICK},
    wan::round_trip,
    world::{Plan, World},
};
use anyhow::Context;
use futures_util::future::try_join_all;
use skywave_client::CertificateCheck;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const RATES: [u64; 2] = [1_000, 10_000];
const CATCH_UP_RATE: u64 = 1_000;
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(120);
const WARM_UP: Duration = Duration::from_secs(2);

/// Measures, and prints tables in Markdown.
///
/// # Errors
/// When something does not arrive.
pub async fn run(plan: &Plan, time: Duration, cut: Duration) -> anyhow::Result<()> {
    let world = World::start(plan).await?;
    let stream = Stream::start(&world).await?;
    let mut published = stream.publish(100, WARM_UP).await?;
    stream.arrived(published, CATCH_UP_TIMEOUT).await?;
    delays(&stream, &mut published, time).await?;
    if plan.regions > 1 {
        catch_up(&world, &stream, published, cut).await?;
    }
    stream.close().await;
    Ok(())
}

async fn delays(stream: &Stream, published: &mut u64, time: Duration) -> anyhow::Result<()> {
    println!("| wanted per second | reached | to | half an RTT | p50 | p99 | added p50 | added p99 |");
    println!("|--:|--:|---|--:|--:|--:|--:|--:|");
    let home = stream.arrivals.first().context("no subscriber")?.0.clone();
    for rate in RATES {
        stream.arrivals.iter().for_each(|(_, arrivals)| drop(arrivals.take_delays()));
        let begun = Instant::now();
        let count = stream.publish(rate, time).await?;
        let reached = count as f64 / begun.elapsed().as_secs_f64();
        *published += count;
        stream.arrived(*published, CATCH_UP_TIMEOUT).await?;
        for (region, arrivals) in &stream.arrivals {
            let half = if *region == home { Duration::ZERO } else { round_trip(&home, region) / 2 };
            let Quantiles { p50, p99, .. } = Quantiles::of(arrivals.take_delays());
            let ms = |micros: f64| format!("{:.1} ms", micros / 1000.0);
            let added = |micros: u64| ms(micros as f64 - half.as_micros() as f64);
            println!(
                "| {rate} | {reached:.0} | {region} | {} | {} | {} | {} | {} |",
                ms(half.as_micros() as f64),
                ms(p50 as f64),
                ms(p99 as f64),
                added(p50),
                added(p99)
            );
        }
    }
    Ok(())
}

async fn catch_up(world: &World, stream: &Stream, published: u64, cut: Duration) -> anyhow::Result<()> {
    let home = world.regions.first().context("no region")?.name;
    let mut probes = Vec::new();
    for region in &world.regions[1..] {
        let check = CertificateCheck::Sha256(vec![world.certificate.sha256]);
        let mut probe = Probe::start(&region.site, &region.nodes[0].url(), check).await?;
        let before = probe.run(sleep(WARM_UP)).await?;
        probes.push((region.name, probe, before));
    }
    world.set_links(home, false);
    let all = published + stream.publish(CATCH_UP_RATE, cut).await?;
    // What was under way when the links were cut may have arrived; the rest waits.
    sleep(Duration::from_millis(500)).await;
    world.set_links(home, true);
    println!(
        "\n| to | cut for | waiting | all there after | per second | its own, before: p50 | p99 | meanwhile: p50 | p99 |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    let rows = probes.into_iter().map(async |(region, mut probe, before)| {
        let arrivals = stream.arrivals.iter().find(|(name, _)| *name == region).context("no subscriber")?;
        let waiting = all - arrivals.1.count();
        let healed = Instant::now();
        let meanwhile = probe.run(caught_up(&arrivals.1, all)).await?;
        let took = healed.elapsed();
        probe.close().await;
        anyhow::ensure!(took < CATCH_UP_TIMEOUT, "{region} has {} of {all}", arrivals.1.count());
        let ms = |delays| {
            let Quantiles { p50, p99, .. } = Quantiles::of(delays);
            format!("{:.1} ms | {:.1} ms", p50 as f64 / 1000.0, p99 as f64 / 1000.0)
        };
        Ok(format!(
            "| {region} | {:.0} s | {waiting} | {:.2} s | {:.0} | {} | {} |",
            cut.as_secs_f64(),
            took.as_secs_f64(),
            waiting as f64 / took.as_secs_f64(),
            ms(before),
            ms(meanwhile)
        ))
    });
    for row in try_join_all(rows).await? {
        println!("{row}");
    }
    Ok(())
}

/// Waits until so many have arrived, or for [`CATCH_UP_TIMEOUT`].
async fn caught_up(arrivals: &Arrivals, all: u64) {
    let arriving = async {
        while arrivals.count() < all {
            sleep(TICK).await;
        }
    };
    if timeout(CATCH_UP_TIMEOUT, arriving).await.is_err() {
        eprintln!("not all has arrived after {CATCH_UP_TIMEOUT:?}");
    }
}
