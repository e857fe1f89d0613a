//! A Redis that lost data, or may have lost it, is told by a new epoch.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use skywave::{
    broker::{Broker, ReadFrom},
    region::{broker::epoch::is_later, keys::RegionKeys as _},
};
use skywave_protocol::{Channel, Position, frame::GapReason};
use skywave_testing::{
    RedisServer, eventually,
    node::broker::{Node, at, channel, message, offsets},
};
use std::collections::HashSet;

/// The one loss of which a reader at `position` is told.
async fn told(node: &Node, position: &Position) -> (GapReason, u64) {
    let chunk = node.read(position).await;
    assert_eq!(chunk.lost.len(), 1, "{chunk:?}");
    (chunk.lost[0].reason, chunk.lost[0].point.offset)
}

#[tokio::test]
async fn a_flush_under_a_live_connection_begins_another_epoch() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let mut before = node.publish(1).await;
    let mut epochs = HashSet::from([before.epoch.clone()]);
    for round in 1..=3 {
        // What is flushed before the node has read it is lost.
        node.deliveries(round).await;
        server.run::<()>("FLUSHALL").await;
        let after = node.publish(1).await;
        assert_eq!(after.offset, 1);
        assert!(epochs.insert(after.epoch.clone()), "{} was there before", after.epoch);
        assert_eq!(told(&node, &at(&before.epoch, 1)).await, (GapReason::EpochChanged, 0));
        before = after;
    }
    assert_eq!(node.reconnects("commands"), 0);
}

#[tokio::test]
async fn a_redis_that_goes_back_in_time_begins_another_epoch() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    node.publish(1).await;
    node.deliveries(1).await;
    let all: Vec<String> = server.run("KEYS sky:*").await;
    let mut before = Vec::new();
    for key in &all {
        before.push((key, server.run::<Vec<u8>>(&format!("DUMP {key}")).await));
    }
    let epoch = node.publish(2).await.epoch;
    node.deliveries(2).await;
    // As a machine that is set back to a snapshot: connections break, the server is the same.
    for (key, dump) in before {
        server.run_words::<()>(&[b"RESTORE".as_slice(), key.as_bytes(), b"0", &dump, b"REPLACE"]).await;
    }
    server.cut_connections().await;
    eventually("a doubt", async || node.doubts() == 1).await;
    let after = node.insist("chat:1", 3, "k").await;
    assert_ne!(after.epoch, epoch);
    assert_eq!(told(&node, &at(&epoch, 2)).await, (GapReason::EpochChanged, 0));
}

#[tokio::test]
async fn a_restart_without_data_is_told() {
    let mut server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let epoch = node.publish(1).await.epoch;
    server.restart().await;
    let after = node.insist("chat:1", 2, "k").await;
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, epoch);
    let chunk = node.read(&at(&epoch, 1)).await;
    assert_eq!((chunk.lost[0].reason, chunk.lost[0].point.offset), (GapReason::EpochChanged, 0));
    assert_eq!((offsets(&chunk), chunk.complete), (vec![1], true));
}

#[tokio::test]
async fn what_survived_a_restart_is_recovered_before_the_new_epoch() {
    let mut server = RedisServer::durable().await;
    let node = Node::new(&server).await;
    let epoch = node.publish(1).await.epoch;
    for number in 2..=4 {
        node.publish(number).await;
    }
    server.restart().await;
    let after = node.insist("chat:1", 5, "k").await;
    assert_eq!(after.offset, 1);
    let first = node.read(&at(&epoch, 2)).await;
    assert_eq!((offsets(&first), first.complete), (vec![3, 4], false));
    assert_eq!(first.loss(), Some(GapReason::EpochChanged));
    let second = node.read(&at(&epoch, 4)).await;
    assert_eq!((offsets(&second), second.complete), (vec![1], true));
    assert_eq!(second.lost[0].point, *at(&after.epoch, 0).get("eu").unwrap());
    let last = node.broker.read(&channel(), ReadFrom::Latest(10)).await.unwrap();
    assert_eq!((offsets(&last), last.start), (vec![1, 2, 3, 4], at(&epoch, 0)));
}

