//! Channels with more members than one answer lists.

use crate::{
    crowd::Crowd,
    server::RedisServer,
    world::{AT_ONCE, Watcher, eventually, node},
};
use skywave::presence::{MAX_MEMBERS, Stay};

const MEMBERS: u64 = 5_000;

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

#[tokio::test(flavor = "multi_thread")]
async fn all_members_of_a_large_node_that_is_gone_leave_in_one_step() {
    let redis = RedisServer::start().await;
    let crowd = Crowd::on(&redis, &[AT_ONCE]).await;
    let here = node(&redis).await;
    let _stays = all_arrive(&crowd);
    let mut watcher = Watcher::on(&here).await;
    eventually("the crowd", async || watcher.asks().await.1 == MEMBERS + 1).await;
    drop(crowd);
    let mut left = watcher.changed().await;
    while left.left.is_empty() {
        left = watcher.changed().await;
    }
    assert_eq!((left.left.len(), left.joined.len(), left.count), (MAX_MEMBERS, 0, 1));
}
