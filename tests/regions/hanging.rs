//! A node that leads a link and hangs: another one takes over, and what the first still writes changes nothing.

use crate::deployment::{Deployment, Region, process};
use skywave_client::{Client, Json, TransportChoice};
use skywave_testing::{RedisServer, Relay, eventually, soon};
use std::{collections::BTreeSet, ops::RangeInclusive};

/// How the connections are named on which nodes publish and apply, and those on which a leader reads another log.
const COMMANDS: &str = "name=skywave-commands ";
const READING: &str = "name=skywave-bridge-us ";

/// The ids of a region's connections that have this name.
async fn connections(region: &Region, name: &str) -> BTreeSet<String> {
    let clients: String = region.redis.run("CLIENT LIST").await;
    let named = clients.lines().filter(|client| client.contains(name));
    named.map(|client| client.split(' ').next().unwrap().to_owned()).collect()
}

async fn emit(client: &Client, numbers: RangeInclusive<u64>) {
    for number in numbers {
        soon(client.emit("typing:1", Json::of(&number).unwrap(), None)).await.unwrap();
    }
}

/// The numbers that a region heard as events, in order.
fn events(region: &Region) -> Vec<u64> {
    let events = region.ear.events();
    let number = |data: String| data.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    events.iter().map(|event| number(format!("{:?}", event.frame().data))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_wrote_before_it_was_replaced_and_redis_reads_later_changes_nothing() {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    let ear = connections(deployment.region("eu"), COMMANDS).await;
    // The only node of the region reaches its Redis by a path of its own.
    let held = Relay::tcp(deployment.region("eu").redis.port()).await;
    deployment.add_node_at("eu", &held.url("redis")).await;
    drop(deployment.region_mut("eu").nodes.remove(0));
    eventually("a leader", async || deployment.leader("eu", "us") == Some(0)).await;
    let eu = deployment.region("eu");
    eventually("its connection", async || !connections(eu, COMMANDS).await.is_subset(&ear)).await;
    let leading: BTreeSet<_> = &connections(eu, COMMANDS).await - &ear;
    let client = deployment.region("us").client(TransportChoice::WebTransport).await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    emit(&client, 1..=1).await;
    eventually("the first event", async || events(deployment.region("eu")) == [1]).await;

    held.cut();
    // The first leader hears all of it, and what it does about it is on its way.
    emit(&client, 2..=10).await;
    deployment.publish("us", 11..=50).await;
    deployment.add_node("eu").await;
    eventually("another leader", async || deployment.leader("eu", "us") == Some(1)).await;
    deployment.publish("us", 51..=100).await;
    deployment.all_arrive("eu", "us", 100).await;
    emit(&client, 11..=20).await;
    eventually("the last event", async || events(deployment.region("eu")).last() == Some(&20)).await;

    let eu = deployment.region("eu");
    assert!(!leading.is_disjoint(&connections(eu, COMMANDS).await));
    held.heal();
    // Redis has read all that was sent on a connection when it ends it.
    eventually("the end", async || leading.is_disjoint(&connections(eu, COMMANDS).await)).await;
    deployment.publish("us", 101..=110).await;
    emit(&client, 21..=21).await;
    deployment.all_arrive("eu", "us", 110).await;
    eventually("the last event", async || events(eu).last() == Some(&21)).await;
    assert!(events(eu).into_iter().eq([1].into_iter().chain(11..=21)), "{:?}", events(eu));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_and_goes_on_repeats_nothing() {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    let url = deployment.region("eu").redis.url();
    let settings = [("SKYWAVE_NODE__ID", "hanging")];
    let process = process(&deployment.file("eu", &url), &settings).await;
    drop(deployment.region_mut("eu").nodes.remove(0));
    eventually("a leader", async || {
        let holder: String = deployment.region("eu").redis.run("HGET sky:lease:bridge:us holder").await;
        holder.starts_with("hanging ")
    })
    .await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    deployment.add_node("eu").await;
    let reading = connections(deployment.region("us"), READING).await;
    assert!(!reading.is_empty());

    process.freeze();
    deployment.publish("us", 11..=50).await;
    eventually("another leader", async || deployment.leader("eu", "us") == Some(0)).await;
    deployment.publish("us", 51..=100).await;
    deployment.all_arrive("eu", "us", 100).await;
    let client = deployment.region("us").client(TransportChoice::WebTransport).await;
    let eu = deployment.region("eu");
    emit(&client, 1..=50).await;
    eventually("the events", async || events(eu).last() == Some(&50)).await;

    // It has the same 50 events and 90 publications before it.
    process.thaw();
    eventually("the end of its reading", async || {
        connections(deployment.region("us"), READING).await.is_disjoint(&reading)
    })
    .await;
    deployment.publish("us", 101..=110).await;
    deployment.all_arrive("eu", "us", 110).await;
    emit(&client, 51..=51).await;
    eventually("the last event", async || events(eu).last() == Some(&51)).await;
    assert!(events(eu).into_iter().eq(1..=51), "{:?}", events(eu));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_event_is_refused_knows_that_there_was_a_later_one() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let eu = deployment.region("eu");
    let client = deployment.region("us").client(TransportChoice::WebTransport).await;
    for partition in 0..4 {
        eu.redis.run::<u64>(&format!("HSET sky:{{{partition}}}:cursor us:fence 1000")).await;
    }
    emit(&client, 1..=1).await;
    eventually("a higher token", async || {
        eu.redis.run::<u64>("HGET sky:lease:bridge:us token").await > 1_000
    })
    .await;
    deployment.publish("us", 1..=1).await;
    deployment.all_arrive("eu", "us", 1).await;
    emit(&client, 2..=2).await;
    eventually("the next event", async || !events(eu).is_empty()).await;
    assert_eq!(events(eu), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_path_has_forgotten_are_made_anew_before_anything_has_to_be_read() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    // Nothing has to be read of the log while all of it is heard.
    let us = deployment.region("us");
    let clients: String = us.redis.run("CLIENT LIST").await;
    let reading = clients.lines().filter(|client| client.contains(READING));
    let ports = reading.map(|client| client.split(" addr=127.0.0.1:").nth(1).unwrap());
    let ports: Vec<u16> = ports.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect();
    let forgotten = connections(us, READING).await;
    assert!(!ports.is_empty());
    deployment.path("eu", "us").forget(ports);
    eventually("other connections", async || !connections(us, READING).await.is_subset(&forgotten)).await;
    deployment.publish("us", 11..=20).await;
    deployment.all_arrive("eu", "us", 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_away_is_told_once_in_the_log_though_nodes_try_it_in_turn() {
    let servers = vec![("eu", RedisServer::start().await), ("us", RedisServer::start().await)];
    let mut deployment = Deployment::without_nodes(servers, "", "").await;
    deployment.region_mut("us").redis.kill();
    let eu = deployment.region("eu");
    let process = process(&deployment.file("eu", &eu.redis.url()), &[]).await;
    let tries = async || eu.redis.run::<Option<u64>>("HGET sky:lease:bridge:us token").await;
    eventually("another try", async || tries().await >= Some(2)).await;
    assert_eq!(process.has_told("this node leads the link"), 0);
    assert_eq!(process.has_told("away or refused"), 1);
    deployment.region_mut("us").redis.relaunch().await;
    eventually("the link", async || process.has_told("this node leads the link") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_begins_anew_for_one_reason_again_and_again_says_it_once() {
    let servers = vec![("eu", RedisServer::start().await), ("us", RedisServer::start().await)];
    let mut deployment = Deployment::without_nodes(servers, "", "").await;
    deployment.add_node("us").await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    us.redis.run::<()>("ACL SETUSER default -subscribe").await;
    let process = process(&deployment.file("eu", &eu.redis.url()), &[]).await;
    let attempts = async || {
        let told: String = us.redis.run("INFO commandstats").await;
        let of = told.lines().find(|line| line.starts_with("cmdstat_subscribe:")).unwrap_or_default();
        let rejected = of.split("rejected_calls=").nth(1).and_then(|rest| rest.split(',').next());
        rejected.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    eventually("some attempts", async || process.has_told("begins anew") > 0).await;
    let before = attempts().await;
    // A subscription for each of four partitions, and some of them are given up when one is refused.
    eventually("more attempts", async || attempts().await >= before + 16).await;
    assert_eq!(process.has_told("begins anew"), 1);
}
