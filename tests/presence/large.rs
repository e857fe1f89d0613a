//! Channels with more members than one answer lists.

use crate::{
    crowd::Crowd,
    world::{AT_ONCE, Guest, TRANSPORTS, Watcher, node, set},
};
use futures_util::StreamExt;
use redis::aio::PubSub;
use skywave::presence::{MAX_MEMBERS, Stay};
use skywave_client::{Encoding, PresenceChanged};
use skywave_protocol::ServerFrame;
use skywave_testing::{RedisServer, eventually, soon};
use std::slice;

const MEMBERS: u64 = 10_000;

fn all_arrive(crowd: &Crowd) -> Vec<Stay> {
    (0..MEMBERS).map(|number| crowd.arrives(&format!("session {number}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_count_is_exact_and_the_list_is_bounded() {
    let redis = RedisServer::start().await;
    let crowd = Crowd::on(&redis, &[AT_ONCE]).await;
    let here = node(&redis).await;
    let mut watcher = Watcher::on(&here).await;
    let stays = all_arrive(&crowd);
    let mut changed = watcher.changed().await;
    while changed.count < MEMBERS + 1 {
        assert!(changed.joined.len() <= MAX_MEMBERS);
        changed = watcher.changed().await;
    }
    assert_eq!(changed.count, MEMBERS + 1);
    let (listed, count) = watcher.asks().await;
    assert_eq!((listed.len(), count), (MAX_MEMBERS, MEMBERS + 1));
    for stay in stays {
        stay.leave();
    }
    eventually("the end", async || watcher.asks().await.1 == 1).await;
}

/// How many leave at a time, at most.
const SWEPT: u64 = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_members_of_a_large_node_that_is_gone_leave_in_few_steps() {
    let redis = RedisServer::start().await;
    let crowd = Crowd::on(&redis, &[AT_ONCE]).await;
    let here = node(&redis).await;
    let _stays = all_arrive(&crowd);
    let mut watcher = Watcher::on(&here).await;
    eventually("the crowd", async || watcher.asks().await.1 == MEMBERS + 1).await;
    drop(crowd);
    let mut steps = 0;
    loop {
        let changed = watcher.changed().await;
        if changed.left.is_empty() {
            continue;
        }
        steps += 1;
        assert_eq!((changed.left.len(), changed.joined.len()), (MAX_MEMBERS, 0));
        if changed.count == 1 {
            break;
        }
    }
    assert!(steps <= MEMBERS / SWEPT, "{steps} steps");
}

/// What the changes of one session may cost, in bytes, however many are there.
const FEW_BYTES: usize = 300;

/// All that is told on pub/sub from now on.
async fn all_told(redis: &RedisServer) -> PubSub {
    let mut told = redis::Client::open(redis.url()).unwrap().get_async_pubsub().await.unwrap();
    told.psubscribe("*").await.unwrap();
    told
}

/// The bytes of all messages up to the one that names the session.
async fn bytes_until_told(told: &mut PubSub, session: &str) -> usize {
    let mut messages = told.on_message();
    let mut bytes = 0;
    loop {
        let message = soon(messages.next()).await.unwrap();
        let payload = message.get_payload_bytes();
        bytes += message.get_channel_name().len() + payload.len();
        if payload.windows(session.len()).any(|part| part == session.as_bytes()) {
            return bytes;
        }
    }
}

fn frame_bytes(changed: PresenceChanged) -> usize {
    let frame = ServerFrame::PresenceChanged(changed);
    let sizes = [Encoding::Json, Encoding::MessagePack].map(|one| one.encode(&frame).unwrap().bare().len());
    sizes.into_iter().max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_comes_and_goes_costs_a_few_bytes_and_the_counts_of_all_nodes_are_exact() {
    let redis = RedisServer::start().await;
    let crowd = Crowd::on(&redis, &[AT_ONCE]).await;
    let nodes = [node(&redis).await, node(&redis).await];
    let _stays = all_arrive(&crowd);
    let mut watchers =
        [Watcher::by(&nodes[0], TRANSPORTS[0]).await, Watcher::by(&nodes[1], TRANSPORTS[1]).await];
    let all = MEMBERS + 2;
    for watcher in &watchers {
        eventually("the crowd", async || watcher.asks().await.1 == all).await;
    }
    // What is said first of one who is new is said after all that was said of the crowd.
    let mark = Guest::on(&nodes[0]).await;
    for watcher in &mut watchers {
        while !watcher.changed().await.joined.iter().any(|member| member.session == mark.session()) {}
    }
    let mut told = all_told(&redis).await;
    let guest = Guest::on(&nodes[1]).await;
    let session = guest.session();
    assert!(bytes_until_told(&mut told, &session).await < FEW_BYTES);
    for watcher in &mut watchers {
        let joined = watcher.changed().await;
        assert_eq!((joined.joined.len(), joined.left.len(), joined.count), (1, 0, all + 2));
        assert_eq!(joined.joined[0].session, session);
        assert!(frame_bytes(joined) < FEW_BYTES);
    }
    drop(guest.subscription);
    assert!(bytes_until_told(&mut told, &session).await < FEW_BYTES);
    for watcher in &mut watchers {
        assert_eq!(watcher.next().await, (set(&[]), set(slice::from_ref(&session)), all + 1));
        assert_eq!(watcher.asks().await.1, all + 1);
    }
}
