//! A region's Redis says that it is that region's; what another one says is not used.

use crate::deployment::{CHANNEL, Deployment};
use serde_json::Value;
use skywave_testing::{
    RedisServer, eventually,
    node::{
        before,
        broker::{Node as Ear, settings_in},
    },
    soon,
};

const NUMBERS: [u64; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

/// Regions with ears and no nodes; the way of eu to us leads to this port.
async fn misled(port: impl FnOnce(&Deployment) -> u16) -> Deployment {
    let servers = vec![("eu", RedisServer::durable().await), ("us", RedisServer::durable().await)];
    let mut deployment = Deployment::without_nodes(servers, "", "").await;
    deployment.path("eu", "us").lead_to(port(&deployment));
    for name in ["eu", "us"] {
        deployment.add_node(name).await;
    }
    deployment
}

/// What eu's node tells of its link to us.
async fn link(deployment: &Deployment) -> Value {
    let admin = deployment.region("eu").node().admin().unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let asking = http.post(format!("http://{admin}/api/v1/info"));
    let asking = asking.header("content-type", "application/json").body("{}").send();
    let text = soon(soon(asking).await.unwrap().text()).await.unwrap();
    let info: Value = serde_json::from_str(&text).unwrap();
    info["result"]["links"][0].clone()
}

/// Waits until eu's node tells why it does not use what it was given for us, in these words.
async fn is_refused(deployment: &Deployment, words: &[&str]) {
    let is_told = async || {
        let refused = link(deployment).await["refused"].as_str().unwrap_or_default().to_owned();
        words.iter().all(|word| refused.contains(word))
    };
    eventually("the refusal", is_told).await;
    let metrics = &deployment.region("eu").node().node().metrics;
    let sample = |line: &str| metrics.render().unwrap().lines().any(|one| one == line);
    eventually("the metric", async || sample("skywave_link_refused{link=\"us\"} 1")).await;
    eventually("the link's end", async || sample("skywave_link_up{link=\"us\"} 0")).await;
}

/// The way leads to us from now on, and nothing more is needed.
async fn is_mended(deployment: &Deployment) {
    deployment.path("eu", "us").lead_to(deployment.region("us").redis.port());
    eventually("the end of the refusal", async || link(deployment).await.get("refused").is_none()).await;
    deployment.bridged("eu").await;
    deployment.publish("us", 1..=10).await;
    eventually("us", async || deployment.region("eu").numbers(CHANNEL, "us").ends_with(&NUMBERS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_takes_its_own_redis_for_anothers_delivers_nothing_twice_until_it_is_mended() {
    let deployment = misled(|deployment| deployment.region("eu").redis.port()).await;
    is_refused(&deployment, &["belongs to region `eu`, not to `us`", "`[[regions]]`"]).await;
    deployment.publish("eu", 11..=20).await;
    is_mended(&deployment).await;
    assert!(deployment.region("eu").numbers(CHANNEL, "eu").into_iter().eq(11..=20));
    assert_eq!(deployment.region("eu").numbers(CHANNEL, "us"), NUMBERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_no_node_of_the_region_has_used_is_told_and_left_as_it_is() {
    let empty = RedisServer::start().await;
    let deployment = misled(|_| empty.port()).await;
    is_refused(&deployment, &["no node of region `us`", "prefix `sky`", "`broker.prefix`"]).await;
    assert_eq!(empty.run::<u64>("DBSIZE").await, 0);
    is_mended(&deployment).await;
    assert_eq!(deployment.region("eu").numbers(CHANNEL, "us"), NUMBERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_whose_nodes_are_of_the_version_before_crosses_until_its_redis_says_that_it_is_anothers() {
    let older = RedisServer::start().await;
    older.run::<String>("SET sky:partitions 4").await;
    let deployment = misled(|_| older.port()).await;
    deployment.bridged("eu").await;
    let (_, offset) = before::publish(&older, "us", CHANNEL, 1).await;
    assert_eq!(offset, 1);
    deployment.deliveries("eu", 1).await;
    assert_eq!(deployment.region("eu").numbers(CHANNEL, "us"), [1]);

    older.run::<String>("SET sky:{sky:partitions}:region ap").await;
    is_refused(&deployment, &["belongs to region `ap`, not to `us`"]).await;
    before::publish(&older, "us", CHANNEL, 2).await;
    is_mended(&deployment).await;
    assert_eq!(deployment.region("eu").numbers(CHANNEL, "us"), [&[1][..], &NUMBERS].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_renamed_region_accepts_is_not_delivered_under_its_name_before() {
    let server = RedisServer::start().await;
    let before = Ear::with(settings_in("us", &server.url())).await.unwrap();
    let deployment = misled(|_| server.port()).await;
    deployment.bridged("eu").await;
    before.publish(1).await;
    eventually("the first", async || deployment.region("eu").numbers(CHANNEL, "us") == [1]).await;
    drop(before);
    server.run::<u64>("DEL sky:{sky:partitions}:region").await;
    let renamed = Ear::with(settings_in("usa", &server.url())).await.unwrap();
    // That it has another name is seen within two seconds.
    let publishing = async {
        for number in 2.. {
            renamed.publish(number).await;
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = publishing => {}
        () = is_refused(&deployment, &["belongs to region `usa`, not to `us`"]) => {}
    }
    assert_eq!(deployment.region("eu").numbers(CHANNEL, "us"), [1]);
}
