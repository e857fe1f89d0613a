//! Regions that mirror each other's presence, and the links between them.

use crate::{
    crowd::{Crowd, address, named},
    parts::{ITS_PARTITION, others_can_be_asked, others_cannot_be_asked},
    world::{AT_ONCE, Guest, TRANSPORTS, Watcher, client, node, node_of_regions, set},
};
use skywave::{
    host::Host,
    metrics::Metrics,
    redis::Redis,
    region::{Remote, presence::mirror::Mirror},
};
use skywave_protocol::Text;
use skywave_testing::{RedisServer, Relay, eventually};
use std::{slice, time::Duration};
use tokio::task::JoinSet;

const QUICK: [(&str, &str); 2] = [AT_ONCE, ("CHANNELS__CHAT__PRESENCE_GRACE", "200ms")];

#[tokio::test(flavor = "multi_thread")]
async fn members_of_two_regions_see_each_other() {
    let (eu_redis, us_redis) = (RedisServer::start().await, RedisServer::start().await);
    let eu = node_of_regions(&eu_redis, "eu", &[("us", &us_redis.url())]).await;
    let us = node_of_regions(&us_redis, "us", &[("eu", &eu_redis.url())]).await;
    let mut here = Watcher::by(&eu, TRANSPORTS[0]).await;
    let mut there = Watcher::by(&us, TRANSPORTS[1]).await;
    let both = set(&[here.session(), there.session()]);
    here.sees(&[there.session()]).await;
    there.sees(&[here.session()]).await;
    for watcher in [&here, &there] {
        assert_eq!(watcher.asks().await, (both.clone(), 2));
    }
    for transport in TRANSPORTS {
        let guest = Guest::of(client(&[&us], transport).await).await;
        let session = guest.session();
        for watcher in [&mut here, &mut there] {
            assert_eq!(watcher.next().await, (set(slice::from_ref(&session)), set(&[]), 3));
        }
        drop(guest.subscription);
        for watcher in [&mut here, &mut there] {
            assert_eq!(watcher.next().await, (set(&[]), set(slice::from_ref(&session)), 2));
        }
    }
}

/// `eu` with a node, `us` with a crowd, and a link by which `eu` sees `us`.
struct Link {
    eu: RedisServer,
    us: RedisServer,
    path: Relay,
    tasks: JoinSet<()>,
}

impl Link {
    async fn start(patience: Duration) -> Self {
        let mut link = Self::not_mirrored().await;
        link.begin(patience).await;
        link
    }

    async fn not_mirrored() -> Self {
        let (eu, us) = (RedisServer::start().await, RedisServer::start().await);
        let path = Relay::tcp(us.port()).await;
        Self { eu, us, path, tasks: JoinSet::new() }
    }

    async fn begin(&mut self, patience: Duration) {
        let (from, to) = (self.path.url("redis"), self.eu.url());
        self.mirror("us", &from, &to, patience).await;
    }

    /// Until when `us` holds a partition's members in `eu`, in milliseconds; 0 where it does not.
    async fn held_until(&self, partition: u16) -> u64 {
        let key = format!("sky:{{{partition}}}:presence-holders");
        self.eu.run::<Option<f64>>(&format!("ZSCORE {key} @us")).await.unwrap_or_default() as u64
    }

