//! Clocks that are off: they change nothing about order, leases, links and sessions.

use crate::deployment::{CHANNEL, Deployment, Region, process};
use skywave_client::{
    CertificateCheck, ChannelEvent, Client, ClientOptions, Json, SubscribeOptions, Subscription,
    TransportChoice,
};
use skywave_testing::{eventually, soon};
use std::time::{SystemTime, UNIX_EPOCH};

/// By how much a clock is off.
const OFF_MS: u64 = 90_000;
/// So many beats are acknowledged before it is looked what was made of them.
const BEATS: u64 = 5;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// What gives a process another clock: libfaketime, which `make test` installs.
fn clock(offset: &str) -> Vec<(String, String)> {
    let directories = std::fs::read_dir("/usr/lib").unwrap();
    let libraries = directories.map(|entry| entry.unwrap().path().join("faketime/libfaketime.so.1"));
    let library = libraries.into_iter().find(|path| path.exists()).expect("libfaketime is needed");
    let settings = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME", offset),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

async fn leads(region: &Region, other: &str, node: &str) -> bool {
    let holder: Option<String> = region.redis.run(&format!("HGET sky:lease:bridge:{other} holder")).await;
    holder.is_some_and(|holder| holder.starts_with(node))
}

/// What the region's nodes know of its link to another.
async fn link_state(region: &Region, other: &str) -> String {
    let state: Option<String> = region.redis.run(&format!("GET sky:linkstate:{other}")).await;
    state.unwrap_or_default()
}

fn is_well(state: &str) -> bool {
    [r#""outbound":"up""#, r#""inbound":"up""#, r#""lagging":false"#].iter().all(|part| state.contains(part))
}

/// Publishes these numbers as a client of the node.
async fn publish(client: &Client, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        soon(client.publish(CHANNEL, Json::of(&number).unwrap())).await.unwrap();
    }
}

async fn next_time(subscription: &mut Subscription) -> u64 {
    loop {
        match soon(subscription.next()).await {
            Some(ChannelEvent::Publication(publication)) => return publication.time_ms,
            Some(ChannelEvent::Subscribed(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until the link is up, and looks what becomes of it while beats go to and fro.
async fn links_stay_well(deployment: &Deployment) {
    let is_well = async || {
        is_well(&link_state(deployment.region("eu"), "us").await)
            && is_well(&link_state(deployment.region("us"), "eu").await)
    };
    eventually("the link is up", is_well).await;
    let beats = &deployment.region("us").node().node().metrics.link_beats;
    let acknowledged = || beats.rtt.with_label_values(&["eu"]).get_sample_count();
    let troubles =
        || [&beats.suspicions, &beats.lags].map(|counter| counter.with_label_values(&["eu"]).get());
    let (beats_before, troubles_before) = (acknowledged(), troubles());
    eventually("beats", async || acknowledged() >= beats_before + BEATS).await;
    assert!(is_well().await);
    assert_eq!(troubles(), troubles_before, "suspected, lagging");
}

/// A node with another clock leads all that there is to lead in its region.
async fn serves_as_any_other(offset: &str) {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    let url = deployment.region("eu").redis.url();
    let mut settings = clock(offset);
    settings.push(("SKYWAVE_NODE__ID".to_owned(), "off".to_owned()));
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut off = process(&deployment.file("eu", &url), &settings).await;
    drop(deployment.region_mut("eu").nodes.remove(0));
    eventually("it leads", async || leads(deployment.region("eu"), "us", "off ").await).await;

    deployment.add_node("eu").await;
    let other = deployment.region("eu").node().public().unwrap();
    let options = ClientOptions {
        urls: vec![off.url(), format!("https://localhost:{}", other.port())],
        transport: TransportChoice::WebSocket,
        certificate: CertificateCheck::Insecure,
        ..ClientOptions::new("")
    };
    let client = soon(Client::connect(options)).await.unwrap();
    assert_eq!(&*client.connected().unwrap().node, "off");
    let mut subscription = soon(client.subscribe(CHANNEL, SubscribeOptions::default())).await.unwrap();
    tokio::join!(publish(&client, 1..=100), deployment.publish("us", 1..=100));
    deployment.all_arrive("eu", "us", 100).await;
    deployment.all_arrive("us", "eu", 100).await;
    for _ in 0..200 {
        // It is the Redis that says what time it is.
        assert!(next_time(&mut subscription).await.abs_diff(now_ms()) < OFF_MS / 2);
    }

    links_stay_well(&deployment).await;

    // Another one takes over what it led, as from any other.
    off.kill().await;
    deployment.publish("us", 101..=150).await;
    eventually("another leader", async || deployment.leader("eu", "us") == Some(0)).await;
    deployment.publish("us", 151..=200).await;
    deployment.all_arrive("eu", "us", 200).await;
    // The session goes on, though its secret was signed at another time.
    eventually("the client", async || client.connected().is_some_and(|told| &*told.node != "off")).await;
    assert!(client.connected().unwrap().resumed);
    publish(&client, 101..=110).await;
    deployment.all_arrive("us", "eu", 110).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_ahead_serves_as_any_other() {
    serves_as_any_other("+90s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_behind_serves_as_any_other() {
    serves_as_any_other("-90s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_redis_accepts_whose_clock_was_set_back_arrives_as_ever() {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    // It goes on counting from the last id that its clock gave when it was ahead.
    let us = &deployment.region("us").redis;
    for partition in 0..4 {
        let log = format!("sky:{{{partition}}}:log");
        if us.run::<bool>(&format!("EXISTS {log}")).await {
            us.run::<String>(&format!("XSETID {log} {}-0", now_ms() + OFF_MS)).await;
        }
    }
    deployment.publish("us", 11..=100).await;
    deployment.all_arrive("eu", "us", 100).await;
    assert!(deployment.region("us").numbers(CHANNEL, "us").into_iter().eq(1..=100));
    for number in 1..=100 {
        deployment.region("eu").publish(CHANNEL, number).await;
    }
    deployment.all_arrive("us", "eu", 100).await;
    links_stay_well(&deployment).await;
    deployment.add_node("eu").await;
    drop(deployment.region_mut("eu").nodes.remove(0));
    deployment.publish("us", 101..=200).await;
    deployment.all_arrive("eu", "us", 200).await;
}
