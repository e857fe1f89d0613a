//! A Redis whose clock jumps: it changes nothing about order, sessions and who is there.

use crate::nodes::{client, config_on, json, node_of, number, subscribe};
use skywave_client::{ChannelEvent, SubscribeOptions, TransportChoice};
use skywave_testing::{RedisServer, eventually, node::broker::Node, soon};
use std::sync::atomic::{AtomicBool, Ordering};

/// How far ahead of ours the clock is, in seconds, one after the other: less than the log is kept.
const JUMPS: [i64; 4] = [90, -90, 300, 0];

#[tokio::test(flavor = "multi_thread")]
async fn publications_are_delivered_once_and_in_order_in_one_epoch_though_the_clock_jumps() {
    let server = RedisServer::with_clock().await;
    let nodes = [Node::new(&server).await, Node::new(&server).await];
    let done = AtomicBool::new(false);
    let publisher = async |node: &Node, name: &str| {
        let mut count = 0;
        while !done.load(Ordering::Acquire) {
            node.insist("chat:1", count, &format!("{name} {count}")).await;
            count += 1;
        }
        count
    };
    let jumping = async {
        for ahead in JUMPS {
            server.set_clock(ahead).await;
            for node in &nodes {
                node.deliveries(node.publications().len() + 200).await;
            }
        }
        done.store(true, Ordering::Release);
    };
    let (one, other, ()) = tokio::join!(publisher(&nodes[0], "a"), publisher(&nodes[1], "b"), jumping);
    for node in &nodes {
        node.deliveries((one + other) as usize).await;
        let delivered = node.delivered("chat:1");
        assert!(delivered.iter().map(|(_, offset, _)| *offset).eq(1..=one + other));
        assert!(delivered.iter().all(|(epoch, _, _)| *epoch == delivered[0].0));
        for (name, count) in [("a", one), ("b", other)] {
            let keys = node.publications().into_iter().filter_map(|one| one.frame().key.clone());
            let numbers = keys.filter_map(|key| key.strip_prefix(name)?.trim().parse::<u64>().ok());
            assert!(numbers.eq(0..count), "{name}");
        }
        assert_eq!(node.reconnects("tail") + node.reconnects("commands"), 0);
    }
}

/// When the leases of presence end, of any node in any partition: the first and the last.
async fn ends_ms(server: &RedisServer) -> (f64, f64) {
    let (mut first, mut last) = (f64::MAX, f64::MIN);
    for partition in 0..16 {
        let key = format!("sky:{{{partition}}}:presence-holders");
        let ends: Vec<(String, f64)> = server.run_words(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]).await;
        for (_, end) in ends {
            (first, last) = (first.min(end), last.max(end));
        }
    }
    (first, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_leaves_because_the_clock_jumps() {
    let server = RedisServer::with_clock().await;
    let (here, there) = (node_of(&config_on(&server.url())).await, node_of(&config_on(&server.url())).await);
    let watcher = client(&[&here], TransportChoice::WebSocket).await;
    let member = client(&[&there], TransportChoice::WebTransport).await;
    let options = SubscribeOptions { presence: true, ..SubscribeOptions::default() };
    let mut watching = soon(watcher.subscribe("room:1", options)).await.unwrap();
    let _membership = subscribe(&member, "room:1").await;
    eventually("both", async || soon(watcher.presence("room:1")).await.unwrap().count == 2).await;
    for (jump, ahead) in (1..).zip(JUMPS) {
        server.set_clock(ahead).await;
        // Each node renews what it holds by the new clock, and then again: it has looked for those who are gone.
        let now: Vec<f64> = server.run("TIME").await;
        let renewed = now[0] * 1_000.0..now[0] * 1_000.0 + 60_000.0;
        eventually("renewal", async || {
            let (first, last) = ends_ms(&server).await;
            renewed.contains(&first) && renewed.contains(&last)
        })
        .await;
        let (_, last) = ends_ms(&server).await;
        eventually("another renewal", async || ends_ms(&server).await.0 > last).await;
        assert_eq!(soon(watcher.presence("room:1")).await.unwrap().count, 2);
        soon(member.publish("room:1", json(jump))).await.unwrap();
        loop {
            match soon(watching.next()).await {
                Some(ChannelEvent::Publication(publication)) => {
                    assert_eq!(number(&publication), jump);
                    break;
                }
                Some(ChannelEvent::PresenceChanged(change)) => assert!(change.left.is_empty(), "{change:?}"),
                Some(ChannelEvent::Subscribed(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
