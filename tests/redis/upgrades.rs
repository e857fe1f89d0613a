//! Nodes of two versions that follow each other, on one Redis.

use crate::{
    before,
    server::RedisServer,
    world::{Node, at, message, offsets},
};
use skywave::broker::Broker;

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
