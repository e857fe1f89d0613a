//! Many who ask at once who is there.

use crate::{
    crowd::{Crowd, named},
    world::{AT_ONCE, Watcher, node, node_with},
};
use futures_util::future::{join_all, try_join_all};
use skywave_testing::{RedisServer, Relay, eventually, soon};
use std::time::Duration;

const MEMBERS: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_ask_at_once_cost_redis_a_few_reads() {
    let redis = RedisServer::start().await;
    let crowd = Crowd::on(&redis, &[AT_ONCE]).await;
    let _stays: Vec<_> = (0..MEMBERS).map(|number| crowd.arrives(&number.to_string())).collect();
    eventually("the crowd", async || crowd.members().await.unwrap().count == MEMBERS as u64).await;
    let before = redis.calls("evalsha").await;
    let lists = try_join_all((0..MEMBERS).map(|_| crowd.members())).await.unwrap();
    assert!(lists.iter().all(|list| list.members.len() == MEMBERS));
    // Leases are renewed meanwhile: a few more.
    let reads = redis.calls("evalsha").await - before;
    assert!(reads < 50, "{reads} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_after_coming_is_on_the_list() {
    let redis = RedisServer::start().await;
    let crowd = Crowd::on(&redis, &[AT_ONCE]).await;
    let coming = (0..200).map(async |number| {
        // Each comes while the list is read for those before it.
        tokio::time::sleep(Duration::from_micros(100 * number)).await;
        let name = named(&number.to_string());
        let _stay = crowd.arrives(&name);
        let list = soon(crowd.members()).await.unwrap();
        assert!(list.members.iter().any(|member| member.session == name), "{name}");
    });
    join_all(coming).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_subscribes_while_others_come_and_go_misses_none_of_them() {
    let redis = RedisServer::start().await;
    let crowd = Crowd::on(&redis, &[AT_ONCE]).await;
    let here = node(&redis).await;
    let mut staying = Vec::new();
    let coming_and_going = async {
        for number in 0..300 {
            let stay = crowd.arrives(&format!("guest {number}"));
            if number % 2 == 0 {
                staying.push(stay)
            } else {
                stay.leave()
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let subscribing = async {
        let mut watchers = Vec::new();
        for _ in 0..5 {
            watchers.extend(join_all((0..8).map(|_| Watcher::on(&here))).await);
        }
        watchers
    };
    let ((), mut watchers) = tokio::join!(coming_and_going, subscribing);
    let mut all: Vec<_> = (0..300).step_by(2).map(|number| named(&format!("guest {number}"))).collect();
    all.extend(watchers.iter().map(Watcher::session));
    for watcher in &mut watchers {
        let own = watcher.session();
        let others: Vec<_> = all.iter().filter(|session| **session != own).cloned().collect();
        watcher.sees(&others).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_listed_before_nothing_was_heard_and_left_meanwhile_is_no_ghost() {
    let redis = RedisServer::start().await;
    let path = Relay::tcp(redis.port()).await;
    let here = node_with(&redis, &[AT_ONCE, ("BROKER__URL", &path.url("redis"))]).await;
    let crowd = Crowd::on(&redis, &[AT_ONCE]).await;
    let mut first = Watcher::on(&here).await;
    first.sees(&[]).await;
    // Nothing comes any more on the connections on which news are heard.
    let clients: String = redis.run("CLIENT LIST").await;
    let hearing = clients.lines().filter(|client| client.contains("cmd=subscribe"));
    let ports = hearing.map(|client| client.split([':', ' ']).nth(2).unwrap().parse().unwrap());
    path.forget(ports);
    let stay = crowd.arrives("guest");
    crowd.is_answered().await;
    let mut second = Watcher::listed(&here).await;
    assert!(second.knows(&named("guest")));
    stay.leave();
    second.sees(&[first.session()]).await;
    first.sees(&[second.session()]).await;
}
