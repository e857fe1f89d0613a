//! Whatever breaks between two regions, what was published arrives in order and once when it is whole again.

use crate::deployment::{CHANNEL, Deployment};
use serde_json::json;
use skywave::{
    redis::{Keys, keys::partition_of},
    region::{broker::scripts::PUBLISH, keys::RegionKeys as _},
};
use skywave_protocol::Channel;
use skywave_testing::{
    JsonSocket, eventually,
    node::{
        before,
        broker::{channel, offsets},
    },
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

#[tokio::test(flavor = "multi_thread")]
async fn another_node_takes_over_from_a_leader_that_ends() {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    deployment.add_node("eu").await;
    deployment.publish("us", 1..=100).await;
    for round in 1..=3_u64 {
        eventually("a leader", async || deployment.leader("eu", "us").is_some()).await;
        let leading = deployment.leader("eu", "us").unwrap();
        let ended = deployment.region_mut("eu").nodes.remove(leading);
        // Some while the leader ends, some while there is none, some with the next one.
        tokio::join!(deployment.publish("us", 100 * round + 1..=100 * round + 100), async { drop(ended) });
        deployment.all_arrive("eu", "us", 100 * round + 100).await;
        deployment.add_node("eu").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_arrives_in_order_when_the_path_is_cut_and_healed() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=50).await;
    let path = deployment.path("eu", "us");
    path.cut();
    deployment.publish("us", 51..=1_000).await;
    path.heal();
    deployment.publish("us", 1_001..=1_100).await;
    deployment.all_arrive("eu", "us", 1_100).await;
    path.cut();
    deployment.publish("us", 1_101..=1_500).await;
    path.reset();
    path.heal();
    deployment.publish("us", 1_501..=1_600).await;
    deployment.all_arrive("eu", "us", 1_600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_when_either_redis_cuts_its_connections() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let cutting = async {
        for round in 0..10 {
            let name = if round % 2 == 0 { "us" } else { "eu" };
            deployment.region(name).redis.cut_connections().await;
            let arrived = deployment.region("eu").numbers(CHANNEL, "us").len();
            eventually("progress", async || {
                let now = deployment.region("eu").numbers(CHANNEL, "us").len();
                now > arrived || now == 2_000
            })
            .await;
        }
    };
    tokio::join!(deployment.publish("us", 1..=2_000), cutting);
    deployment.all_arrive("eu", "us", 2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_when_the_other_redis_freezes_or_restarts() {
    let mut deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=100).await;
    deployment.region("us").redis.freeze();
    tokio::join!(deployment.publish("us", 101..=200), async {
        // Longer than a connection is waited for.
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        deployment.region("us").redis.thaw();
    });
    deployment.all_arrive("eu", "us", 200).await;
    deployment.region_mut("us").redis.restart().await;
    deployment.publish("us", 201..=300).await;
    deployment.all_arrive("eu", "us", 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_fenced_off_goes_on_with_a_higher_token_only() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    let redis = &deployment.region("eu").redis;
    for partition in 0..4 {
        redis.run::<u64>(&format!("HSET sky:{{{partition}}}:cursor us:fence 1000")).await;
    }
    deployment.publish("us", 11..=20).await;
    deployment.all_arrive("eu", "us", 20).await;
    let token: u64 = redis.run("HGET sky:lease:bridge:us token").await;
    assert!(token > 1_000, "{token}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_vanishes_while_another_region_publishes_costs_no_subscriber_anything() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    let eu = deployment.region("eu");
    let seen = eu.ear.head().await;
    let position = eu.ear.redis.keys.position(&channel());
    let deleting = async {
        for round in 1..=10 {
            eventually("progress", async || eu.numbers(CHANNEL, "us").len() >= 10 + 15 * round).await;
            eu.redis.run::<u64>(&format!("DEL {position}")).await;
            // Who stands there misses nothing, whether anything follows or not.
            assert!(eu.ear.read(&seen).await.lost.is_empty());
        }
    };
    tokio::join!(deployment.publish("us", 11..=200), deleting);
    deployment.all_arrive("eu", "us", 200).await;
    let chunk = eu.ear.read(&seen).await;
    assert!(chunk.lost.is_empty() && offsets(&chunk).into_iter().eq(11..=200), "{chunk:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_goes_on_behind_what_was_trimmed_while_it_was_cut() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    deployment.trim_while_cut("eu", "us", 11..=20, 3).await;
    deployment.publish("us", 21..=30).await;
    let numbers = || deployment.region("eu").numbers(CHANNEL, "us");
    eventually("the last publication", async || numbers().last() == Some(&30)).await;
    let numbers = numbers();
    assert!(numbers.ends_with(&(18..=30).collect::<Vec<_>>()), "{numbers:?}");
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_goes_on_when_nothing_is_left_of_what_it_missed() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    deployment.trim_while_cut("eu", "us", 11..=20, 0).await;
    // It catches up with a log that holds nothing.
    for partition in 0..4 {
        eventually("the cursor at the head", async || {
            let (us, eu) = (&deployment.region("us").redis, &deployment.region("eu").redis);
            let last: Option<String> = us.run(&format!("HGET sky:{{{partition}}}:life out")).await;
            let cursor: String = eu.run(&format!("HGET sky:{{{partition}}}:cursor us")).await;
            last.is_none_or(|last| cursor.split(' ').nth(1) == Some(&*last))
        })
        .await;
    }
    deployment.publish("us", 21..=30).await;
    let numbers = || deployment.region("eu").numbers(CHANNEL, "us");
    eventually("the last publication", async || numbers().last() == Some(&30)).await;
    assert_eq!(numbers(), (1..=30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_catches_up_from_a_log_that_goes_on_losing_its_oldest_entries() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    let (us, path) = (deployment.region("us"), deployment.path("eu", "us"));
    let log = Keys::new("sky".into(), 4).log(partition_of(&channel(), 4));
    let last = AtomicU64::new(10);
    let publishing = async {
        for number in 11.. {
            us.insist(CHANNEL, number, &number.to_string()).await;
            us.redis.run::<u64>(&format!("XTRIM {log} MAXLEN = 20")).await;
            last.store(number, Ordering::Release);
        }
    };
    let healing = async {
        path.cut();
        path.reset();
        eventually("a log that does not reach back", async || last.load(Ordering::Acquire) > 100).await;
        // Long enough for the log to move on while the other region's channels are gone through.
        path.set(|weather| weather.delay = Duration::from_millis(30));
        path.heal();
        let healed_at = last.load(Ordering::Acquire);
        let arrived = || deployment.region("eu").numbers(CHANNEL, "us");
        eventually("what is published now", async || arrived().last() > Some(&(healed_at + 100))).await;
        let numbers = arrived();
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
    };
    tokio::select! {
        () = publishing => {}
        () = healing => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_one_way_only_one_side_waits_and_its_link_is_marked_until_it_has_caught_up() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let links = |name| deployment.region(name).node().node().cluster.sharing.links().unwrap().states();
    let is_lagging = || links("eu").borrow().get("us").is_some_and(|link| link.lagging);
    deployment.publish("us", 1..=10).await;
    deployment.all_arrive("eu", "us", 10).await;
    deployment.path("eu", "us").cut();
    deployment.publish("us", 11..=50).await;
    for number in 1..=50 {
        deployment.region("eu").publish(CHANNEL, number).await;
    }
    deployment.all_arrive("us", "eu", 50).await;
    eventually("the link is marked", async || is_lagging()).await;
    assert!(links("us").borrow().get("eu").is_some_and(|link| !link.lagging), "it gets all there is");
    assert_eq!(deployment.region("eu").numbers(CHANNEL, "us").last(), Some(&10));
    deployment.path("eu", "us").heal();
    deployment.all_arrive("eu", "us", 50).await;
    eventually("the link is marked no more", async || !is_lagging()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_reaches_no_other_sends_its_sessions_away_if_it_is_to_leave() {
    let leaving = "\n[failover]\nisolated = \"leave\"\n";
    let deployment = Deployment::with(&["eu", "us", "ap"], leaving).await;
    let regions = ["eu", "us", "ap"].map(|name| deployment.region(name));
    let mut sockets = Vec::new();
    for region in regions {
        let links = region.node().node().cluster.sharing.links().unwrap().states();
        eventually("the links", async || links.borrow().nearest().len() == 2).await;
        let mut socket = JsonSocket::open(region.node().plain().unwrap()).await;
        socket.send(json!({"connect": {"id": 1}})).await;
        socket.receive("connected").await;
        sockets.push(socket);
    }
    deployment.path("eu", "us").cut();
    deployment.path("eu", "ap").cut();
    let told = sockets[0].receive("drain").await;
    assert_eq!(told["url"], "https://localhost:1");
    assert_eq!(deployment.region("eu").node().node().cluster.unready(), Some("isolated"));
    // The others have each other.
    for name in ["us", "ap"] {
        assert_eq!(deployment.region(name).node().node().cluster.unready(), None);
    }
    deployment.path("eu", "us").heal();
    deployment.path("eu", "ap").heal();
    eventually("it is back", async || deployment.region("eu").node().node().cluster.unready().is_none())
        .await;
}

/// Accepts a publication in `us` as its nodes do, but for what is said on pub/sub: that is lost on the way.
async fn publish_unheard(deployment: &Deployment, channel: &str, number: u64) {
    let redis = &deployment.region("us").redis;
    let said = "redis.call('PUBLISH', ARGV[15], message)";
    let script = PUBLISH.source();
    assert!(script.contains(said));
    let server: String = redis.run("INFO server").await;
    let run = server.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap();
    let partition = partition_of(&Channel::new(channel).unwrap(), 4);
    let key = |rest: &str| format!("sky:{{{partition}}}:{rest}");
    let payload = number.to_string();
    let keys = ["life", "log", &format!("pos:{channel}"), &format!("hist:{channel}"), "begun"].map(key);
    let args = [
        run, "fresh", "us", channel, "j", "", "", &payload, "100", "60000", "60000", "1000", "60000",
        "60000", "out",
    ];
    let script = script.replace(said, "");
    let words = ["EVAL", &script, "5"].into_iter().chain(keys.iter().map(String::as_str)).chain(args);
    redis.run_words::<Vec<redis::Value>>(&words.collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_not_heard_arrives_though_only_other_channels_go_on() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    let partition = |channel: &str| partition_of(&Channel::new(channel).unwrap(), 4);
    let names = (2..).map(|number| format!("chat:{number}"));
    let neighbour = names.into_iter().find(|name| partition(name) == partition(CHANNEL)).unwrap();
    us.publish(CHANNEL, 1).await;
    us.publish(&neighbour, 1).await;
    deployment.deliveries("eu", 2).await;
    publish_unheard(&deployment, CHANNEL, 2).await;
    us.publish(&neighbour, 2).await;
    deployment.deliveries("eu", 4).await;
    assert_eq!((eu.numbers(CHANNEL, "us"), eu.numbers(&neighbour, "us")), (vec![1, 2], vec![1, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_not_heard_arrives_though_nothing_follows_it() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    deployment.publish("us", 1..=1).await;
    deployment.deliveries("eu", 1).await;
    publish_unheard(&deployment, CHANNEL, 2).await;
    deployment.deliveries("eu", 2).await;
    assert_eq!(deployment.region("eu").numbers(CHANNEL, "us"), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_of_the_version_before_accept_crosses_among_what_others_do() {
    let deployment = Deployment::start(&["eu", "us"]).await;
    let (eu, us) = (deployment.region("eu"), deployment.region("us"));
    for number in 1..=100 {
        if number % 3 == 0 {
            before::publish(&us.redis, "us", CHANNEL, number).await;
        } else {
            us.publish(CHANNEL, number).await;
        }
    }
    deployment.deliveries("eu", 100).await;
    deployment.all_arrive("eu", "us", 100).await;
    assert_eq!(eu.numbers(CHANNEL, "us").len(), 100);
}
