//! The short form of `make faults`: real nodes and a real Redis, broken under load; nothing acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use skywave_regions::{
    faults::{Fault, Settings},
    traffic::Load,
};
use std::time::Duration;

async fn keeps_every_guarantee(fault: Fault) {
    let settings = Settings {
        binary: env!("CARGO_BIN_EXE_skywave").into(),
        regions: 1,
        load: Load { clients: 2, channels: 4, pause: Duration::from_millis(100) },
        seed: 1,
        quick: true,
    };
    let report = fault.run(&settings).await.unwrap();
    assert!(report.acknowledged > 50 && report.deliveries > 100, "{report:?}");
    assert!(report.is_kept(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_costs_no_publication() {
    keeps_every_guarantee(Fault::NodeDrained).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_and_comes_back_costs_no_publication() {
    keeps_every_guarantee(Fault::RedisRestarted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_costs_no_publication_that_is_not_told() {
    keeps_every_guarantee(Fault::RedisWiped).await;
}
