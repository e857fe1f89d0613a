//! What the nodes of a region do together.

use futures_util::future::{join_all, try_join_all};
use skywave::{
    broadcast::Broadcast,
    broker::{Broker, ReadFrom},
    config::{Order, Secret},
    host::Host,
    metrics::Metrics,
    redis::{Address, Redis, Request},
};
use skywave_protocol::{Json, Point, Text, frame};
use skywave_testing::{
    RedisServer, eventually,
    node::broker::{Node, at, channel, message, offsets, settings, settings_at},
    soon,
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_deliver_all_publications_in_one_order() {
    let server = RedisServer::start().await;
    let nodes = [Node::new(&server).await, Node::new(&server).await, Node::new(&server).await];
    let all = (0..300).map(|number| {
        let channel = format!("chat:{}", number % 2);
        nodes[number as usize % 3].broker.publish(message(&channel, number, None))
    });
    try_join_all(all).await.unwrap();
    for node in &nodes {
        node.deliveries(300).await;
    }
    for channel in ["chat:0", "chat:1"] {
        let first = nodes[0].delivered(channel);
        assert!(first.iter().map(|(_, offset, _)| *offset).eq(1..=150));
        assert!(nodes.iter().all(|node| node.delivered(channel) == first));
    }
}

#[tokio::test]
async fn a_key_is_known_on_every_node() {
    let server = RedisServer::start().await;
    let (here, there) = (Node::new(&server).await, Node::new(&server).await);
    let first = here.broker.publish(message("chat:1", 1, Some("k"))).await.unwrap();
    let second = there.broker.publish(message("chat:1", 1, Some("k"))).await.unwrap();
    assert!(!first.duplicate && second.duplicate);
    assert_eq!((&first.epoch, first.offset), (&second.epoch, second.offset));
    assert_eq!(there.publish(2).await.offset, 2);
}

#[tokio::test]
async fn what_one_node_accepted_can_be_read_on_the_others_at_once() {
    let server = RedisServer::start().await;
    let (here, there) = (Node::new(&server).await, Node::new(&server).await);
    let start = there.head().await;
    for number in 1..=50 {
        let accepted = here.publish(number).await;
        assert_eq!(there.head().await, at(&accepted.epoch, number));
        let last = there.broker.read(&channel(), ReadFrom::Latest(1)).await.unwrap();
        assert_eq!(offsets(&last), [number]);
    }
    assert!(offsets(&there.read(&start).await).into_iter().eq(1..=50));
}

#[tokio::test]
async fn what_is_said_in_one_database_is_not_heard_in_another() {
    let server = RedisServer::start().await;
    let here = Node::new(&server).await;
    let there = Node::with(settings_at(&format!("{}/3", server.url()))).await.unwrap();
    for (node, session) in [(&there, "there"), (&here, "here")] {
        let event = frame::Event {
            channel: channel(),
            session: Text::new(session).unwrap(),
            user: None,
            slot: None,
            data: Json::parse("1").unwrap().into(),
        };
        node.broker.emit(Broadcast::new(event)).unwrap();
        eventually("the event", async || !node.events().is_empty()).await;
        let heard: Vec<_> = node.events().iter().map(|event| event.frame().session.to_string()).collect();
        assert_eq!(heard, [session]);
    }
    there.publish(1).await;
    assert_eq!(here.publish(2).await.offset, 1);
}

#[tokio::test]
async fn events_reach_every_node_and_the_own_one_once() {
    let server = RedisServer::start().await;
    let (here, there) = (Node::new(&server).await, Node::new(&server).await);
    let event = frame::Event {
        channel: channel(),
        session: Text::new("s").unwrap(),
        user: None,
        slot: None,
        data: Json::parse("1").unwrap().into(),
    };
    here.broker.emit(Broadcast::new(event.clone())).unwrap();
    for node in [&here, &there] {
        eventually("the event", async || !node.events().is_empty()).await;
    }
    // What is published later arrives later: had the event been delivered twice, it would be there by now.
    here.broker.emit(Broadcast::new(event)).unwrap();
    eventually("the event", async || here.events().len() > 1).await;
    assert_eq!(here.events().len(), 2);
}

#[tokio::test]
async fn a_node_delivers_nothing_that_was_published_before_it_came() {
    let server = RedisServer::start().await;
    let early = Node::new(&server).await;
    early.publish(1).await;
    let late = Node::new(&server).await;
    early.publish(2).await;
    late.deliveries(1).await;
    assert_eq!(late.publications()[0].frame().offset, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_resume_at_once_cost_redis_a_few_reads() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let epoch = node.publish(1).await.epoch;
    try_join_all((2..=200).map(|number| node.try_publish(number))).await.unwrap();
    let before = server.calls("evalsha").await;
    let positions: Vec<_> = (0..1000).map(|reader| at(&epoch, 100 + reader * 37 % 100)).collect();
    let chunks = join_all(positions.iter().map(|position| node.read(position))).await;
    for (position, chunk) in positions.iter().zip(&chunks) {
        let seen = position.get("eu").unwrap().offset;
        assert!(chunk.complete && offsets(chunk).into_iter().eq(seen + 1..=200));
    }
    // The tail looks after its partitions meanwhile: a few more.
    let reads = server.calls("evalsha").await - before;
    assert!(reads < 50, "{reads} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_resume_at_once_cost_redis_a_few_reads_though_a_region_was_never_reached() {
    let server = RedisServer::start().await;
    let nobody = Address { region: Text::new("us").unwrap(), ..settings_at("redis://127.0.0.1:1").address };
    let us = Redis::reach(&Host::machine(), &nobody, "remote-us", Metrics::new().unwrap().redis).unwrap();
    let mut settings = settings(&server);
    settings.options.others = [(nobody.region.clone(), us)].into();
    let node = Node::with(settings).await.unwrap();
    let epoch = node.publish(1).await.epoch;
    try_join_all((2..=200).map(|number| node.try_publish(number))).await.unwrap();
    let head = node.head().await;
    let before = server.calls("evalsha").await;
    let position = |reader: u64| {
        let mut position = head.clone();
        let offset = 100 + reader * 37 % 100;
        position.set(Text::new("eu").unwrap(), Point { epoch: epoch.clone(), offset });
        position
    };
    let positions: Vec<_> = (0..1000).map(position).collect();
    let chunks = join_all(positions.iter().map(|position| node.read(position))).await;
    for (position, chunk) in positions.iter().zip(&chunks) {
        let seen = position.get("eu").unwrap().offset;
        assert!(chunk.complete && offsets(chunk).into_iter().eq(seen + 1..=200));
        assert_eq!(chunk.coming, std::slice::from_ref(&nobody.region));
    }
    let reads = server.calls("evalsha").await - before;
    assert!(reads < 50, "{reads} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resumes_while_others_publish_misses_nothing() {
    let server = RedisServer::start().await;
    let (here, there) = (Node::new(&server).await, Node::new(&server).await);
    let epoch = here.publish(1).await.epoch;
    let publishing = async {
        for number in 2..=500 {
            here.publish(number).await;
        }
    };
    // As a session does: first the place in the hub, then the history; the two must meet.
    let resuming = async {
        for reader in 0..200 {
            let live_from = there.publications().len();
            let mut next = 2;
            loop {
                let chunk = there.read(&at(&epoch, next - 1)).await;
                for offset in offsets(&chunk) {
                    assert_eq!(offset, next);
                    next += 1;
                }
                if chunk.complete {
                    break;
                }
            }
            eventually("the next publication", async || {
                let live = there.publications();
                live[live_from..].iter().any(|publication| publication.frame().offset >= next)
                    || there.head().await == at(&epoch, next - 1)
            })
            .await;
            let live = there.publications()[live_from..].to_vec();
            let first_new = live.iter().map(|one| one.frame().offset).find(|offset| *offset >= next);
            assert!(
                first_new.is_none_or(|offset| offset == next),
                "reader {reader}: {first_new:?}, not {next}"
            );
        }
    };
    tokio::join!(publishing, resuming);
}

#[tokio::test]
async fn all_that_redis_is_asked_is_timed_by_its_name() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    node.publish(1).await;
    node.head().await;
    soon(node.redis.commands.call(Request::command(["GET", "sky:nothing"]))).await.unwrap();
    let timed = |(connection, command): (&str, &str)| {
        let durations = &node.metrics.redis.command_duration;
        durations.with_label_values(&[connection, command]).get_sample_count()
    };
    let all = [("commands", "publish"), ("reading", "read"), ("commands", "get")];
    eventually("the times", async || all.into_iter().all(|one| timed(one) == 1)).await;
}

#[tokio::test]
async fn a_publish_from_another_region_leaves_the_age_of_the_log_to_the_homes_own_nodes() {
    let (home, elsewhere) = (RedisServer::start().await, RedisServer::start().await);
    let own = Node::new(&home).await;
    for number in 1..=300 {
        own.publish(number).await;
    }
    let mut settings = settings(&elsewhere);
    let chat = settings.options.namespaces.get_mut("chat").unwrap();
    (chat.order, chat.home) = (Order::Home, Some("eu".to_owned()));
    settings.options.origin = Text::new("us").unwrap();
    settings.options.log_age = Duration::from_millis(1);
    let address = Address { url: Secret::new(home.url()), ..settings.address.clone() };
    let redis =
        Redis::connect(&Host::machine(), &address, "remote-eu", own.metrics.redis.clone()).await.unwrap();
    settings.options.others.insert(Text::new("eu").unwrap(), redis);
    let other = Node::with(settings).await.unwrap();
    assert_eq!(other.publish(301).await.offset, 301);
    own.deliveries(301).await;
    let mut entries = 0;
    for partition in 0..4 {
        entries += home.run::<u64>(&format!("XLEN sky:{{{partition}}}:log")).await;
    }
    assert_eq!(entries, 301);
}
