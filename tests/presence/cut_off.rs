//! Sessions that go on to another node while the one they were on has no Redis.

use crate::{
    crowd::{Crowd, named},
    world::{AT_ONCE, Watcher, node, room, set},
};
use skywave::{presence::Stay, server::Server};
use skywave_testing::{RedisServer, Relay, eventually};
use std::slice;

const QUICK: [(&str, &str); 2] = [AT_ONCE, ("CHANNELS__CHAT__PRESENCE_GRACE", "200ms")];

/// Two nodes, of which one can be cut off, and someone at a third who is told who comes and goes.
struct Scene {
    redis: RedisServer,
    path: Relay,
    cut_off: Crowd,
    other: Crowd,
    _third: Server,
    watcher: Watcher,
}

impl Scene {
    async fn begin() -> Self {
        let redis = RedisServer::start().await;
        let path = Relay::tcp(redis.port()).await;
        let cut_off = Crowd::by("one", &path.url("redis"), &redis, &QUICK).await;
        let other = Crowd::by("other", &redis.url(), &redis, &QUICK).await;
        let third = node(&redis).await;
        let watcher = Watcher::on(&third).await;
        Self { redis, path, cut_off, other, _third: third, watcher }
    }

    async fn is_told_of(&mut self, name: &str) {
        self.watcher.gather_of(slice::from_ref(&named(name))).await;
    }

    async fn is_held(&self, name: &str, node: &str) {
        let room = room(&self.redis).await;
        eventually("the hold", async || {
            let held: Option<String> = self.redis.run(&format!("HGET {room} {name}")).await;
            held.is_some_and(|held| held.starts_with(&format!("{node}.")))
        })
        .await;
    }

    /// The next change is that this one leaves, and nobody else.
    async fn is_told_that_only_this_one_left(&mut self, name: &str) {
        let (joined, left, _) = self.watcher.next().await;
        assert_eq!((joined, left), (set(&[]), set(slice::from_ref(&named(name)))));
    }

    /// The traveller and another come while their node is cut off; then the traveller goes on to the other node.
    async fn travels(&mut self) -> ([Stay; 2], Stay) {
        self.path.cut();
        let left_behind = ["traveller", "another"].map(|name| self.cut_off.arrives(name));
        let here = self.other.arrives("traveller");
        self.is_told_of("traveller").await;
        (left_behind, here)
    }

    /// The node that was cut off says of both in one call that they are there, and then that they are not.
    async fn only_another_is_gone_when(&mut self, they_leave: [Stay; 2]) {
        self.is_told_of("another").await;
        self.is_held("traveller", "other").await;
        drop(they_leave);
        self.is_told_that_only_this_one_left("another").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_no_session_back_that_went_on_while_the_node_had_no_redis() {
    let mut scene = Scene::begin().await;
    let (left_behind, _here) = scene.travels().await;
    scene.path.reset();
    scene.path.heal();
    scene.only_another_is_gone_when(left_behind).await;
    assert!(scene.watcher.asks().await.0.contains("traveller"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arrival_that_redis_reads_after_the_session_went_on_changes_nothing() {
    let mut scene = Scene::begin().await;
    let (left_behind, _here) = scene.travels().await;
    scene.path.heal();
    scene.only_another_is_gone_when(left_behind).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_comes_back_to_a_node_that_missed_its_going_is_there_by_that_node() {
    let mut scene = Scene::begin().await;
    let first = scene.cut_off.arrives("traveller");
    scene.cut_off.is_answered().await;
    scene.is_told_of("traveller").await;
    scene.path.cut();
    scene.path.reset();
    let there = scene.other.arrives("traveller");
    scene.is_held("traveller", "other").await;
    let _back = scene.cut_off.arrives("traveller");
    drop(first);
    scene.path.heal();
    scene.is_held("traveller", "one").await;
    let another = scene.other.arrives("another");
    scene.is_told_of("another").await;
    drop(there);
    drop(another);
    scene.is_told_that_only_this_one_left("another").await;
    assert!(scene.watcher.asks().await.0.contains("traveller"));
}
