//! A part of what Redis holds that cannot be asked, as when one master of a cluster is away: it holds up only itself.

use crate::{
    crowd::{Crowd, named},
    world::{AT_ONCE, Guest, WEBSOCKET, Watcher, are_back, client, node, node_with, room, set},
};
use futures_util::future::join_all;
use skywave::region::presence::scripts::MEMBERS;
use skywave_client::{Client, SubscribeOptions, Subscription};
use skywave_testing::{RedisServer, Relay, eventually, soon};
use std::time::Duration;

/// The partition of `chat:1` and `chat:5`; those of others come before it and behind it.
pub const ITS_PARTITION: u16 = 2;
/// A channel of the first partition.
const CHANNEL_BEFORE: &str = "chat:3";

/// The keys of holders in the other partitions.
fn of_others() -> impl Iterator<Item = String> {
    let others = (0..4).filter(|partition| *partition != ITS_PARTITION);
    others.map(|partition| format!("sky:{{{partition}}}:presence-holders"))
}

/// From now on, whatever is asked of holders in the other partitions is refused.
pub async fn others_cannot_be_asked(redis: &RedisServer) {
    for key in of_others() {
        redis.run::<()>(&format!("SET {key} nothing")).await;
    }
}

/// Ends it, with nobody who holds anything there.
pub async fn others_can_be_asked(redis: &RedisServer) {
    for key in of_others() {
        redis.run::<u64>(&format!("DEL {key}")).await;
    }
}

/// One who is told who is on a channel.
async fn watch(client: &Client, channel: &str) -> Subscription {
    let options = SubscribeOptions { presence: true, ..SubscribeOptions::default() };
    soon(client.subscribe(channel, options)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_node_that_is_gone_leave_though_other_partitions_cannot_be_asked() {
    let redis = RedisServer::start().await;
    let (crowd, here) = (Crowd::on(&redis, &[AT_ONCE]).await, node(&redis).await);
    let _stay = crowd.arrives("gone");
    let mut watcher = Watcher::on(&here).await;
    watcher.sees(&[named("gone")]).await;
    others_cannot_be_asked(&redis).await;
    drop(crowd);
    watcher.sees(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_news_were_lost_is_told_though_other_partitions_cannot_be_asked() {
    let redis = RedisServer::start().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    let guest = Guest::on(&there).await;
    let mut watcher = Watcher::on(&here).await;
    watcher.sees(&[guest.session()]).await;
    others_cannot_be_asked(&redis).await;
    let leaves = format!("HDEL {} {}", room(&redis).await, guest.session());
    redis.transaction(&["CLIENT KILL TYPE pubsub".to_owned(), leaves]).await;
    watcher.sees(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_back_after_their_partition_was_lost_though_others_cannot_be_asked() {
    let redis = RedisServer::start().await;
    let nodes = [node(&redis).await, node(&redis).await];
    let guest = Guest::on(&nodes[1]).await;
    let watcher = Watcher::on(&nodes[0]).await;
    others_cannot_be_asked(&redis).await;
    // Redis does not know of those who come there, and the nodes know that.
    let mut others = Vec::new();
    for node in &nodes {
        let client = client(&[node], WEBSOCKET).await;
        others.push((watch(&client, CHANNEL_BEFORE).await, client));
    }
    let lose = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";
    let keys = format!("sky:{{{ITS_PARTITION}}}:*");
    redis.run_words::<()>(&["EVAL", lose, "0", &keys]).await;
    are_back(&redis, 2).await;
    assert_eq!(watcher.asks().await, (set(&[guest.session(), watcher.session()]), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_cannot_be_compared_has_no_other_compared_again() {
    let redis = RedisServer::start().await;
    let here = node(&redis).await;
    let watcher = Watcher::on(&here).await;
    let _other = watch(&watcher.client, "chat:5").await;
    redis.run::<()>(&format!("SET sky:{{{ITS_PARTITION}}}:presence:chat:5 nothing")).await;
    redis.keep_commands().await;
    redis.run::<u64>("CLIENT KILL TYPE pubsub").await;
    let lists = async |channel: &str| {
        let key = |name: &str| format!("sky:{{{ITS_PARTITION}}}:{name}");
        let (life, log, room) = (key("life"), key("log"), key(&format!("presence:{channel}")));
        redis.given(&["EVALSHA", MEMBERS.hash(), "3", &life, &log, &room]).await
    };
    eventually("further comparisons", async || lists("chat:5").await >= 5).await;
    // Once when it is heard again, or twice.
    assert!((1..=2).contains(&lists("chat:1").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_node_that_takes_longer_than_its_lease_to_compare_stay() {
    const CHANNELS: u64 = 1_800;
    let redis = RedisServer::start().await;
    let path = Relay::tcp(redis.port()).await;
    let settings = [AT_ONCE, ("BROKER__URL", &path.url("redis")), ("LIMITS__CHANNELS_PER_SESSION", "1000")];
    let slow = node_with(&redis, &settings).await;
    let other = node(&redis).await;
    let (guest, mut watcher) = (Guest::on(&slow).await, Watcher::on(&other).await);
    watcher.sees(&[guest.session()]).await;
    let mut watched = Vec::new();
    for some in (2..CHANNELS + 2).map(|number| format!("chat:{number}")).collect::<Vec<_>>().chunks(900) {
        let client = client(&[&slow], WEBSOCKET).await;
        watched.push((join_all(some.iter().map(|channel| watch(&client, channel))).await, client));
    }
    let before = redis.calls("hlen").await;
    // 64 channels take half a second; the lease is 10 s.
    path.set(|weather| weather.delay = Duration::from_millis(250));
    redis.run::<u64>("CLIENT KILL TYPE pubsub").await;
    eventually("the comparison", async || redis.calls("hlen").await >= before + CHANNELS).await;
    watcher.is_told_first_of_one_who_comes(&other, 3).await;
}
