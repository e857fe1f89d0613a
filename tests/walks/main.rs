//! Sessions of clients that do all they may, at random: on each transport, in each encoding, on one node without a
//! Redis and on two that share one. They speak the protocol themselves, so nothing that a client library makes up for
//! is hidden.
//!
//! `SKYWAVE_WALK_SEED` says which walks there are and on nodes with which limits, and `SKYWAVE_WALK_SECONDS` how long
//! they take.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod asked;
mod peer;
mod roster;
mod truth;
mod walker;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use skywave::{cluster::moving, server::Server};
use skywave_protocol::CloseCode;
use skywave_testing::{
    RedisServer, environment,
    node::{self, url},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use truth::Truth;
use walker::Walker;

const CHANNELS: usize = 5;
const WALKERS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_sessions_do_on_one_node_all_get_everything_once_and_in_order() {
    walk(None, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_sessions_do_on_two_nodes_all_get_everything_once_and_in_order() {
    let redis = RedisServer::start().await;
    walk(Some(redis.url()), 2).await;
}

async fn walk(redis: Option<String>, nodes: usize) {
    let seed = environment::number("SKYWAVE_WALK_SEED").unwrap_or(1);
    let seconds = environment::number("SKYWAVE_WALK_SECONDS").unwrap_or(4);
    println!("walk {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let limits = limits(&mut random);
    let mut servers = Vec::new();
    for number in 0..nodes {
        servers.push(start(number, redis.as_deref(), &limits).await);
    }
    let urls: Vec<_> = servers.iter().map(url).collect();
    let truth = Arc::new(Truth::new(WALKERS));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut walkers = JoinSet::new();
    for number in 0..WALKERS {
        let walker = Walker::new(number, random.random(), urls.clone(), CHANNELS, truth.clone());
        walkers.spawn(walker.walk(until));
    }
    let disturbing = tokio::spawn(disturb(servers, random, until));
    while let Some(walked) = walkers.join_next().await {
        walked.unwrap_or_else(|error| panic!("walk {seed}: {error}"));
    }
    disturbing.await.unwrap();
    truth.print();
}

/// Limits that are often reached, or hardly ever.
fn limits(random: &mut StdRng) -> Vec<(&'static str, String)> {
    let mut one_of = |values: &[u32]| values[random.random_range(0..values.len())].to_string();
    vec![
        ("LIMITS__FRAME_BYTES", one_of(&[2_048, 65_536])),
        ("LIMITS__OUTBOX_BYTES", one_of(&[65_536, 262_144])),
        ("LIMITS__CHANNELS_PER_SESSION", one_of(&[3, 128])),
        ("LIMITS__REQUESTS_PER_SECOND", one_of(&[30, 100_000])),
        ("LIMITS__PUBLISHES_PER_SECOND", one_of(&[30, 100_000])),
    ]
}

async fn start(number: usize, redis: Option<&str>, limits: &[(&str, String)]) -> Server {
    let id = format!("node-{number}");
    let mut settings = vec![
        ("NODE__ID", &*id),
        ("AUTH__HMAC_SECRET", walker::HMAC_SECRET),
        ("CHANNELS__CHAT__HISTORY", "100000"),
        ("CHANNELS__CHAT__PRESENCE", "true"),
        ("CHANNELS__CHAT__PRESENCE_GRACE", "2s"),
    ];
    settings.extend(limits.iter().map(|(key, value)| (*key, &**value)));
    settings.extend(redis.into_iter().flat_map(|url| node::sharing(url)));
    node::start(&settings).await
}

/// Ends sessions and asks them to move, as operators do; then lets them be, and keeps the nodes as long as it is kept.
async fn disturb(servers: Vec<Server>, mut random: StdRng, until: Instant) -> Vec<Server> {
    while Instant::now() < until {
        sleep(Duration::from_millis(50)).await;
        for server in &servers {
            for (session, attached) in server.node().sessions.all() {
                match random.random_range(0..200) {
                    0 => attached.outbox.close(CloseCode::Disconnected),
                    1 | 2 => attached.outbox.close(CloseCode::Rotate),
                    3 | 4 => {
                        moving::ask(&server.node().cluster, &session, &attached, Duration::from_secs(1), None)
                    }
                    _ => {}
                }
            }
        }
    }
    servers
}