    /// Mirrors the presence of region `name`.
    async fn mirror(&mut self, name: &str, from: &str, to: &str, patience: Duration) {
        let metrics = || Metrics::new().unwrap().redis;
        let at = |url: &str| skywave::redis::Address {
            url: skywave::config::Secret::new(url),
            ..address(&self.eu, &[])
        };
        let redis = Redis::reach(&Host::machine(), &at(from), "remote", metrics()).unwrap();
        let local = Redis::connect(&Host::machine(), &at(to), "local", metrics()).await.unwrap();
        let remote = Remote { name: Text::new(name).unwrap(), url: "https://localhost:1".into(), redis };
        let mirror = Mirror::new(remote, local, "mirror", patience);
        self.tasks.spawn(mirror.run());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_moves_to_another_region_is_not_told() {
    let patience = Duration::from_secs(30);
    let mut link = Link::start(patience).await;
    let (from, to) = (link.eu.url(), link.us.url());
    link.mirror("eu", &from, &to, patience).await;
    let (eu, us) = (Crowd::on(&link.eu, &QUICK).await, Crowd::on(&link.us, &QUICK).await);
    let nodes = [node(&link.eu).await, node(&link.us).await];
    let mut watchers = [Watcher::on(&nodes[0]).await, Watcher::on(&nodes[1]).await];
    let [here, there] = [watchers[0].session(), watchers[1].session()];
    watchers[0].sees(&[there]).await;
    watchers[1].sees(&[here]).await;
    let (traveller, other) = (us.arrives("traveller"), us.arrives("other"));
    for watcher in &mut watchers {
        watcher.gather_of(&[named("traveller"), named("other")]).await;
    }
    let _arrived = eu.arrives("traveller");
    let has_moved = async || {
        let room = crate::world::room(&link.us).await;
        link.us.run::<String>(&format!("HGET {room} traveller")).await.starts_with("@eu ")
    };
    eventually("the move", has_moved).await;
    // The one whose absence begins later is told first, and alone.
    drop(traveller);
    drop(other);
    for watcher in &mut watchers {
        assert_eq!(watcher.next().await, (set(&[]), set(&[named("other")]), 3));
        assert!(watcher.asks().await.0.contains("traveller"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_arrives_late_takes_its_session_from_no_newer_one_of_another_region() {
    let patience = Duration::from_secs(30);
    let mut link = Link::start(patience).await;
    let (from, to) = (link.eu.url(), link.us.url());
    link.mirror("eu", &from, &to, patience).await;
    let (eu, us) = (Crowd::on(&link.eu, &QUICK).await, Crowd::on(&link.us, &QUICK).await);
    let node = node(&link.eu).await;
    let mut watcher = Watcher::on(&node).await;
    let _newest = us.arrives_by("traveller", 3);
    watcher.gather_of(&[named("traveller")]).await;
    drop(eu.arrives_by("traveller", 2));
    eu.is_answered().await;
    // Whoever leaves last is told first, and alone.
    let other = eu.arrives("other");
    watcher.gather_of(&[named("other")]).await;
    drop(other);
    assert_eq!(watcher.next().await, (set(&[]), set(&[named("other")]), 2));
    assert_eq!(watcher.asks().await.0, set(&[named("traveller"), watcher.session()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_region_that_is_cut_off_leave_together_and_come_back() {
    let link = Link::start(Duration::from_secs(3)).await;
    let us = Crowd::on(&link.us, &QUICK).await;
    let eu = node(&link.eu).await;
    let mut watcher = Watcher::on(&eu).await;
    let names: Vec<_> = (0..20).map(|number| named(&format!("session {number}"))).collect();
    let _stays: Vec<_> = names.iter().map(|name| us.arrives(name)).collect();
    watcher.gather_of(&names).await;
    link.path.cut();
    assert_eq!(watcher.next().await, (set(&[]), set(&names), 1));
    link.path.heal();
    link.path.reset();
    watcher.gather_of(&names).await;
    assert_eq!(watcher.asks().await.1, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_region_stay_though_a_part_of_it_cannot_be_asked() {
    let link = Link::start(Duration::from_secs(3)).await;
    let us = Crowd::on(&link.us, &QUICK).await;
    let eu = node(&link.eu).await;
    let mut watcher = Watcher::on(&eu).await;
    let names: Vec<_> = (0..20).map(|number| named(&format!("session {number}"))).collect();
    let _stays: Vec<_> = names.iter().map(|name| us.arrives(name)).collect();
    watcher.gather_of(&names).await;
    let mut come = Vec::new();
    for (name, part) in [("first", &link.us), ("second", &link.eu)] {
        let until = link.held_until(ITS_PARTITION).await;
        others_cannot_be_asked(part).await;
        eventually("renewal", async || link.held_until(ITS_PARTITION).await > until + 5_000).await;
        come.push(us.arrives(name));
        watcher.gather_of(&[named(name)]).await;
        others_can_be_asked(part).await;
    }
    assert_eq!(watcher.asks().await.1, 23);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_region_come_over_a_path_that_carries_little() {
    const MEMBERS: u64 = 3_000;
    let mut link = Link::not_mirrored().await;
    let us = Crowd::on(&link.us, &QUICK).await;
    let _stays: Vec<_> = (0..MEMBERS).map(|number| us.arrives(&format!("session {number}"))).collect();
    us.is_answered().await;
    // Some seven seconds for all of them.
    link.path.set(|weather| weather.rate = Some(50_000));
    link.begin(Duration::from_secs(30)).await;
    let eu = node(&link.eu).await;
    let watcher = Watcher::on(&eu).await;
    eventually("their arrival", async || watcher.asks().await.1 == MEMBERS + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_the_link_was_cut_is_told_when_it_heals() {
    let link = Link::start(Duration::from_secs(30)).await;
    let us = Crowd::on(&link.us, &QUICK).await;
    let eu = node(&link.eu).await;
    let mut watcher = Watcher::on(&eu).await;
    let (_stays, leaves) = (us.arrives("stays"), us.arrives("leaves"));
    watcher.gather_of(&[named("stays"), named("leaves")]).await;
    link.path.cut();
    leaves.leave();
    let _comes = us.arrives("comes");
    eventually("the changes", async || {
        let room = crate::world::room(&link.us).await;
        let all: Vec<String> = link.us.run(&format!("HKEYS {room}")).await;
        all.iter().all(|name| name != "leaves") && all.iter().any(|name| name == "comes")
    })
    .await;
    link.path.reset();
    link.path.heal();
    assert_eq!(watcher.gather(2).await, (set(&[named("comes")]), set(&[named("leaves")])));
    assert_eq!(watcher.asks().await.0, set(&[watcher.session(), named("stays"), named("comes")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_do_not_cross_again_while_others_come_and_go() {
    let link = Link::start(Duration::from_secs(30)).await;
    link.path.set(|weather| weather.delay = Duration::from_millis(100));
    let us = Crowd::on(&link.us, &QUICK).await;
    let eu = node(&link.eu).await;
    let mut watcher = Watcher::on(&eu).await;
    let names: Vec<_> = (0..100).map(|number| named(&format!("session {number}"))).collect();
    let _stays: Vec<_> = names.iter().map(|name| us.arrives(name)).collect();
    watcher.sees(&names).await;
    // Nodes of the other region do not look through what they hold unless something failed.
    let before = link.us.calls("sscan").await;
    let mut guests = Vec::new();
    for number in 0..200 {
        // Twenty come, twenty go: hardly ever are as many there on both sides at the same moment.
        if number / 20 % 2 == 0 {
            guests.push(us.arrives(&format!("guest {number}")));
        } else if let Some(guest) = guests.pop() {
            guest.leave();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(link.us.calls("sscan").await, before);
    watcher.sees(&names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_region_whose_nodes_are_all_gone_leave() {
    let link = Link::start(Duration::from_secs(3)).await;
    let us = Crowd::on(&link.us, &QUICK).await;
    let eu = node(&link.eu).await;
    let mut watcher = Watcher::on(&eu).await;
    let names: Vec<_> = (0..20).map(|number| named(&format!("session {number}"))).collect();
    let stays: Vec<_> = names.iter().map(|name| us.arrives(name)).collect();
    watcher.gather_of(&names).await;
    // Nobody is left there who would tell that the node is gone.
    drop((us, stays));
    assert_eq!(watcher.next().await, (set(&[]), set(&names), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_who_go_from_node_to_node_while_their_region_is_compared_are_not_told() {
    let link = Link::start(Duration::from_secs(30)).await;
    link.path.set(|weather| weather.delay = Duration::from_millis(100));
    let us = [
        Crowd::by("one", &link.us.url(), &link.us, &QUICK).await,
        Crowd::by("other", &link.us.url(), &link.us, &QUICK).await,
    ];
    let eu = node(&link.eu).await;
    let mut watcher = Watcher::on(&eu).await;
    let names: Vec<_> = (0..20).map(|number| named(&format!("session {number}"))).collect();
    let mut stays: Vec<_> = names.iter().map(|name| us[0].arrives(name)).collect();
    watcher.gather_of(&names).await;
    let _stays = us[1].arrives("stays");
    watcher.gather_of(&[named("stays")]).await;
    let before = link.us.calls("sscan").await;
    for round in 1.. {
        if round >= 40 && link.us.calls("sscan").await > before {
            break;
        }
        assert!(round < 400, "nothing was compared");
        if round % 10 == 1 {
            // What is said meanwhile is lost, so members are compared. Where nothing was said, the next time.
            link.path.reset();
        }
        for (name, stay) in names.iter().zip(&mut stays) {
            *stay = us[round % 2].arrives(name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    watcher.is_told_first_of_one_who_comes(&eu, 23).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_amiss_in_a_mirror_is_found_while_others_come_and_go() {
    let link = Link::start(Duration::from_secs(30)).await;
    link.path.set(|weather| weather.delay = Duration::from_millis(100));
    let us = Crowd::on(&link.us, &QUICK).await;
    let eu = node(&link.eu).await;
    let mut watcher = Watcher::on(&eu).await;
    let _stays = us.arrives("lost");
    watcher.gather_of(&[named("lost")]).await;
    for partition in 0..4 {
        let keys = format!("sky:{{{partition}}}:presence:chat:1 sky:{{{partition}}}:presence-of:@us");
        let (room, held) = keys.split_once(' ').unwrap();
        link.eu.run::<u64>(&format!("HDEL {room} lost")).await;
        link.eu.run::<u64>(&format!("DEL {held}")).await;
    }
    let mut number = 0;
    eventually("the return", async || {
        number += 1;
        us.arrives(&format!("guest {number}")).leave();
        watcher.asks().await.0.contains("lost")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_region_whose_redis_lost_its_data_are_not_told() {
    let link = Link::start(Duration::from_secs(30)).await;
    let us = Crowd::on(&link.us, &QUICK).await;
    let eu = node(&link.eu).await;
    let mut watcher = Watcher::on(&eu).await;
    let _stays = [us.arrives("one"), us.arrives("other")];
    watcher.gather_of(&[named("one"), named("other")]).await;
    link.us.run::<()>("FLUSHALL").await;
    eventually("their return", async || {
        let mut count = 0;
        for partition in 0..4 {
            count += link.us.run::<u64>(&format!("HLEN sky:{{{partition}}}:presence:chat:1")).await;
        }
        count == 2
    })
    .await;
    watcher.is_told_first_of_one_who_comes(&eu, 4).await;
}
