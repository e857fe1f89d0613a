//! A Redis that is away, forgets, or holds what no node wrote.

use crate::{
    crowd::{Crowd, named},
    world::{AT_ONCE, Guest, Watcher, are_back, node, room, set},
};
use skywave::server::Server;
use skywave_testing::{RedisServer, Relay, eventually, soon};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn members_are_back_after_redis_lost_its_data() {
    let mut redis = RedisServer::start().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    let (one, other) = (Guest::on(&here).await, Guest::on(&there).await);
    let mut watcher = Watcher::on(&here).await;
    let all = set(&[one.session(), other.session(), watcher.session()]);
    redis.restart().await;
    are_back(&redis, 3).await;
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
    // Meanwhile they count as there.
    assert_eq!(watcher.asks().await.1, 2);
    are_back(&redis, 2).await;
    assert_eq!(watcher.asks().await.0, set(&[guest.session(), watcher.session()]));
    watcher.is_told_first_of_one_who_comes(&there, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_subscribes_just_after_redis_was_flushed_knows_everyone() {
    let redis = RedisServer::start().await;
    let (here, there) = (node(&redis).await, Crowd::on(&redis, &[AT_ONCE]).await);
    let names: Vec<_> = (0..8).map(|number| named(&format!("session {number}"))).collect();
    let _stays: Vec<_> = names.iter().map(|name| there.arrives(name)).collect();
    let mut first = Watcher::on(&here).await;
    first.sees(&names).await;
    redis.run::<()>("FLUSHALL").await;
    let mut second = Watcher::on(&here).await;
    are_back(&redis, 10).await;
    let last = Guest::on(&here).await;
    let both = [first.session(), second.session()];
    for (watcher, other) in both.into_iter().zip([&mut second, &mut first]) {
        other.sees(&[&names[..], &[watcher, last.session()]].concat()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_node_that_takes_longer_than_its_lease_to_say_them_again_are_back() {
    const MEMBERS: u64 = 7_000;
    let redis = RedisServer::start().await;
    let path = Relay::tcp(redis.port()).await;
    let here = node(&redis).await;
    let _watcher = Watcher::on(&here).await;
    let crowd = Crowd::by("large", &path.url("redis"), &redis, &[AT_ONCE]).await;
    let _stays: Vec<_> = (0..MEMBERS).map(|number| crowd.arrives(&format!("session {number}"))).collect();
    crowd.is_answered().await;
    let room = room(&redis).await;
    assert_eq!(redis.run::<u64>(&format!("HLEN {room}")).await, MEMBERS + 1);
    // 28 calls, half a second each; the lease is 10 s.
    path.set(|weather| weather.delay = Duration::from_millis(250));
    redis.run::<()>("FLUSHALL").await;
    let mut most = 0;
    eventually("their return", async || {
        let count: u64 = redis.run(&format!("HLEN {room}")).await;
        assert!(count >= most, "{} were removed", most - count);
        most = count;
        count == MEMBERS + 1
    })
    .await;
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

/// Two nodes, someone who is told by one of them who is there, and two more whom no node takes back.
struct Ghosts {
    redis: RedisServer,
    there: Server,
    _here: Server,
    guest: Guest,
    watcher: Watcher,
}

impl Ghosts {
    /// One of them has left unheard and was told: from then on the node knows all that was said.
    async fn begin() -> Self {
        let redis = RedisServer::start().await;
        let (here, there) = (node(&redis).await, node(&redis).await);
        let guest = Guest::on(&there).await;
        are_back(&redis, 1).await;
        let room = room(&redis).await;
        let held: String = redis.run(&format!("HGET {room} {}", guest.session())).await;
        let (_, details) = held.split_once(' ').unwrap();
        for name in ["first", "second"] {
            let held = format!("nobody {details}");
            redis.run_words::<u64>(&["HSET", &room, name, &held]).await;
        }
        let watcher = Watcher::on(&here).await;
        let mut ghosts = Self { redis, there, _here: here, guest, watcher };
        ghosts.leaves_unheard("first").await;
        ghosts.watcher.sees(&[ghosts.guest.session(), named("second")]).await;
        ghosts
    }

    /// Takes someone out as if they had left by a word that is said, and never heard.
    async fn leaves_unheard(&self, name: &str) {
        let room = room(&self.redis).await;
        let life = room.replace("presence:chat:1", "life");
        self.redis.transaction(&[format!("HDEL {room} {name}"), format!("HINCRBY {life} said 1")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_left_by_a_word_that_was_not_heard_is_no_ghost_for_long() {
    let mut ghosts = Ghosts::begin().await;
    ghosts.leaves_unheard("second").await;
    ghosts.watcher.sees(&[ghosts.guest.session()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_left_by_a_word_that_was_not_heard_is_told_with_the_next_that_is() {
    let mut ghosts = Ghosts::begin().await;
    ghosts.leaves_unheard("second").await;
    let next = Guest::on(&ghosts.there).await;
    ghosts.watcher.sees(&[ghosts.guest.session(), next.session()]).await;
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
