//! Nodes that are gone without a farewell, and what becomes of their members.

use crate::{
    process::Process,
    server::RedisServer,
    world::{
        AT_ONCE, Guest, TRANSPORTS, WEBSOCKET, Watcher, client, client_of, eventually, holders, node, set,
        url,
    },
};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn the_members_of_a_node_that_is_gone_leave_together_after_its_lease() {
    for transport in TRANSPORTS {
        let redis = RedisServer::start().await;
        let (gone, other) = (node(&redis).await, node(&redis).await);
        let mut guests = Vec::new();
        for _ in 0..5 {
            guests.push(Guest::of(client(&[&gone], transport).await).await);
        }
        let sessions: Vec<_> = guests.iter().map(Guest::session).collect();
        let mut watcher = Watcher::by(&other, transport).await;
        assert_eq!(watcher.asks().await.1, 6);
        let begun = Instant::now();
        drop(gone);
        assert_eq!(watcher.next().await, (set(&[]), set(&sessions), 1));
        assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(watcher.asks().await, (set(&[watcher.session()]), 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_members_of_a_process_that_is_killed_leave_after_its_lease() {
    let redis = RedisServer::start().await;
    let mut process = Process::start(&redis, &[AT_ONCE]).await;
    let others = [node(&redis).await, node(&redis).await];
    let guest = Guest::of(client_of(vec![process.url()], WEBSOCKET).await).await;
    let mut watchers = [Watcher::on(&others[0]).await, Watcher::on(&others[1]).await];
    watchers[0].gather(1).await;
    let gone = set(&[guest.session()]);
    process.kill().await;
    for watcher in &mut watchers {
        assert_eq!(watcher.next().await, (set(&[]), gone.clone(), 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_resumes_elsewhere_after_its_node_was_killed_is_not_told() {
    let redis = RedisServer::start().await;
    let mut process = Process::start(&redis, &[AT_ONCE]).await;
    let other = node(&redis).await;
    let guest = Guest::of(client_of(vec![process.url(), url(&other)], WEBSOCKET).await).await;
    let before = guest.session();
    let mut watcher = Watcher::on(&other).await;
    assert_eq!(holders(&redis).await, 2);
    process.kill().await;
    let other_node = other.node().id.clone();
    let has_moved = async || guest.client.connected().is_some_and(|now| now.node == other_node);
    eventually("the move", has_moved).await;
    eventually("the end of the lease", async || holders(&redis).await == 1).await;
    let third = watcher.is_told_first_of_one_who_comes(&other, 3).await;
    assert_eq!(watcher.asks().await, (set(&[before, watcher.session(), third.session()]), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_longer_than_its_lease_brings_its_members_back() {
    let redis = RedisServer::start().await;
    let process = Process::start(&redis, &[AT_ONCE]).await;
    let other = node(&redis).await;
    let guest = Guest::of(client_of(vec![process.url()], WEBSOCKET).await).await;
    let mut watcher = Watcher::on(&other).await;
    process.signal("-STOP");
    let sleeper = set(&[guest.session()]);
    assert_eq!(watcher.next().await, (set(&[]), sleeper.clone(), 1));
    process.signal("-CONT");
    assert_eq!(watcher.next().await, (sleeper, set(&[]), 2));
}
