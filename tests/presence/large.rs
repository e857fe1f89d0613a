//! Channels with more members than one answer lists.

use crate::{
    server::RedisServer,
    world::{AT_ONCE, Watcher, config, eventually, node},
};
use skywave::{
    hub::Hub,
    metrics::Metrics,
    presence::{MAX_MEMBERS, Presence, Stay},
    redis::{Address, Redis},
};
use skywave_protocol::{Channel, Text};
use std::sync::Arc;
use tokio::task::JoinSet;

const MEMBERS: u64 = 5_000;

/// The presence of a node without clients: its sessions come when they are told to.
struct Crowd {
    presence: Arc<Presence>,
    stays: Vec<Stay>,
    _tasks: JoinSet<()>,
}

impl Crowd {
    async fn on(redis: &RedisServer) -> Self {
        let config = config(redis, &[AT_ONCE]);
        let address = Address {
            url: config.broker.url.clone().unwrap(),
            prefix: config.broker.prefix.clone(),
            partitions: config.broker.partitions,
        };
        let redis = Redis::connect(&address, "crowd", Metrics::new().unwrap().redis).await.unwrap();
        let mut tasks = JoinSet::new();
        let hub = Arc::new(Hub::default());
        let presence = Presence::of_region(hub, config.channels, redis, "crowd", &mut tasks).await.unwrap();
        tasks.spawn(presence.clone().run());
        Self { presence, stays: Vec::new(), _tasks: tasks }
    }

    fn arrives(&mut self) {
        let channel = Channel::new("chat:1").unwrap();
        for number in 0..MEMBERS {
            let session = Text::new(format!("session {number}")).unwrap();
            self.stays.extend(self.presence.arrive(&channel, &session, None, None));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_count_is_exact_and_the_list_is_bounded() {
    let redis = RedisServer::start().await;
    let mut crowd = Crowd::on(&redis).await;
    let here = node(&redis).await;
    let mut watcher = Watcher::on(&here).await;
    crowd.arrives();
    let mut changed = watcher.changed().await;
    while changed.count < MEMBERS + 1 {
        assert!(changed.joined.len() <= MAX_MEMBERS);
        changed = watcher.changed().await;
    }
    assert_eq!(changed.count, MEMBERS + 1);
    let (listed, count) = watcher.asks().await;
    assert_eq!((listed.len(), count), (MAX_MEMBERS, MEMBERS + 1));
    for stay in crowd.stays.drain(..) {
        stay.leave();
    }
    eventually("the end", async || watcher.asks().await.1 == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_of_a_large_node_that_is_gone_leave_in_one_step() {
    let redis = RedisServer::start().await;
    let mut crowd = Crowd::on(&redis).await;
    let here = node(&redis).await;
    crowd.arrives();
    let mut watcher = Watcher::on(&here).await;
    eventually("the crowd", async || watcher.asks().await.1 == MEMBERS + 1).await;
    drop(crowd);
    let mut left = watcher.changed().await;
    while left.left.is_empty() {
        left = watcher.changed().await;
    }
    assert_eq!((left.left.len(), left.joined.len(), left.count), (MAX_MEMBERS, 0, 1));
}
