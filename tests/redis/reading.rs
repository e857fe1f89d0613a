//! What is read is bounded in bytes where it is read, and holds up nothing that is published.

use skywave::broker::{Broker, BrokerError, PageLimit, PageOf, Publish, ReadFrom};
use skywave_protocol::Json;
use skywave_testing::{
    RedisServer,
    node::broker::{Node, at, channel},
};

/// Publishes so many times 60 kB.
async fn publish_large(node: &Node, count: usize) {
    let data = Json::of(&"x".repeat(60_000)).unwrap();
    for _ in 0..count {
        let publish = Publish { channel: channel(), data: data.clone().into(), key: None, user: None };
        node.broker.publish(publish).await.unwrap();
    }
}

async fn bytes_sent(server: &RedisServer) -> u64 {
    let statistics: String = server.run("INFO stats").await;
    let sent = statistics.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    sent.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_page_of_history_takes_no_more_from_redis_than_it_has_room_for() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    publish_large(&node, 100).await;
    node.deliveries(100).await;
    let position = node.head().await;
    let first = at(&position.get("eu").unwrap().epoch, 0);
    for page in [PageOf::Last, PageOf::After(first)] {
        let before = bytes_sent(&server).await;
        let limit = PageLimit { publications: 1_000, bytes: 200_000 };
        let page = node.broker.history(&channel(), page, limit).await.unwrap();
        let sent = bytes_sent(&server).await - before;
        assert_eq!(page.publications.len(), 3);
        assert!(sent < 600_000, "{sent} bytes");
    }
}

#[tokio::test]
async fn of_a_history_nothing_is_looked_through_for_who_waits_for_a_later_life() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    publish_large(&node, 100).await;
    node.deliveries(100).await;
    let reads = || {
        let durations = &node.metrics.redis.command_duration;
        durations.with_label_values(&["reading", "read"]).get_sample_count()
    };
    let before = reads();
    let lie = ReadFrom::Position(at("fffffffffffaaaaa.e1", 7));
    assert_eq!(node.broker.read(&channel(), lie).await.err(), Some(BrokerError::Unavailable));
    assert_eq!(reads() - before, 1);
}

#[tokio::test]
async fn publishing_goes_on_when_what_reads_is_cut_off() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let clients: String = server.run("CLIENT LIST").await;
    let reading = clients.lines().find(|client| client.contains("name=skywave-reading ")).unwrap();
    let id = reading.split(['=', ' ']).nth(1).unwrap();
    let publishing: Vec<_> = (1..=100).map(|number| node.try_publish(number)).collect();
    server.run::<u64>(&format!("CLIENT KILL ID {id}")).await;
    for publish in publishing {
        publish.await.unwrap();
    }
    assert_eq!(node.publish(101).await.offset, 101);
    node.available().await;
    assert_eq!(node.reconnects("commands"), 0);
}
