//! A cluster whose masters fail, and whose slots move.

use crate::nodes::{self, client, config_on, node_of, read_on, subscribe};
use futures_util::future::join_all;
use skywave::{
    broker::{Accepted, Broker},
    host::Host,
    redis::{CallError, Redis, Request},
    region::{broker::events, keys::RegionKeys as _},
};
use skywave_client::TransportChoice;
use skywave_protocol::{Channel, Json, Text, frame::Event};
use skywave_testing::{
    RedisCluster, RedisServer,
    cluster::{close_slot, move_keys, open_slot},
    eventually,
    node::broker::{Node, message, settings_at, settings_in},
    soon,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Of several partitions, on different masters.
const CHANNELS: [&str; 4] = ["chat:0", "chat:1", "chat:2", "chat:3"];

async fn node_on(cluster: &RedisCluster) -> Node {
    Node::with(settings_at(&cluster.url())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_another_region_is_used_on_none_of_its_masters() {
    let cluster = RedisCluster::start().await;
    let eu = node_on(&cluster).await;
    let address = settings_in("us", &cluster.url()).address;
    let taken_for_us =
        Redis::reach(&Host::machine(), &address, "remote-us", eu.metrics.redis.clone()).unwrap();
    let ownership = &taken_for_us.endpoint.ownership;
    let reached = async || {
        let mut reached = 0;
        for master in &cluster.masters {
            let clients: String = master.run("CLIENT LIST").await;
            reached += usize::from(clients.contains("skywave-remote-us"));
        }
        reached
    };
    eventually("the refusal", async || ownership.stranger().is_some()).await;
    eventually("those without the name", async || reached().await >= 2).await;
    for partition in 0..4 {
        let key = taken_for_us.keys.log(partition);
        let call = taken_for_us.commands.call(Request::command(["XLEN", &key]));
        assert_eq!(call.await, Err(CallError::Away));
    }
    let address = settings_at(&cluster.url()).address;
    let right = Redis::reach(&Host::machine(), &address, "remote-eu", eu.metrics.redis.clone()).unwrap();
    eventually("the right one", async || right.commands.is_available()).await;
}

/// The number of the master that had a channel at the beginning.
async fn master_of(cluster: &RedisCluster, node: &Node, channel: &str) -> usize {
    let partition = node.redis.keys.partition(&Channel::new(channel).unwrap());
    cluster.master_of(&node.redis.keys.log(partition)).await
}

/// In how many epochs a channel's publications were delivered.
fn epochs(node: &Node, channel: &str) -> usize {
    let delivered = node.delivered(channel);
    delivered.iter().map(|(epoch, _, _)| epoch).collect::<HashSet<_>>().len()
}

/// Publishes on all channels until it is told to stop, each again until it is accepted; what was accepted, by channel.
async fn keep_publishing(node: &Node, name: &str, done: &AtomicBool) -> HashMap<&'static str, Vec<Accepted>> {
    let publish = async |channel: &'static str| {
        let mut accepted = Vec::new();
        while !done.load(Ordering::Acquire) {
            let number = accepted.len() as u64;
            accepted.push(node.insist(channel, number, &format!("{name} {number}")).await);
        }
        (channel, accepted)
    };
    join_all(CHANNELS.map(publish)).await.into_iter().collect()
}

/// What subscribers of a channel get has no hole and no repetition within an epoch, and holds all that was accepted,
/// except, if `lossy`, of epochs that ended.
fn check(node: &Node, channel: &str, accepted: &[&[Accepted]], lossy: bool) {
    let delivered = node.delivered(channel);
    let mut epochs: Vec<&str> = Vec::new();
    let mut last = 0;
    for (epoch, offset, _) in &delivered {
        if epochs.last() != Some(&&**epoch) {
            assert!(!epochs.contains(&&**epoch), "{channel}: epoch {epoch} comes back");
            epochs.push(epoch);
            last = 0;
        }
        assert_eq!(*offset, last + 1, "{channel} in {epoch}");
        last = *offset;
    }
    let has = |one: &&Accepted| {
        delivered.iter().any(|(epoch, offset, _)| *epoch == *one.epoch && *offset == one.offset)
    };
    let all = accepted.iter().flat_map(|accepted| accepted.iter());
    let lost: Vec<_> = all.filter(|one| !has(one)).collect();
    let excused = |one: &&&Accepted| lossy && epochs.last() != Some(&&*one.epoch);
    assert!(lost.iter().all(|one| excused(&one)), "{channel} lost {lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_all_partitions_are_spread_and_each_publication_is_delivered_once() {
    let cluster = RedisCluster::start().await;
    let nodes = [node_on(&cluster).await, node_on(&cluster).await];
    for number in 0..200 {
        for channel in CHANNELS {
            let node = &nodes[number as usize % 2];
            node.broker.publish(message(channel, number, None)).await.unwrap();
        }
    }
    for node in &nodes {
        node.deliveries(800).await;
        for channel in CHANNELS {
            assert!(node.delivered(channel).iter().map(|(_, offset, _)| *offset).eq(1..=200));
        }
    }
    let mut logs = 0;
    for master in &cluster.masters {
        let keys: Vec<String> = master.run("KEYS sky:{*}:log").await;
        assert!(keys.len() < 4);
        logs += keys.len();
    }
    assert_eq!(logs, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_the_place_of_its_master_and_the_other_masters_go_on() {
    let mut cluster = RedisCluster::replicated().await;
    let nodes = [node_on(&cluster).await, node_on(&cluster).await];
    let failing = master_of(&cluster, &nodes[0], "chat:1").await;
    let masters = join_all(CHANNELS.map(|channel| master_of(&cluster, &nodes[0], channel))).await;
    let done = AtomicBool::new(false);
    let killing = async {
        for node in &nodes {
            node.deliveries(100).await;
        }
        cluster.masters[failing].kill();
        eventually("the failover", async || cluster.replicas[failing].is_master().await).await;
        for node in &nodes {
            node.available().await;
            let so_far = node.publications().len();
            node.deliveries(so_far + 200).await;
        }
        done.store(true, Ordering::Release);
    };
    let (one, other, ()) = tokio::join!(
        keep_publishing(&nodes[0], "a", &done),
        keep_publishing(&nodes[1], "b", &done),
        killing,
    );
    for node in &nodes {
        for (channel, master) in CHANNELS.into_iter().zip(&masters) {
            let last = |accepted: &HashMap<_, Vec<Accepted>>| accepted[channel].last().unwrap().clone();
            for last in [last(&one), last(&other)] {
                eventually("the last", async || {
                    node.delivered(channel)
                        .iter()
                        .any(|(epoch, offset, _)| *epoch == *last.epoch && *offset == last.offset)
                })
                .await;
            }
            check(node, channel, &[&one[channel], &other[channel]], true);
            assert_eq!(epochs(node, channel), if *master == failing { 2 } else { 1 }, "{channel}");
        }
    }
}

/// Moves a slot while others publish, some keys at a time.
async fn move_slot(slot: usize, from: &RedisServer, to: &RedisServer) {
    open_slot(slot, from, to).await;
    while move_keys(slot, from, to, 50).await {}
    close_slot(slot, from, to).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_lose_nothing_and_repeat_nothing() {
    let cluster = RedisCluster::start().await;
    let joined = cluster.join().await;
    let nodes = [node_on(&cluster).await, node_on(&cluster).await];
    let done = AtomicBool::new(false);
    let moving = async {
        for node in &nodes {
            node.deliveries(100).await;
        }
        for partition in 0..4 {
            let log = format!("sky:{{{partition}}}:log");
            let (slot, from) = (cluster.slot_of(&log).await, cluster.master_of(&log).await);
            // To one who had none, and to one who has others.
            let other = &cluster.masters[(from + 1) % 3];
            let to = if partition % 2 == 0 { &joined } else { other };
            move_slot(slot, &cluster.masters[from], to).await;
            for node in &nodes {
                let so_far = node.publications().len();
                node.deliveries(so_far + 100).await;
            }
        }
        done.store(true, Ordering::Release);
    };
    let (one, other, ()) =
        tokio::join!(keep_publishing(&nodes[0], "a", &done), keep_publishing(&nodes[1], "b", &done), moving,);
    for node in &nodes {
        for channel in CHANNELS {
            let all = one[channel].len() + other[channel].len();
            eventually("all", async || node.delivered(channel).len() >= all).await;
            check(node, channel, &[&one[channel], &other[channel]], false);
            // Each publisher's own order stands, and each of its messages is there once.
            for (name, accepted) in [("a", &one), ("b", &other)] {
                let frames = node.publications().into_iter().filter(|one| *one.frame().channel == *channel);
                let keys = frames.filter_map(|one| one.frame().key.clone());
                let numbers = keys.filter_map(|key| key.strip_prefix(name)?.trim().parse::<usize>().ok());
                assert!(numbers.eq(0..accepted[channel].len()), "{channel} of {name}");
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_has_left_its_slot_early_is_followed() {
    let cluster = RedisCluster::start().await;
    let joined = cluster.join().await;
    let node = node_on(&cluster).await;
    let ask = async |words: &[&str]| node.redis.commands.call(Request::command(words)).await;
    ask(&["SET", "sky:{key}:1", "before"]).await.unwrap();
    let slot = cluster.slot_of("key").await;
    let from = &cluster.masters[cluster.master_of("key").await];
    open_slot(slot, from, &joined).await;
    while move_keys(slot, from, &joined, 10).await {}
    // Until there is a line to the server that was not known.
    eventually("the other server", async || ask(&["GET", "sky:{key}:1"]).await.is_ok()).await;
    assert_eq!(ask(&["GET", "sky:{key}:1"]).await.unwrap(), redis::Value::BulkString("before".into()));
    // What is new is made there, in the order of the calls.
    let calls = (0..500).map(|_| node.redis.commands.call(Request::command(["INCR", "sky:{key}:2"])));
    for (number, count) in (1..).zip(join_all(calls).await) {
        assert_eq!(count.unwrap(), redis::Value::Int(number));
    }
    close_slot(slot, from, &joined).await;
    eventually("the new owner", async || ask(&["INCR", "sky:{key}:2"]).await == Ok(redis::Value::Int(501)))
        .await;
    assert!(node.broker.is_available());
}

#[tokio::test]
async fn a_cluster_with_a_silent_master_counts_as_away_though_the_rest_is_served() {
    let cluster = RedisCluster::replicated().await;
    let node = node_on(&cluster).await;
    let silent = master_of(&cluster, &node, "chat:1").await;
    let masters = join_all(CHANNELS.map(|channel| master_of(&cluster, &node, channel))).await;
    let (elsewhere, _) = CHANNELS.into_iter().zip(masters).find(|(_, master)| *master != silent).unwrap();
    cluster.masters[silent].freeze();
    soon(node.broker.publish(message(elsewhere, 1, None))).await.unwrap();
    eventually("silence", async || node.broker.away_for() > Duration::from_millis(1_200)).await;
    // Its replica takes its place.
    node.available().await;
    eventually("an answer", async || node.broker.away_for() == Duration::ZERO).await;
    node.insist("chat:1", 1, "k").await;
    cluster.masters[silent].thaw();
    node.insist("chat:1", 2, "l").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_cluster_go_on_when_a_master_fails_and_are_told_of_the_new_epoch() {
    let mut cluster = RedisCluster::replicated().await;
    let (here, there) =
        (node_of(&config_on(&cluster.url())).await, node_of(&config_on(&cluster.url())).await);
    let publisher = client(&[&here], TransportChoice::WebSocket).await;
    let subscriber = client(&[&there], TransportChoice::WebTransport).await;
    let mut subscription = subscribe(&subscriber, "chat:1").await;
    let done = Arc::new(AtomicBool::new(false));
    let publishing = nodes::keep_publishing(publisher, "chat:1", done.clone());
    let failing = cluster.master_of("sky:{6}:log").await;
    eventually("publications", async || cluster.masters[failing].run::<u64>("XLEN sky:{6}:log").await > 20)
        .await;
    cluster.masters[failing].kill();
    let replica = &cluster.replicas[failing];
    eventually("the failover", async || replica.is_master().await).await;
    let before = replica.run::<u64>("XLEN sky:{6}:log").await;
    eventually("publications", async || replica.run::<u64>("XLEN sky:{6}:log").await > before + 20).await;
    done.store(true, Ordering::Release);
    let count = soon(publishing).await.unwrap();
    assert_eq!(read_on(&mut subscription, 0, count).await, (count, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_on_a_cluster_know_each_other_and_who_is_there_after_a_master_failed_too() {
    let mut cluster = RedisCluster::replicated().await;
    let (here, there) =
        (node_of(&config_on(&cluster.url())).await, node_of(&config_on(&cluster.url())).await);
    for node in [&here, &there] {
        eventually("the other node", async || node.node().cluster.directory.peers().len() == 1).await;
    }
    let watcher = client(&[&there], TransportChoice::WebSocket).await;
    let member = client(&[&here, &there], TransportChoice::WebTransport).await;
    let channels: Vec<_> = (0..12).map(|number| format!("room:{number}")).collect();
    let mut subscriptions = Vec::new();
    for channel in &channels {
        subscriptions.push(subscribe(&watcher, channel).await);
        subscriptions.push(subscribe(&member, channel).await);
    }
    let both_are_there = async || {
        for channel in &channels {
            match soon(watcher.presence(channel)).await {
                Ok(presence) if presence.count == 2 => {}
                _ => return false,
            }
        }
        true
    };
    eventually("both", both_are_there).await;
    cluster.masters[1].kill();
    eventually("the failover", async || cluster.replicas[1].is_master().await).await;
    eventually("both", both_are_there).await;
    // A session goes on with the other node, and is the same one to all.
    soon(here.drain()).await;
    eventually("the move", async || {
        member.connected().is_some_and(|told| *told.node == *there.node().cluster.id && told.resumed)
    })
    .await;
    assert!(both_are_there().await);
    eventually("its end", async || there.node().cluster.directory.peers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_to_a_server_that_the_cluster_forgot_is_made_anew() {
    let cluster = RedisCluster::start().await;
    let node = node_on(&cluster).await;
    let mut hearing = None;
    for (number, server) in cluster.masters.iter().enumerate() {
        let channels: Vec<String> = server.run("PUBSUB CHANNELS sky:{0}:event").await;
        hearing = hearing.or((!channels.is_empty()).then_some(number));
    }
    let leaving = hearing.unwrap();
    cluster.forget(leaving, (leaving + 1) % 3).await;
    let heir = &cluster.masters[(leaving + 1) % 3];
    // It lives, and answers.
    assert_eq!(cluster.masters[leaving].run::<String>("PING").await, "PONG");
    let event = Event {
        channel: Channel::new("typing:1").unwrap(),
        data: Json::parse("1").unwrap().into(),
        session: Text::new("someone").unwrap(),
        user: None,
        slot: None,
    };
    let said = events::encode(&Text::new("eu").unwrap(), &event).unwrap();
    eventually("an event", async || {
        heir.run_words::<u64>(&[b"PUBLISH", b"sky:{0}:event".as_slice(), &said]).await;
        !node.events().is_empty()
    })
    .await;
    eventually("all is well", async || node.broker.deaf_for().is_zero() && node.broker.is_available()).await;
}
