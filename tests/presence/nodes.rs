//! What nodes of a region say alike while all goes well.

use crate::{
    crowd::{Crowd, named},
    world::{Guest, TRANSPORTS, WEBSOCKET, Watcher, client, node, node_with, session, set},
};
use skywave_client::SubscribeOptions;
use skywave_testing::{RedisServer, eventually, soon};

/// A short absence is told after 100 ms.
const SHORT: [(&str, &str); 2] =
    [("CHANNELS__CHAT__PRESENCE_BATCH", "0s"), ("CHANNELS__CHAT__PRESENCE_GRACE", "100ms")];

#[tokio::test(flavor = "multi_thread")]
async fn members_of_two_nodes_see_each_other() {
    for transport in TRANSPORTS {
        let redis = RedisServer::start().await;
        let (here, there) = (node(&redis).await, node(&redis).await);
        let mut first = Watcher::by(&here, transport).await;
        let mut second = Watcher::by(&there, transport).await;
        assert_eq!(first.next().await, (set(&[second.session()]), set(&[]), 2));
        let third = Guest::of(client(&[&here], transport).await).await;
        for watcher in [&mut first, &mut second] {
            assert_eq!(watcher.next().await, (set(&[third.session()]), set(&[]), 3));
        }
        let all = set(&[first.session(), second.session(), third.session()]);
        for watcher in [&mut first, &mut second] {
            assert_eq!(watcher.asks().await, (all.clone(), 3));
        }
        let gone = third.session();
        drop(third.subscription);
        for watcher in [&mut first, &mut second] {
            assert_eq!(watcher.next().await, (set(&[]), set(std::slice::from_ref(&gone)), 2));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_there_on_another_node_is_told_on_subscribing() {
    let redis = RedisServer::start().await;
    let (here, there) = (node(&redis).await, node(&redis).await);
    let guest = Guest::on(&there).await;
    let client = client(&[&here], WEBSOCKET).await;
    let options = SubscribeOptions { presence: true, ..SubscribeOptions::default() };
    let mut subscription = soon(client.subscribe("chat:1", options)).await.unwrap();
    let told = loop {
        if let Some(skywave_client::ChannelEvent::Subscribed(subscribed)) = soon(subscription.next()).await {
            break subscribed.presence.unwrap();
        }
    };
    let listed: Vec<_> = told.members.into_iter().map(|member| member.session).collect();
    assert_eq!((told.count, set(&listed)), (2, set(&[guest.session(), session(&client)])));
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_by_several_nodes_are_told_together() {
    let redis = RedisServer::start().await;
    let batch = [("CHANNELS__CHAT__PRESENCE_BATCH", "1s")];
    let (here, there) = (node_with(&redis, &batch).await, node_with(&redis, &batch).await);
    let mut watcher = Watcher::on(&here).await;
    let clients = [client(&[&here], WEBSOCKET).await, client(&[&there], WEBSOCKET).await];
    let [one, other] = clients;
    let expected = set(&[session(&one), session(&other)]);
    let _guests = tokio::join!(Guest::of(one), Guest::of(other));
    assert_eq!(watcher.next().await, (expected, set(&[]), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_moves_to_another_node_is_not_told() {
    for transport in TRANSPORTS {
        let redis = RedisServer::start().await;
        let (old, new) = (node_with(&redis, &SHORT).await, node_with(&redis, &SHORT).await);
        let guest = Guest::of(client(&[&old, &new], transport).await).await;
        let before = guest.session();
        let mut watcher = Watcher::on(&new).await;
        soon(old.drain()).await;
        let new_node = new.node().cluster.id.clone();
        eventually("the move", async || guest.client.connected().is_some_and(|now| now.node == new_node))
            .await;
        assert_eq!(guest.session(), before);
        let third = watcher.is_told_first_of_one_who_comes(&new, 3).await;
        assert_eq!(watcher.asks().await, (set(&[before, watcher.session(), third.session()]), 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_arrives_late_takes_its_session_from_no_newer_one() {
    let redis = RedisServer::start().await;
    let node = node(&redis).await;
    let mut watcher = Watcher::on(&node).await;
    let (here, there) = (
        Crowd::by("here", &redis.url(), &redis, &SHORT).await,
        Crowd::by("there", &redis.url(), &redis, &SHORT).await,
    );
    let first = here.arrives_by("traveller", 1);
    watcher.gather_of(&[named("traveller")]).await;
    let _newest = there.arrives_by("traveller", 3);
    there.is_answered().await;
    // It was long under way, to another node and to the same one.
    for crowd in [&here, &there] {
        drop(crowd.arrives_by("traveller", 2));
        crowd.is_answered().await;
    }
    drop(first);
    // Whoever leaves last is told first, and alone.
    let other = here.arrives("other");
    watcher.gather_of(&[named("other")]).await;
    drop(other);
    assert_eq!(watcher.next().await, (set(&[]), set(&[named("other")]), 2));
    assert_eq!(watcher.asks().await, (set(&[named("traveller"), watcher.session()]), 2));
}