#[tokio::test]
async fn who_has_seen_nothing_of_the_region_is_told_what_is_gone_of_its_life_that_is_over() {
    let mut server = RedisServer::durable().await;
    let node = Node::new(&server).await;
    node.publish(1).await;
    node.publish(2).await;
    // As it expires.
    let histories: Vec<String> = server.run("KEYS sky:*:hist:*").await;
    server.run::<u64>(&format!("DEL {}", histories.join(" "))).await;
    server.restart().await;
    node.available().await;
    let nothing = Position::new();
    assert_eq!(told(&node, &nothing).await, (GapReason::EpochChanged, 0));
    let after = node.insist("chat:1", 3, "k").await;
    let chunk = node.read(&nothing).await;
    assert_eq!((chunk.lost.len(), offsets(&chunk), chunk.complete), (1, vec![1], true));
    assert_eq!(chunk.lost[0].point, *at(&after.epoch, 0).get("eu").unwrap());
}

#[tokio::test]
async fn what_is_gone_of_a_life_that_is_over_is_told_also_where_a_channel_is_taken_for_one_that_has_begun() {
    let mut server = RedisServer::durable().await;
    let node = Node::new(&server).await;
    let keys = &node.redis.keys;
    node.publish(1).await;
    server.run_words::<u64>(&["DEL", &keys.history(&channel())]).await;
    server.restart().await;
    node.available().await;
    let partition = keys.partition(&channel());
    let other = (0..).map(|number| format!("chat:other-{number}"));
    let other = other.map(|name| Channel::new(&name).unwrap()).find(|name| keys.partition(name) == partition);
    node.insist(&other.unwrap(), 1, "k").await;
    // Many have begun.
    let fill = r"return redis.call('SET', KEYS[1], string.rep('\255', 32769))";
    server.run_words::<()>(&["EVAL", fill, "1", &keys.begun(partition)]).await;
    assert_eq!(node.head().await.get("eu").unwrap().offset, 0);
    assert_eq!(told(&node, &Position::new()).await, (GapReason::EpochChanged, 0));
}

#[tokio::test]
async fn a_key_survives_a_restart_with_data() {
    let mut server = RedisServer::durable().await;
    let node = Node::new(&server).await;
    let first = node.insist("chat:1", 1, "k").await;
    server.restart().await;
    let again = node.insist("chat:1", 1, "k").await;
    assert!(again.duplicate);
    assert_eq!((first.epoch, first.offset), (again.epoch, again.offset));
}

#[tokio::test]
async fn no_position_is_given_twice_when_redis_returns_to_an_older_state() {
    let mut server = RedisServer::start().await;
    let (early, late) = (Node::new(&server).await, Node::new(&server).await);
    let mut positions = HashSet::new();
    let mut publish = async |node: &Node, number: u64| {
        let accepted = node.insist("chat:1", number, &format!("key {number}")).await;
        let position = (accepted.epoch.to_string(), accepted.offset);
        assert!(positions.insert(position.clone()), "{position:?} was given twice");
        accepted
    };
    publish(&early, 1).await;
    server.run::<()>("SAVE").await;
    let forgotten = publish(&late, 2).await;
    server.restart().await;
    publish(&early, 3).await;
    publish(&late, 4).await;
    server.restart().await;
    publish(&late, 5).await;
    publish(&early, 6).await;
    // Who had seen what Redis forgot is told, and gets nothing again.
    let seen = at(&forgotten.epoch, forgotten.offset);
    let chunk = early.read(&seen).await;
    assert_eq!(chunk.lost[0].reason, GapReason::EpochChanged);
    let payloads: Vec<_> =
        chunk.publications.iter().map(|publication| format!("{:?}", publication.frame().data)).collect();
    assert_eq!(payloads, ["Json(5)", "Json(6)"]);
}

