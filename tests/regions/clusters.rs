//! Regions whose Redis is a cluster each.

use crate::deployment::Delivered;
use futures_util::future::join_all;
use skywave::{
    broker::{Broker, BrokerError, ReadFrom},
    config::Config,
    redis::Request,
    region::keys::RegionKeys as _,
    server::Server,
};
use skywave_protocol::Channel;
use skywave_testing::{
    RedisCluster,
    cluster::{close_slot, move_keys, open_slot},
    eventually,
    node::broker::{Node as Ear, message, settings_in},
    soon,
};
use std::{io::Write, time::Duration};

/// Of several partitions, on different masters.
const CHANNELS: [&str; 6] = ["chat:0", "chat:1", "chat:2", "chat:3", "chat:4", "chat:5"];

/// A region without nodes: what is published on it is said to others all the same.
async fn ear(name: &str, cluster: &RedisCluster) -> Ear {
    Ear::with(settings_in(name, &cluster.url())).await.unwrap()
}

async fn node(name: &str, own: &RedisCluster, (other, there): (&str, &RedisCluster)) -> Server {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let (url, remote) = (own.url(), there.url());
    let text = format!(
        r#"
        [node]
        region = "{name}"
        [listen]
        public = "127.0.0.1:0"
        plain = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        [auth]
        session_secret = "a secret that all nodes of all regions share"
        [broker]
        kind = "redis"
        url = "{url}"
        partitions = 4
        [channels.chat]
        history = 10000
        [[regions]]
        name = "{other}"
        redis = "{remote}"
        url = "https://localhost:1"
        "#
    );
    file.write_all(text.as_bytes()).unwrap();
    let config = Config::load(Some(file.path()), true, [] as [(&str, &str); 0]).unwrap();
    Server::start(config).await.unwrap()
}

