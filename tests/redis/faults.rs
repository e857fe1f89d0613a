//! Connections that break, and a Redis that does not answer.

use skywave::{
    broker::{Broker, BrokerError, Publish, ReadFrom},
    host::Host,
    metrics::Metrics,
    redis::Redis,
};
use skywave_protocol::{Json, Text, frame::GapReason};
use skywave_testing::{
    RedisServer, eventually,
    node::broker::{Node, at, channel, message, offsets, settings},
    soon,
};
use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_lose_nothing_and_repeat_nothing() {
    let server = RedisServer::start().await;
    let nodes = [Node::new(&server).await, Node::new(&server).await];
    let done = AtomicBool::new(false);
    let publisher = async |node: &Node, name: &str| {
        for number in 0..1500 {
            node.insist("chat:1", number, &format!("{name} {number}")).await;
        }
    };
    let publishing = async {
        tokio::join!(publisher(&nodes[0], "a"), publisher(&nodes[1], "b"));
        done.store(true, Ordering::Release);
    };
    let cutting = async {
        let mut cuts = 0;
        while !done.load(Ordering::Acquire) {
            server.cut_connections().await;
            cuts += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(cuts > 3);
    };
    tokio::join!(publishing, cutting);
    for node in &nodes {
        node.deliveries(3000).await;
        let delivered = node.delivered("chat:1");
        assert!(delivered.iter().map(|(_, offset, _)| *offset).eq(1..=3000));
        assert_eq!(delivered, nodes[0].delivered("chat:1"));
        assert!(node.reconnects("commands") > 0 && node.reconnects("tail") > 0);
        // Each publisher's own order stands, and each of its messages is there once.
        for name in ["a", "b"] {
            let keys = node.publications().into_iter().filter_map(|one| one.frame().key.clone());
            let numbers = keys.filter_map(|key| key.strip_prefix(name)?.trim().parse::<u64>().ok());
            assert!(numbers.eq(0..1500));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_does_not_answer_fails_publishes_in_bounded_time_and_loses_nothing() {
    let server = RedisServer::start().await;
    let (here, there) = (Node::new(&server).await, Node::new(&server).await);
    here.publish(1).await;
    server.freeze();
    let begun = Instant::now();
    let refused = soon(here.broker.publish(message("chat:1", 2, Some("k")))).await;
    assert_eq!(refused.unwrap_err(), BrokerError::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // From now on at once.
    let begun = Instant::now();
    assert_eq!(here.try_publish(3).await.unwrap_err(), BrokerError::Unavailable);
    assert!(!here.broker.is_available() && begun.elapsed() < Duration::from_millis(100));
    assert!(here.redis.commands.away_for() >= Duration::from_millis(1_900));
    server.thaw();
    // The first attempt may have taken effect when Redis woke up: the key tells.
    let accepted = here.insist("chat:1", 2, "k").await;
    here.available().await;
    assert!(here.redis.commands.away_for() < Duration::from_secs(1));
    let last = here.publish(4).await;
    assert_eq!((accepted.offset, &last.epoch), (2, &accepted.epoch));
    there.deliveries(3).await;
    let delivered = there.delivered("chat:1");
    assert_eq!(delivered.iter().map(|(_, offset, _)| *offset).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_silent_redis_is_away_though_nobody_asks_it_anything() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    server.freeze();
    let begun = Instant::now();
    // Before the connection is given up, and after.
    eventually("a second of silence", async || {
        let away = node.redis.commands.away_for();
        assert!(away <= begun.elapsed() + Duration::from_secs(2));
        away >= Duration::from_secs(1)
    })
    .await;
    assert!(node.broker.is_available());
    eventually("three seconds of silence", async || node.redis.commands.away_for().as_secs() >= 3).await;
    assert!(!node.broker.is_available() && begun.elapsed() < Duration::from_secs(4));
    server.thaw();
    eventually("an answer", async || node.redis.commands.away_for() == Duration::ZERO).await;
}

#[tokio::test]
async fn a_node_notices_that_redis_is_gone_though_nobody_publishes() {
    let mut server = RedisServer::start().await;
    let node = Node::new(&server).await;
    assert!(node.broker.is_available());
    server.kill();
    eventually("the loss", async || !node.broker.is_available()).await;
    assert_eq!(node.try_publish(1).await.unwrap_err(), BrokerError::Unavailable);
    server.relaunch().await;
    node.available().await;
    assert_eq!(node.publish(1).await.offset, 1);
    node.deliveries(1).await;
}

/// Breaks the connections on which nodes follow the log, and in the same step does what `lines` say: the tails see
/// nothing of it before they are back.
async fn behind_the_tails(server: &RedisServer, lines: &[String]) {
    let clients: String = server.run("CLIENT LIST").await;
    let tails = clients.lines().filter(|client| client.contains("name=skywave-tail"));
    let kills = tails.map(|client| format!("CLIENT KILL ID {}", client.split(['=', ' ']).nth(1).unwrap()));
    let lines: Vec<_> = kills.chain(lines.iter().cloned()).collect();
    server.transaction(&lines).await;
}

/// The log in which the channel's publications stand.
async fn log(server: &RedisServer) -> String {
    for partition in 0..4 {
        let log = format!("sky:{{{partition}}}:log");
        if server.run::<u64>(&format!("EXISTS {log}")).await == 1 {
            return log;
        }
    }
    panic!("there is no log");
}

/// The command that puts a publication into the log alone, as if its history and position had lost it.
fn entry(log: &str, epoch: &str, offset: u64, payload: impl Display) -> String {
    format!("XADD {log} * c chat:1 o eu e {epoch} n {offset} t  f j k  u  d {payload}")
}

#[tokio::test]
async fn what_came_while_the_tail_was_away_is_delivered_when_it_is_back() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let epoch = node.publish(1).await.epoch;
    node.deliveries(1).await;
    let log = log(&server).await;
    let entry = |offset| entry(&log, &epoch, offset, offset);
    behind_the_tails(&server, &[entry(2), entry(3)]).await;
    node.deliveries(3).await;
    let delivered = node.delivered("chat:1");
    assert_eq!(delivered.iter().map(|(_, offset, _)| *offset).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((node.reconnects("tail"), node.reconnects("commands")), (1, 0));
    // It was measured when the tail came back, and is measured again every few seconds.
    let lag = || {
        let label = log.split(['{', '}']).nth(1).unwrap();
        node.metrics.log_lag.entries.with_label_values(&[label]).get()
    };
    assert_eq!(lag(), 2);
    eventually("no lag", async || lag() == 0).await;
}

#[tokio::test]
async fn a_log_of_which_more_waits_than_one_answer_carries_is_followed_in_parts() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let epoch = node.publish(1).await.epoch;
    node.deliveries(1).await;
    // Redis ends connections for which more waits, as a slow path does after a while.
    server.run_words::<()>(&["CONFIG", "SET", "client-output-buffer-limit", "normal 2000000 0 0"]).await;
    let (log, payload) = (log(&server).await, "7".repeat(50_000));
    let entry = |offset| entry(&log, &epoch, offset, &payload);
    let entries: Vec<_> = (2..=100).map(entry).collect();
    behind_the_tails(&server, &entries).await;
    node.deliveries(100).await;
    assert!(node.delivered("chat:1").iter().map(|(_, offset, _)| *offset).eq(1..=100));
    assert_eq!(node.reconnects("tail"), 1);
}

#[tokio::test]
async fn what_was_trimmed_from_the_log_meanwhile_is_still_in_the_history() {
    let server = RedisServer::start().await;
    let (node, other) = (Node::new(&server).await, Node::new(&server).await);
    let epoch = node.publish(1).await.epoch;
    node.deliveries(1).await;
    // The window of the cache ends here, and must not claim to be complete when the tail is back.
    assert_eq!(offsets(&node.read(&at(&epoch, 1)).await), [0; 0]);
    let log = log(&server).await;
    behind_the_tails(&server, &[format!("XTRIM {log} MAXLEN 0")]).await;
    other.publish(2).await;
    node.deliveries(2).await;
    assert_eq!(offsets(&node.read(&at(&epoch, 1)).await), [2]);
    assert_eq!(offsets(&node.read(&at(&epoch, 0)).await), [1, 2]);
}

#[tokio::test]
async fn what_was_trimmed_from_the_log_meanwhile_is_looked_for_though_nothing_follows_it() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let epoch = node.publish(1).await.epoch;
    node.deliveries(1).await;
    assert_eq!(offsets(&node.read(&at(&epoch, 1)).await), [0; 0]);
    let log = log(&server).await;
    let position = log.replace("log", "pos:chat:1");
    let lines =
        [entry(&log, &epoch, 2, 2), format!("HSET {position} eu {epoch}:2"), format!("XTRIM {log} MAXLEN 0")];
    behind_the_tails(&server, &lines).await;
    eventually("a doubt", async || node.doubts() == 1).await;
    let chunk = node.read(&at(&epoch, 1)).await;
    assert_eq!((chunk.lost[0].reason, chunk.lost[0].point.offset), (GapReason::Trimmed, 2));
}

#[tokio::test]
async fn what_the_log_is_still_to_bring_is_there_before_a_loss_is_told() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let epoch = node.publish(1).await.epoch;
    node.deliveries(1).await;
    let log = log(&server).await;
    let entry = |offset| entry(&log, &epoch, offset, offset);
    let position = log.replace("log", "pos:chat:1");
    // The history lacks them, as that of a channel without any does.
    let lines = [entry(2), entry(3), format!("HSET {position} eu {epoch}:3")];
    behind_the_tails(&server, &lines).await;
    let chunk = node.read(&at(&epoch, 1)).await;
    assert_eq!((chunk.lost[0].reason, chunk.lost[0].point.offset), (GapReason::Trimmed, 3));
    let delivered = node.delivered("chat:1");
    assert!(delivered.iter().map(|(_, offset, _)| *offset).eq(1..=3), "{delivered:?}");
}

#[tokio::test]
async fn who_was_told_that_more_is_to_come_reads_again_however_soon_it_has_come() {
    reads_again_when_all_of_us_has_come(&["us"]).await;
}

#[tokio::test]
async fn who_was_told_that_more_is_to_come_reads_again_though_another_region_is_never_reached() {
    reads_again_when_all_of_us_has_come(&["ap", "us"]).await;
}

/// A reader is told that more is to come of these regions, and reads again when all of `us` has come. Of the others
/// nothing ever does.
async fn reads_again_when_all_of_us_has_come(regions: &[&str]) {
    let server = RedisServer::start().await;
    let mut settings = settings(&server);
    for region in regions {
        let redis =
            Redis::connect(&Host::machine(), &settings.address, region, Metrics::new().unwrap().redis)
                .await
                .unwrap();
        settings.options.others.insert(Text::new(*region).unwrap(), redis);
    }
    for partition in 0..4 {
        server.run::<()>(&format!("HSET sky:{{{partition}}}:cursor us begun")).await;
    }
    let node = Node::with(settings).await.unwrap();
    let epoch = node.publish(1).await.epoch;
    node.deliveries(1).await;
    let cursor = log(&server).await.replace("log", "cursor");
    server.run::<()>(&format!("HSET {cursor} us:replay 9-9")).await;
    let coming = node.read(&at(&epoch, 0)).await.coming;
    assert!(coming.iter().map(|region| &**region).eq(regions.iter().copied()), "{coming:?}");
    assert_eq!(node.doubts(), 0);
    server.run::<()>(&format!("HDEL {cursor} us:replay")).await;
    eventually("a doubt", async || node.doubts() == 1).await;
}

#[tokio::test]
async fn a_log_that_is_trimmed_after_it_was_read_costs_nothing() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    node.publish(1).await;
    node.deliveries(1).await;
    let log = log(&server).await;
    behind_the_tails(&server, &[format!("XTRIM {log} MAXLEN 0")]).await;
    eventually("the tail", async || node.reconnects("tail") == 1 && node.broker.deaf_for().is_zero()).await;
    assert_eq!(node.doubts(), 0);
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_is_connected_to_again() {
    for setting in ["maxmemory 1", "min-replicas-to-write 1"] {
        let server = RedisServer::start().await;
        let node = Node::new(&server).await;
        let epoch = node.publish(1).await.epoch;
        node.deliveries(1).await;
        server.run::<()>(&format!("CONFIG SET {setting}")).await;
        server.cut_connections().await;
        eventually("the connections", async || node.reconnects("commands") + node.reconnects("tail") == 2)
            .await;
        assert_eq!(node.try_publish(2).await.unwrap_err(), BrokerError::Unavailable);
        assert_eq!(offsets(&node.read(&at(&epoch, 0)).await), [1]);
    }
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_after_a_restart_is_read_from_and_nobody_is_deaf() {
    for (setting, undone) in [
        ("maxmemory 1", "maxmemory 0"),
        ("min-replicas-to-write 1", "min-replicas-to-write 0"),
        ("replica-read-only yes", "replica-read-only yes"),
    ] {
        let server = RedisServer::start().await;
        let node = Node::new(&server).await;
        let epoch = node.publish(1).await.epoch;
        node.publish(2).await;
        node.deliveries(2).await;
        // As it is after a restart: its run is another one, and another life is due.
        let mut lines: Vec<_> =
            (0..4).map(|partition| format!("HSET sky:{{{partition}}}:life run another")).collect();
        lines.push(format!("CONFIG SET {setting}"));
        let is_replica = setting.starts_with("replica");
        if is_replica {
            // Of a master that is not there.
            lines.push("REPLICAOF 127.0.0.1 1".to_owned());
        }
        server.transaction(&lines).await;
        server.cut_connections().await;
        eventually("the connections", async || {
            node.reconnects("commands") > 0 && node.reconnects("tail") > 0 && node.broker.is_available()
        })
        .await;
        assert_eq!(node.try_publish(3).await.unwrap_err(), BrokerError::Unavailable);
        let chunk = node.read(&at(&epoch, 1)).await;
        assert_eq!((offsets(&chunk), chunk.lost, chunk.complete), (vec![2], vec![], true), "{setting}");
        // The lives are looked at every few seconds: by a second node at once.
        let second = Node::new(&server).await;
        assert_eq!(offsets(&second.read(&at(&epoch, 0)).await), [1, 2]);
        for node in [&node, &second] {
            assert!(node.broker.is_available());
            assert_eq!(node.broker.deaf_for(), Duration::ZERO);
        }
        // Once it takes writes, the other life begins, and what may be lost is told.
        server.run::<()>(&format!("CONFIG SET {undone}")).await;
        if is_replica {
            server.run::<()>("REPLICAOF NO ONE").await;
        }
        let accepted = second.insist("chat:1", 3, "k").await;
        assert_ne!(accepted.epoch, epoch);
        node.deliveries(3).await;
        let chunk = node.read(&at(&epoch, 2)).await;
        assert_eq!((chunk.lost[0].reason, chunk.lost[0].point.offset), (GapReason::EpochChanged, 0));
    }
}

#[tokio::test]
async fn while_another_life_is_due_and_cannot_begin_nobody_reads_again_and_again() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let epoch = node.publish(1).await.epoch;
    node.deliveries(1).await;
    let mut lines: Vec<_> =
        (0..4).map(|partition| format!("HSET sky:{{{partition}}}:life run another")).collect();
    lines.push("CONFIG SET min-replicas-to-write 1".to_owned());
    server.transaction(&lines).await;
    let chunk = node.read(&at(&epoch, 0)).await;
    assert!(!chunk.coming.is_empty());
    // The lives are looked at every few seconds.
    let asked = server.calls("xinfo|stream").await;
    eventually("a look at the lives", async || server.calls("xinfo|stream").await > asked).await;
    assert_eq!(node.doubts(), 0);
    server.run::<()>("CONFIG SET min-replicas-to-write 0").await;
    eventually("the other life", async || node.doubts() == 1).await;
}

#[tokio::test]
async fn a_redis_that_is_full_takes_publications_again_once_its_logs_are_old() {
    let server = RedisServer::start().await;
    let mut settings = settings(&server);
    settings.options.log_age = Duration::from_secs(1);
    let node = Node::with(settings).await.unwrap();
    let memory: String = server.run("INFO memory").await;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let room = used.parse::<u64>().unwrap() + (4 << 20);
    server.run::<()>(&format!("CONFIG SET maxmemory {room}")).await;
    let publish = async || {
        let data = Json::parse(format!("\"{}\"", "x".repeat(20_000))).unwrap().into();
        node.broker.publish(Publish { data, ..message("bench:1", 0, None) }).await
    };
    while publish().await.is_ok() {}
    // One alone may find room by chance.
    eventually("room", async || {
        for _ in 0..20 {
            if publish().await.is_err() {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test]
async fn a_node_starts_on_a_redis_that_takes_no_writes() {
    let server = RedisServer::with(&["--maxmemory", "1"]).await;
    let node = Node::new(&server).await;
    assert!(node.broker.is_available() && node.broker.deaf_for().is_zero());
    assert_eq!(node.try_publish(1).await.unwrap_err(), BrokerError::Unavailable);
    let position = node.head().await;
    server.run::<()>("CONFIG SET maxmemory 0").await;
    let accepted = node.publish(1).await;
    node.deliveries(1).await;
    let chunk = node.read(&position).await;
    assert_eq!((chunk.lost[0].reason, offsets(&chunk)), (GapReason::EpochChanged, vec![accepted.offset]));
}

/// Its calls succeed all the while.
async fn is_deaf_until_it_may(node: &Node, server: &RedisServer, command: &str) {
    eventually("a second of deafness", async || node.broker.deaf_for() >= Duration::from_secs(1)).await;
    assert!(node.broker.is_available());
    server.run::<()>(&format!("ACL SETUSER default +{command}")).await;
    eventually("the end of it", async || node.broker.deaf_for() == Duration::ZERO).await;
}

#[tokio::test]
async fn a_node_that_cannot_follow_the_log_is_deaf() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    server.run::<()>("ACL SETUSER default -xread").await;
    is_deaf_until_it_may(&node, &server, "xread").await;
}

#[tokio::test]
async fn a_node_that_may_not_follow_the_log_tries_less_and_less_often() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    server.run::<()>("ACL SETUSER default -xread").await;
    eventually("deafness", async || !node.broker.deaf_for().is_zero()).await;
    // A new connection knows what the log's lives are, each time.
    let asked = server.calls("xinfo|stream").await;
    eventually("three seconds of it", async || node.broker.deaf_for() >= Duration::from_secs(3)).await;
    let attempts = (server.calls("xinfo|stream").await - asked) / 4;
    assert!(attempts < 15, "{attempts}");
    assert_eq!(node.reconnects("tail"), 0);
}

#[tokio::test]
async fn a_node_that_cannot_hear_events_is_deaf() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    server.run::<()>("ACL SETUSER default -subscribe").await;
    server.run::<u64>("CLIENT KILL TYPE pubsub").await;
    is_deaf_until_it_may(&node, &server, "subscribe").await;
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_loaded_again() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let before = node.publish(1).await;
    server.run::<()>("SCRIPT FLUSH").await;
    let after = node.insist("chat:1", 2, "k").await;
    assert_eq!((after.offset, after.epoch), (2, before.epoch));
}

#[tokio::test]
async fn a_payload_of_a_form_that_is_not_known_is_told_as_lost_though_nothing_follows() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let epoch = node.publish(1).await.epoch;
    node.deliveries(1).await;
    let log = log(&server).await;
    let fields = |offset, flags| format!("c chat:1 o eu e {epoch} n {offset} t  f {flags} k  u  d 7");
    let (position, history) = (log.replace("log", "pos:chat:1"), log.replace("log", "hist:chat:1"));
    // As a node of a later version, with a form of its own.
    let later = [
        format!("XADD {log} * {}", fields(2, "z")),
        format!("XADD {history} * {}", fields(2, "z")),
        format!("HSET {position} eu {epoch}:2"),
    ];
    server.transaction(&later).await;
    eventually("a doubt", async || node.doubts() == 1).await;
    let chunk = node.read(&at(&epoch, 1)).await;
    assert_eq!((chunk.lost[0].reason, chunk.lost[0].point.offset), (GapReason::Trimmed, 2));
    assert!(chunk.complete);
    node.publish(3).await;
    assert_eq!(offsets(&node.read(&at(&epoch, 0)).await), [1]);
    assert_eq!(offsets(&node.read(&at(&epoch, 1)).await), [3]);
    let latest = node.broker.read(&channel(), ReadFrom::Latest(10)).await.unwrap();
    assert_eq!(offsets(&latest)[0], 1);
}

#[tokio::test]
async fn an_entry_that_no_node_wrote_is_passed_over() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    for partition in 0..4 {
        server.run::<()>(&format!("XADD sky:{{{partition}}}:log * what is this then")).await;
    }
    node.publish(1).await;
    node.deliveries(1).await;
    assert_eq!(node.delivered("chat:1").len(), 1);
}