#[tokio::test]
async fn nodes_agree_on_the_epoch_after_a_restart() {
    let mut server = RedisServer::durable().await;
    let nodes = [Node::new(&server).await, Node::new(&server).await, Node::new(&server).await];
    nodes[0].publish(0).await;
    server.restart().await;
    let mut accepted = Vec::new();
    for (number, node) in (1..).zip(&nodes) {
        accepted.push(node.insist("chat:1", number, &format!("key {number}")).await);
    }
    assert!(accepted.iter().map(|one| one.offset).eq(1..=3));
    assert!(accepted.iter().all(|one| one.epoch == accepted[0].epoch));
    for node in &nodes {
        node.deliveries(4).await;
        let delivered = node.delivered("chat:1");
        assert_eq!(delivered.iter().map(|(_, offset, _)| *offset).collect::<Vec<_>>(), [1, 1, 2, 3]);
    }
}

#[tokio::test]
async fn a_quiet_channel_is_told_as_well() {
    let mut server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let before = node.head().await;
    node.publish(1).await;
    server.restart().await;
    eventually("the reconnection", async || node.reconnects("commands") > 0).await;
    // The reader had seen nothing; what it missed is lost.
    assert_eq!(told(&node, &before).await, (GapReason::EpochChanged, 0));
}

#[tokio::test]
async fn a_position_that_expired_is_followed_by_another_epoch() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let before = node.publish(1).await;
    // As after a week.
    server.run::<u64>(&format!("DEL {}", node.redis.keys.position(&channel()))).await;
    let after = node.publish(2).await;
    assert_eq!(after.offset, 1);
    assert_ne!(before.epoch, after.epoch);
    assert_eq!(told(&node, &at(&before.epoch, 1)).await, (GapReason::EpochChanged, 0));
    assert_eq!(node.publish(3).await.epoch, after.epoch);
}

#[tokio::test]
async fn a_position_stays_for_as_long_as_somebody_comes_who_may_stand_there() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let accepted = node.publish(1).await;
    let key = node.redis.keys.position(&channel());
    let left = async || server.run_words::<u64>(&["PTTL", &key]).await;
    let whole = left().await;
    for from in [ReadFrom::Head, ReadFrom::Latest(1), ReadFrom::Position(at(&accepted.epoch, 1))] {
        for (rest, is_renewed) in [(whole * 2 / 3, true), (whole * 4 / 5, false)] {
            server.run_words::<u64>(&["PEXPIRE", &key, &rest.to_string()]).await;
            node.broker.read(&channel(), from.clone()).await.unwrap();
            assert_eq!(left().await > rest, is_renewed, "{from:?}");
        }
    }
}

#[tokio::test]
async fn a_channel_on_which_nothing_was_published_loses_nothing_however_long_it_is_quiet() {
    let server = RedisServer::with_clock().await;
    let node = Node::new(&server).await;
    let quiet = node.head().await;
    server.set_clock(30 * 24 * 60 * 60).await;
    let accepted = node.publish(1).await;
    node.deliveries(1).await;
    let chunk = node.read(&quiet).await;
    assert_eq!((chunk.lost, chunk.publications.len()), (vec![], 1));
    assert_eq!((&accepted.epoch, accepted.offset), (&quiet.get("eu").unwrap().epoch, 1));
}

#[tokio::test]
async fn a_channel_that_goes_on_after_its_position_expired_changes_no_other_channels_epoch() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let other = |number| Channel::new(&format!("chat:other {number}")).unwrap();
    let others: Vec<_> = (0..16).map(other).collect();
    let publish = async |channel: &Channel| node.broker.publish(message(channel, 1, None)).await.unwrap();
    let expire = async |channel: &Channel| {
        server.run_words::<u64>(&["DEL", &node.redis.keys.position(channel)]).await;
    };
    node.publish(1).await;
    for other in &others {
        publish(other).await;
    }
    let quiet = Channel::new("chat:quiet").unwrap();
    let begins = node.broker.read(&quiet, ReadFrom::Head).await.unwrap().start;
    // Who comes once it has expired is told where the channel goes on.
    expire(&channel()).await;
    let goes_on = node.head().await;
    for other in &others {
        expire(other).await;
        publish(other).await;
    }
    for (channel, told) in [(channel(), goes_on), (quiet, begins)] {
        let accepted = publish(&channel).await;
        assert_eq!((&accepted.epoch, accepted.offset), (&told.get("eu").unwrap().epoch, 1));
    }
}

