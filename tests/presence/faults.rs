//! A Redis that is away, forgets, or holds what no node wrote.

use crate::{
    server::RedisServer,
    world::{Guest, Watcher, eventually, node, room, set, soon},
};

#[tokio::test(flavor = "multi_thread")]
async fn members_are_back_after_redis_lost_its_data() {
    let mut redis = RedisServer::start().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    let (one, other) = (Guest::on(&here).await, Guest::on(&there).await);
    let mut watcher = Watcher::on(&here).await;
    let all = set(&[one.session(), other.session(), watcher.session()]);
    redis.restart().await;
    let are_back = async || {
        let presence = watcher.client.presence("chat:1").await;
        presence.is_ok_and(|presence| presence.count == 3)
    };
    eventually("their return", are_back).await;
    assert_eq!(watcher.asks().await, (all, 3));
    // Nobody was told to have left or joined.
    watcher.is_told_first_of_one_who_comes(&there, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_back_after_redis_was_flushed() {
    let redis = RedisServer::start().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    let guest = Guest::on(&there).await;
    let mut watcher = Watcher::on(&here).await;
    redis.run::<()>("FLUSHALL").await;
    eventually("their return", async || watcher.asks().await.1 == 2).await;
    assert_eq!(watcher.asks().await.0, set(&[guest.session(), watcher.session()]));
    watcher.is_told_first_of_one_who_comes(&there, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_leaves_while_redis_is_away_is_told_when_it_is_back() {
    let mut redis = RedisServer::durable().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    let guest = Guest::on(&there).await;
    let mut watcher = Watcher::on(&here).await;
    let gone = set(&[guest.session()]);
    redis.kill();
    eventually("the loss", async || !there.node().broker.is_available()).await;
    drop(guest.subscription);
    eventually("the end", async || there.node().hub.channel_count() == 0).await;
    redis.relaunch().await;
    assert_eq!(watcher.next().await, (set(&[]), gone, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_news_were_lost_is_told() {
    let redis = RedisServer::start().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    let guest = Guest::on(&there).await;
    let mut watcher = Watcher::on(&here).await;
    let room = room(&redis).await;
    // One leaves in the same step in which the news are lost.
    let leaves = format!("HDEL {room} {}", guest.session());
    redis.transaction(&["CLIENT KILL TYPE pubsub".to_owned(), leaves]).await;
    assert_eq!(watcher.next().await, (set(&[]), set(&[guest.session()]), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_wrote_is_passed_over() {
    let redis = RedisServer::start().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    let mut watcher = Watcher::on(&here).await;
    let room = room(&redis).await;
    for partition in 0..4 {
        redis.run::<u64>(&format!("PUBLISH sky:{{{partition}}}:presence nonsense")).await;
    }
    redis.run::<u64>(&format!("HSET {room} somebody nonsense")).await;
    assert_eq!(watcher.asks().await, (set(&[watcher.session()]), 2));
    watcher.is_told_first_of_one_who_comes(&there, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_there_cannot_be_told_while_redis_is_away() {
    let mut redis = RedisServer::start().await;
    let here = node(&redis).await;
    let watcher = Watcher::on(&here).await;
    redis.kill();
    let refused = soon(watcher.client.presence("chat:1")).await.unwrap_err();
    assert!(refused.to_string().contains("unavailable"), "{refused}");
}
