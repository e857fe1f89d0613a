//! Nodes of two versions that follow each other, on one Redis.

use skywave::{broker::Broker, region::keys::RegionKeys as _};
use skywave_testing::{
    RedisServer,
    node::{
        before,
        broker::{Node, at, channel, message, offsets},
    },
};

#[tokio::test]
async fn nodes_of_the_version_before_publish_and_read_beside_those_of_this_one() {
    let server = RedisServer::start().await;
    // Whoever comes first begins the life, and the channel.
    let (early, first_offset) = before::publish(&server, "eu", "chat:1", 1).await;
    let node = Node::new(&server).await;
    for number in [2, 4, 6] {
        let accepted = node.publish(number).await;
        assert_eq!((&*accepted.epoch, accepted.offset), (&*early, number));
        assert_eq!(before::publish(&server, "eu", "chat:1", number + 1).await, (early.clone(), number + 1));
    }
    node.deliveries(6).await;
    assert_eq!(offsets(&node.read(&at(&early, first_offset)).await), [2, 3, 4, 5, 6, 7]);
    assert_eq!(before::read(&server, "chat:1").await, (format!("{early}:7"), 7));
    let begun = node.broker.publish(message("chat:new", 1, None)).await.unwrap();
    assert_eq!(before::publish(&server, "eu", "chat:new", 2).await, (begun.epoch.to_string(), 2));
}

#[tokio::test]
async fn a_channel_that_the_version_before_began_goes_on_in_another_epoch_once_its_position_is_gone() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    // Of the same partition for certain: its other channels begin, as far as this version knows of them.
    for number in 0..16 {
        node.broker.publish(message(&format!("chat:other {number}"), 1, None)).await.unwrap();
    }
    let (early, _) = before::publish(&server, "eu", "chat:1", 1).await;
    server.run::<u64>(&format!("DEL {}", node.redis.keys.position(&channel()))).await;
    let accepted = node.publish(2).await;
    assert!(*accepted.epoch != *early && accepted.offset == 1, "{accepted:?}");
}