#[tokio::test]
async fn where_too_many_channels_have_begun_to_tell_them_apart_no_position_is_given_twice() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let mut given = HashSet::new();
    for number in 0..3 {
        let accepted = node.publish(number).await;
        assert!(given.insert((accepted.epoch.clone(), accepted.offset)), "{accepted:?}");
        for partition in 0..4 {
            server.run::<u64>(&format!("HSET sky:{{{partition}}}:life marked 1000000")).await;
        }
        // The last one that fits, and the first of those that can be told apart again.
        for other in 0..16 {
            let name = format!("chat:other {number} {other}");
            node.broker.publish(message(&name, number, None)).await.unwrap();
        }
        server.run::<u64>(&format!("DEL {}", node.redis.keys.position(&channel()))).await;
    }
    assert_eq!(given.len(), 3);
}

#[tokio::test]
async fn a_log_that_went_back_in_time_is_read_from_its_new_beginning() {
    let server = RedisServer::start().await;
    let (here, there) = (Node::new(&server).await, Node::new(&server).await);
    here.broker.publish(message("chat:1", 1, None)).await.unwrap();
    there.deliveries(1).await;
    // An entry from the future: the tail stands there, and what comes after the flush stands before it.
    for partition in 0..4 {
        let future = "99999999999999-0 c chat:1 o us e there n 1 t 1 f j k  u  d 7";
        server.run::<()>(&format!("XADD sky:{{{partition}}}:log {future}")).await;
    }
    there.deliveries(5).await;
    server.run::<()>("FLUSHALL").await;
    here.publish(2).await;
    eventually("the new life", async || there.publications().len() == 6).await;
    assert_eq!(there.publications()[5].frame().offset, 1);
}

#[tokio::test]
async fn a_position_that_vanishes_leads_no_reader_back() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let mut epoch = String::new();
    for number in 1..=3 {
        epoch = node.publish(number).await.epoch.to_string();
    }
    node.deliveries(3).await;
    let key = node.redis.keys.position(&channel());
    server.run::<u64>(&format!("DEL {key}")).await;
    // What it has is not told as something that does not exist, nor brought again.
    let chunk = node.read(&at(&epoch, 3)).await;
    let lost = &chunk.lost[0];
    assert_eq!((lost.reason, lost.point.offset, chunk.publications.len()), (GapReason::EpochChanged, 0, 0));
    assert_ne!(*lost.point.epoch, *epoch);
    let accepted = node.publish(4).await;
    assert_eq!((accepted.epoch, accepted.offset), (lost.point.epoch.clone(), 1));
}

#[tokio::test]
async fn whatever_single_key_vanishes_no_position_is_given_twice_and_nothing_is_lost_in_silence() {
    // Alone, and the position with what would tell that there was one.
    for gone in
        [&["pos:chat:1"][..], &["pos:chat:1", "begun"], &["life"], &["log"], &["hist:chat:1"], &["begun"]]
    {
        let server = RedisServer::start().await;
        let node = Node::new(&server).await;
        let mut given = HashSet::new();
        let mut publish = async |number| {
            let accepted = node.publish(number).await;
            assert!(given.insert((accepted.epoch.clone(), accepted.offset)), "{gone:?}: {accepted:?}");
            accepted
        };
        let mut before = publish(1).await;
        for number in 2..=5 {
            before = publish(number).await;
        }
        node.deliveries(5).await;
        for partition in 0..4 {
            for key in gone {
                server.run::<u64>(&format!("DEL sky:{{{partition}}}:{key}")).await;
            }
        }
        let after = publish(6).await;
        publish(7).await;
        node.deliveries(7).await;
        let chunk = node.read(&at(&before.epoch, before.offset)).await;
        assert_eq!(chunk.publications.len(), 2, "{gone:?}: {chunk:?}");
        let changed = after.epoch != before.epoch;
        assert_eq!(chunk.lost.first().map(|lost| lost.reason), changed.then_some(GapReason::EpochChanged));
        assert_eq!(changed, gone.iter().any(|key| !["hist:chat:1", "begun"].contains(key)), "{gone:?}");
    }
}