/// Publishes a number on every channel, again until it is accepted.
async fn publish(server: &Server, number: u64) {
    let publish = async |channel: &'static str| {
        loop {
            // Of its own: a key that the other region brought first would be known.
            let key = format!("{} {number}", server.node().cluster.region);
            match server.node().publish(message(channel, number, Some(&key))).await {
                Ok(_) => return,
                Err(BrokerError::Unavailable) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    soon(join_all(CHANNELS.map(publish))).await;
}

fn delivered(ear: &Ear, channel: &str, origin: &str) -> Vec<Delivered> {
    let publications = ear.publications();
    let frames = publications.iter().map(|publication| publication.frame());
    let frames = frames.filter(|frame| &*frame.channel == channel && &*frame.origin == origin);
    let number = |data: String| data.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    frames
        .map(|frame| {
            let number = number(format!("{:?}", frame.data));
            (frame.origin.to_string(), frame.epoch.to_string(), frame.offset, number)
        })
        .collect()
}

fn numbers(ear: &Ear, channel: &str, origin: &str) -> Vec<u64> {
    delivered(ear, channel, origin).into_iter().map(|one| one.3).collect()
}

/// Waits until the last number of `origin` is delivered on all channels, and holds that all before it were, too.
async fn all_arrive(ear: &Ear, origin: &str, numbers_of: std::ops::RangeInclusive<u64>) {
    for channel in CHANNELS {
        let last = *numbers_of.end();
        eventually("the last", async || numbers(ear, channel, origin).last() == Some(&last)).await;
        assert_eq!(numbers(ear, channel, origin), numbers_of.clone().collect::<Vec<_>>(), "{channel}");
        // Each epoch begins anew, and no offset is missing.
        for pair in delivered(ear, channel, origin).windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            assert!(after.2 == before.2 + 1 || after.1 != before.1 && after.2 == 1, "{channel}: {pair:?}");
        }
    }
}

/// Waits until a region's link to another one is up.
async fn linked(ear: &Ear, other: &str) {
    eventually("the link is up", async || {
        let state = ear.redis.commands.call(Request::command(["GET", &format!("sky:linkstate:{other}")]));
        let Ok(redis::Value::BulkString(state)) = state.await else { return false };
        let state = String::from_utf8(state).unwrap();
        state.contains(r#""outbound":"up""#) && state.contains(r#""inbound":"up""#)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_cluster_accepts_comes_to_the_other_though_slots_move() {
    let (eu, us) = (RedisCluster::start().await, RedisCluster::start().await);
    let (ear_eu, ear_us) = (ear("eu", &eu).await, ear("us", &us).await);
    // What was published before the other region knew of it is found on all masters.
    let there = node("us", &us, ("eu", &eu)).await;
    for number in 1..=20 {
        publish(&there, number).await;
    }
    let here = node("eu", &eu, ("us", &us)).await;
    for channel in CHANNELS {
        let channel = Channel::new(channel).unwrap();
        eventually("what was before", async || {
            let read = ear_eu.broker.read(&channel, ReadFrom::Latest(100)).await.unwrap();
            read.publications.len() == 20
        })
        .await;
    }
    for (ear, other) in [(&ear_eu, "us"), (&ear_us, "eu")] {
        linked(ear, other).await;
    }
    for number in 21..=60 {
        tokio::join!(publish(&there, number), publish(&here, number));
    }
    all_arrive(&ear_eu, "us", 21..=60).await;
    all_arrive(&ear_us, "eu", 21..=60).await;
    let log = "sky:{1}:log";
    let (slot, from) = (us.slot_of(log).await, us.master_of(log).await);
    let (from, to) = (&us.masters[from], &us.masters[(from + 1) % 3]);
    let moving = async {
        open_slot(slot, from, to).await;
        while move_keys(slot, from, to, 50).await {}
        close_slot(slot, from, to).await;
    };
    let publishing = async {
        for number in 61..=120 {
            tokio::join!(publish(&there, number), publish(&here, number));
        }
    };
    tokio::join!(moving, publishing);
    all_arrive(&ear_eu, "us", 21..=120).await;
    all_arrive(&ear_us, "eu", 21..=120).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_hangs_costs_nothing_of_what_others_accept() {
    let (eu, us) = (RedisCluster::start().await, RedisCluster::start().await);
    for master in &us.masters {
        // The others go on without it.
        master.run::<()>("CONFIG SET cluster-require-full-coverage no").await;
    }
    let (ear_eu, there) = (ear("eu", &eu).await, node("us", &us, ("eu", &eu)).await);
    let _here = node("eu", &eu, ("us", &us)).await;
    linked(&ear_eu, "us").await;
    publish(&there, 1).await;
    ear_eu.deliveries(CHANNELS.len()).await;
    let mut last = 1;
    for hanging in &us.masters {
        hanging.freeze();
        let until = tokio::time::Instant::now() + Duration::from_millis(2_200);
        let publishing = join_all(CHANNELS.map(async |channel: &'static str| {
            let mut number = last;
            while tokio::time::Instant::now() < until {
                let key = format!("us {}", number + 1);
                // What the hanging one has is not waited for.
                let accepting = there.node().publish(message(channel, number + 1, Some(&key)));
                if let Ok(Ok(_)) = tokio::time::timeout_at(until, accepting).await {
                    number += 1;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            number
        }));
        let reached = publishing.await;
        hanging.thaw();
        // All channels go on from the same number: those that were ahead wait for the others. What was under way at the
        // end may have been accepted.
        last = reached.into_iter().max().unwrap() + 1;
        let catching_up = CHANNELS.map(async |channel: &'static str| {
            for number in 2..=last {
                let key = format!("us {number}");
                while there.node().publish(message(channel, number, Some(&key))).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
        soon(join_all(catching_up)).await;
    }
    all_arrive(&ear_eu, "us", 1..=last).await;
}

/// A cluster whose masters go on without each other.
async fn divisible() -> RedisCluster {
    let cluster = RedisCluster::start().await;
    for master in &cluster.masters {
        master.run::<()>("CONFIG SET cluster-require-full-coverage no").await;
    }
    cluster
}

/// Which of the channels are on the other masters than this one.
async fn channels_beside(cluster: &RedisCluster, ear: &Ear, gone: usize) -> Vec<&'static str> {
    let mut there = Vec::new();
    for name in CHANNELS {
        let keys = &ear.redis.keys;
        let log = keys.log(keys.partition(&Channel::new(name).unwrap()));
        if cluster.master_of(&log).await != gone {
            there.push(name);
        }
    }
    assert!((1..CHANNELS.len()).contains(&there.len()), "{there:?}");
    there
}

/// Publishes a number on these channels, and waits until the ear hears it on all of them.
async fn all_cross(from: &Server, to: &Ear, channels: &[&'static str], number: u64) {
    for channel in channels {
        let key = format!("{number}");
        let publishing = async {
            while from.node().publish(message(channel, number, Some(&key))).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(publishing).await;
    }
    for channel in channels {
        eventually("what a living master has", async || {
            numbers(to, channel, &from.node().cluster.region).last() == Some(&number)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_living_masters_accept_crosses_though_one_is_gone_when_the_link_begins() {
    let (eu, mut us) = (RedisCluster::start().await, divisible().await);
    let (ear_eu, ear_us) = (ear("eu", &eu).await, ear("us", &us).await);
    let there = node("us", &us, ("eu", &eu)).await;
    let here = node("eu", &eu, ("us", &us)).await;
    linked(&ear_eu, "us").await;
    all_cross(&there, &ear_eu, &CHANNELS, 1).await;
    // It has neither what says whose the Redis is nor a lease of that region.
    let gone = us.master_of("sky:{3}:log").await;
    let living = channels_beside(&us, &ear_us, gone).await;
    us.masters[gone].kill();
    all_cross(&there, &ear_eu, &living, 2).await;
    // Another node leads.
    drop(here);
    let _here = node("eu", &eu, ("us", &us)).await;
    all_cross(&there, &ear_eu, &living, 3).await;
    us.masters[gone].restart().await;
    all_cross(&there, &ear_eu, &CHANNELS, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_for_living_masters_is_applied_though_one_is_gone() {
    let (mut eu, us) = (divisible().await, RedisCluster::start().await);
    let ear_eu = ear("eu", &eu).await;
    let there = node("us", &us, ("eu", &eu)).await;
    let _here = node("eu", &eu, ("us", &us)).await;
    linked(&ear_eu, "us").await;
    all_cross(&there, &ear_eu, &CHANNELS, 1).await;
    let gone = eu.master_of("sky:{0}:log").await;
    let living = channels_beside(&eu, &ear_eu, gone).await;
    eu.masters[gone].kill();
    for channel in CHANNELS {
        there.node().publish(message(channel, 2, Some("2"))).await.unwrap();
    }
    all_cross(&there, &ear_eu, &living, 3).await;
    eu.masters[gone].restart().await;
    all_cross(&there, &ear_eu, &CHANNELS, 4).await;
}
