//! A Redis that has replicas, or becomes one.

use skywave_protocol::frame::GapReason;
use skywave_testing::{
    RedisServer, eventually,
    node::broker::{Node, at},
};
use std::time::Duration;

/// The id of the history that a server's data belong to.
async fn replication_id(server: &RedisServer) -> String {
    let told: String = server.run("INFO replication").await;
    told.lines().find_map(|line| line.strip_prefix("master_replid:")).unwrap().to_owned()
}

async fn is_linked(replica: &RedisServer) -> bool {
    replica.run::<String>("INFO replication").await.contains("master_link_status:up")
}

/// A new server that has what the master has.
pub async fn replica_of(master: &RedisServer) -> RedisServer {
    let port = master.port().to_string();
    let replica =
        RedisServer::with(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]).await;
    eventually("replication", async || is_linked(&replica).await).await;
    replica
}

/// Another server, which has what this one has by now and nothing of what follows.
async fn left_behind(server: &RedisServer) -> RedisServer {
    let older = replica_of(server).await;
    older.run::<()>("REPLICAOF NO ONE").await;
    older
}

/// Has a server take over another one's data. Its run stays the same.
async fn take_over(server: &RedisServer, from: &RedisServer) {
    server.run::<()>(&format!("REPLICAOF 127.0.0.1 {}", from.port())).await;
    eventually("replication", async || is_linked(server).await).await;
}

#[tokio::test]
async fn a_redis_that_another_sets_back_in_time_begins_another_epoch_with_the_next_publication() {
    let server = RedisServer::with(&["--repl-diskless-sync-delay", "0"]).await;
    let node = Node::new(&server).await;
    let before = node.publish(1).await;
    let older = left_behind(&server).await;
    for number in 2..=5 {
        node.publish(number).await;
    }
    node.deliveries(5).await;
    // As an operator's restore: the run is the same, the data are another's.
    take_over(&server, &older).await;
    server.run::<()>("REPLICAOF NO ONE").await;
    let after = node.insist("chat:1", 6, "k").await;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.offset, 1);
    let chunk = node.read(&at(&before.epoch, 5)).await;
    assert_eq!(chunk.lost.iter().map(|lost| lost.reason).collect::<Vec<_>>(), [GapReason::EpochChanged]);
    node.deliveries(6).await;
    assert_eq!(node.delivered("chat:1").len(), 6);
}

#[tokio::test]
async fn nothing_is_told_of_data_that_are_another_servers_while_redis_is_its_replica() {
    let server = RedisServer::with(&["--repl-diskless-sync-delay", "0"]).await;
    let node = Node::new(&server).await;
    let before = node.publish(1).await;
    let older = left_behind(&server).await;
    node.publish(2).await;
    node.deliveries(2).await;
    take_over(&server, &older).await;
    let chunk = node.read(&at(&before.epoch, 2)).await;
    assert!(chunk.lost.is_empty() && !chunk.coming.is_empty(), "{chunk:?}");
}

#[tokio::test]
async fn a_master_whose_replicas_have_been_gone_for_long_keeps_its_epochs() {
    let server = RedisServer::with(&["--repl-diskless-sync-delay", "0", "--repl-backlog-ttl", "1"]).await;
    let node = Node::new(&server).await;
    let before = node.publish(1).await;
    drop(replica_of(&server).await);
    let id = replication_id(&server).await;
    eventually("another id", async || replication_id(&server).await != id).await;
    for number in 2..=3 {
        // Longer than nobody looks at the id.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(node.publish(number).await.epoch, before.epoch);
    }
}