#[tokio::test]
async fn channels_that_begin_do_not_change_the_epoch_of_those_that_have_not() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let before = node.head().await;
    for number in 0..200 {
        node.broker.publish(message(&format!("chat:other {number}"), number, None)).await.unwrap();
    }
    let accepted = node.publish(1).await;
    assert_eq!((&accepted.epoch, accepted.offset), (&before.get("eu").unwrap().epoch, 1));
}

#[tokio::test]
async fn a_server_that_comes_back_after_another_took_over_begins_another_epoch() {
    let server = RedisServer::start().await;
    let node = Node::new(&server).await;
    let first = node.publish(1).await.epoch;
    node.deliveries(1).await;
    let all: Vec<String> = server.run("KEYS sky:*").await;
    let mut before = Vec::new();
    for key in &all {
        before.push((key, server.run::<Vec<u8>>(&format!("DUMP {key}")).await));
    }
    // As if another server, which has the same data, took over.
    for partition in 0..4 {
        server.run::<u64>(&format!("HSET sky:{{{partition}}}:life run another")).await;
    }
    server.cut_connections().await;
    eventually("a doubt", async || node.doubts() == 1).await;
    let second = node.insist("chat:1", 2, "k").await.epoch;
    node.deliveries(2).await;
    // And the first one is back, and knows nothing of it.
    for (key, dump) in before {
        server.run_words::<()>(&[b"RESTORE".as_slice(), key.as_bytes(), b"0", &dump, b"REPLACE"]).await;
    }
    server.cut_connections().await;
    eventually("a doubt", async || node.doubts() == 2).await;
    let third = node.insist("chat:1", 3, "other").await.epoch;
    assert!(first != second && second != third && first != third);
    assert_eq!(told(&node, &at(&first, 1)).await, (GapReason::EpochChanged, 0));
    assert_eq!(told(&node, &at(&second, 1)).await, (GapReason::EpochChanged, 0));
}

/// Names of epochs, of what is nearly one, and of anything else.
fn epoch_name() -> impl Strategy<Value = String> {
    let serial = prop_oneof![
        Just("019ac0f00d1"),
        Just("019AC0F00D1"),
        Just("00000000abc"),
        Just("fffffffffff"),
        Just("19ac0f00d1")
    ];
    let random = prop_oneof![Just("aaaaa"), Just("AAAAA"), Just("00001"), Just("0000g"), Just("")];
    let count = prop_oneof![
        Just("1"),
        Just("01"),
        Just("2"),
        Just("10"),
        Just("9007199254740992"),
        Just("9007199254740993"),
        Just("999999999999999"),
        Just("18446744073709551616"),
        Just("+1"),
        Just("1e1"),
        Just(" 1"),
        Just("0x1"),
        Just("1.e2"),
        Just(""),
    ];
    let joined = prop_oneof![8 => Just(".e"), 1 => Just("."), 1 => Just(""), 1 => Just("..e")];
    prop_oneof![
        9 => (serial, random, joined, count).prop_map(|(serial, random, joined, count)| format!("{serial}{random}{joined}{count}")),
        3 => "[0-9a-f]{11}[0-9a-f]{5}\\.e[0-9]{1,17}",
        1 => ".{0,32}",
    ]
}

#[tokio::test]
async fn scripts_and_nodes_take_the_same_of_two_epochs_for_the_later_one() {
    const SCRIPT: &str = concat!(
        include_str!("../../crates/region/src/bridge/latest.lua"),
        "local told = {}\nfor at = 1, #ARGV, 2 do told[#told + 1] = is_later(ARGV[at], ARGV[at + 1]) and 1 or 0 end\nreturn told"
    );
    let server = RedisServer::start().await;
    let mut runner = TestRunner::default();
    let pairs = prop::collection::vec((epoch_name(), epoch_name()), 100);
    for _ in 0..200 {
        let pairs = pairs.new_tree(&mut runner).unwrap().current();
        let mut words = vec!["EVAL", SCRIPT, "0"];
        words.extend(pairs.iter().flat_map(|(one, other)| [one.as_str(), other.as_str()]));
        let told: Vec<u8> = server.run_words(&words).await;
        for ((one, other), told) in pairs.iter().zip(told) {
            assert_eq!(told == 1, is_later(one, other), "{one:?} {other:?}");
        }
    }
}
