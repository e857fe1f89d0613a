//! Nodes that are gone without a farewell, and what becomes of their members.

use crate::world::{
    AT_ONCE, Guest, TRANSPORTS, WEBSOCKET, Watcher, client_in_the_foreground, client_of, node, process, set,
};
use skywave_testing::{Process, RedisServer, eventually, node::url, soon};
use std::time::{Duration, Instant};

/// How many pings a node has sent.
async fn pings(process: &Process) -> u64 {
    let metrics = soon(reqwest::get(format!("http://{}/metrics", process.admin()))).await.unwrap();
    let metrics = soon(metrics.text()).await.unwrap();
    let of_transports = metrics.lines().filter(|line| line.starts_with("skywave_pings_total{"));
    of_transports.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_killed_node_leave_together_after_its_lease_unless_they_resumed_elsewhere() {
    let redis = RedisServer::start().await;
    let mut process = process(&redis, &[AT_ONCE]).await;
    let others = [node(&redis).await, node(&redis).await];
    let (mut leaving, mut resuming) = (Vec::new(), Vec::new());
    for transport in TRANSPORTS {
        for _ in 0..2 {
            leaving.push(Guest::of(client_of(vec![process.url()], transport).await).await);
        }
    }
    for _ in 0..2 {
        // TCP tells at once that the node is gone; over QUIC an idle session may notice later than the lease ends.
        let urls = vec![process.url(), url(&others[0])];
        resuming.push(Guest::of(client_of(urls, WEBSOCKET).await).await);
    }
    let gone: Vec<_> = leaving.iter().map(Guest::session).collect();
    let stay: Vec<_> = resuming.iter().map(Guest::session).collect();
    let mut first = Watcher::by(&others[0], TRANSPORTS[0]).await;
    let mut second = Watcher::by(&others[1], TRANSPORTS[1]).await;
    first.sees(&[&gone[..], &stay, &[second.session()]].concat()).await;
    let killed = Instant::now();
    process.kill().await;
    for watcher in [&mut first, &mut second] {
        assert_eq!(watcher.next().await, (set(&[]), set(&gone), 4));
        assert!(killed.elapsed() > Duration::from_secs(5), "{:?}", killed.elapsed());
    }
    let there = [&stay[..], &[first.session(), second.session()]].concat();
    assert_eq!(first.asks().await, (set(&there), 4));
    first.is_told_first_of_one_who_comes(&others[0], 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_in_the_foreground_of_a_node_that_falls_silent_move_before_its_lease_ends() {
    let redis = RedisServer::start().await;
    let process = process(&redis, &[AT_ONCE, ("HEARTBEAT__FOREGROUND_MAX", "5s")]).await;
    let other = node(&redis).await;
    let staying = Guest::of(client_of(vec![process.url()], WEBSOCKET).await).await;
    let mut moving = Vec::new();
    for transport in TRANSPORTS {
        let urls = vec![process.url(), url(&other)];
        moving.push(Guest::of(client_in_the_foreground(urls, transport).await).await);
    }
    let mut watcher = Watcher::on(&other).await;
    let moved: Vec<_> = moving.iter().map(Guest::session).collect();
    watcher.sees(&[&moved[..], &[staying.session()]].concat()).await;
    // The second ping of each told what the path is like, and was received: there is a third.
    eventually("the pings", async || pings(&process).await >= 6).await;
    // Its connections stay open, and nothing comes any more.
    process.freeze();
    assert_eq!(watcher.next().await, (set(&[]), set(&[staying.session()]), 3));
    assert_eq!(watcher.asks().await, (set(&[&moved[..], &[watcher.session()]].concat()), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_longer_than_its_lease_brings_its_members_back() {
    let redis = RedisServer::start().await;
    let process = process(&redis, &[AT_ONCE]).await;
    let other = node(&redis).await;
    let guest = Guest::of(client_of(vec![process.url()], WEBSOCKET).await).await;
    let mut watcher = Watcher::on(&other).await;
    process.freeze();
    let sleeper = set(&[guest.session()]);
    assert_eq!(watcher.next().await, (set(&[]), sleeper.clone(), 1));
    process.thaw();
    assert_eq!(watcher.next().await, (sleeper, set(&[]), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_killed_node_leave_though_the_clock_of_redis_was_set_back() {
    let redis = RedisServer::with_clock().await;
    let mut process = process(&redis, &[AT_ONCE]).await;
    let other = node(&redis).await;
    let guest = Guest::of(client_of(vec![process.url()], WEBSOCKET).await).await;
    let mut watcher = Watcher::on(&other).await;
    let gone = guest.session();
    watcher.sees(std::slice::from_ref(&gone)).await;
    process.kill().await;
    redis.set_clock(-3_600).await;
    assert_eq!(watcher.next().await, (set(&[]), set(&[gone]), 1));
}
