//! The short form of `make faults`: real nodes and a real Redis, broken under load; nothing acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use skywave_regions::{
    faults::{Fault, Settings},
    traffic::Load,
    wan::Conditions,
};
use std::{path::PathBuf, time::Duration};

/// Breaks something in three regions of two nodes each, all bridged.
async fn keeps_every_guarantee(fault: Fault) {
    let settings = Settings {
        binary: env!("CARGO_BIN_EXE_skywave").into(),
        regions: 3,
        wan: Conditions::RELAY,
        load: Load {
            clients: 1,
            browsers: 0,
            package: PathBuf::new(),
            channels: 4,
            pause: Duration::from_millis(200),
        },
        seed: 1,
        quick: true,
    };
    let report = fault.run(&settings).await.unwrap();
    assert!(report.acknowledged > 50 && report.deliveries > 100, "{report:?}");
    assert!(report.is_kept(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_whose_links_are_cut_and_healed_costs_no_publication() {
    keeps_every_guarantee(Fault::RegionCut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_dies_and_comes_back_costs_no_publication() {
    keeps_every_guarantee(Fault::RegionDead).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_costs_no_publication_that_is_not_told() {
    keeps_every_guarantee(Fault::RedisWiped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_log_holds_any_more_when_a_region_is_back_comes_from_histories() {
    keeps_every_guarantee(Fault::LogsTrimmed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_one_way_costs_no_publication() {
    keeps_every_guarantee(Fault::OneWayCut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_while_it_leads_a_link_costs_no_publication() {
    keeps_every_guarantee(Fault::LeaderKilled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_costs_no_publication() {
    keeps_every_guarantee(Fault::NodeDrained).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_restarts_with_its_data_costs_no_publication() {
    keeps_every_guarantee(Fault::RedisRestarted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_costs_no_publication_that_is_not_told() {
    keeps_every_guarantee(Fault::RedisFailover).await;
}
