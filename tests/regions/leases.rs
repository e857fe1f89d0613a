//! Leases: one holder at a time, and tokens that tell an earlier one.

use skywave::{
    host::Host,
    metrics::Metrics,
    redis::Redis,
    region::lease::{Candidate, Lease},
};
use skywave_testing::{PATIENCE, RedisServer, node::broker::settings};
use std::time::{Duration, Instant};

async fn redis(server: &RedisServer) -> Redis {
    let address = settings(server).address;
    Redis::connect(&Host::machine(), &address, "test", Metrics::new().unwrap().redis).await.unwrap()
}

async fn acquire(candidate: &Candidate) -> Lease {
    tokio::time::timeout(PATIENCE, candidate.acquire(0)).await.expect("the lease is not free")
}

#[tokio::test]
async fn a_lease_that_is_given_back_goes_to_another_with_a_higher_token() {
    let server = RedisServer::start().await;
    let redis = redis(&server).await;
    let [one, other] = ["one", "other"].map(|name| Candidate::new(redis.clone(), "x", name.into()));
    let held = acquire(&one).await;
    let waiting = tokio::spawn(async move { acquire(&other).await.token() });
    // Longer than a lease lasts without being renewed.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert!(!waiting.is_finished());
    let token = held.token();
    let begun = Instant::now();
    drop(held);
    assert_eq!(waiting.await.unwrap(), token + 1);
    assert!(begun.elapsed() < Duration::from_millis(2500));
}

#[tokio::test]
async fn a_lease_whose_holder_hangs_runs_out_and_the_holder_knows() {
    let server = RedisServer::start().await;
    let (mine, theirs) = (redis(&server).await, redis(&server).await);
    let held = acquire(&Candidate::new(mine, "x", "one".into())).await;
    let taken: String = server.run("HSET sky:lease:x holder two until_ms 99999999999999").await;
    assert_eq!(taken, "0");
    tokio::time::timeout(PATIENCE, held.lost()).await.expect("it is not told");
    // However far the clock went ahead that wrote it, it ends in time.
    let next = acquire(&Candidate::new(theirs, "x", "three".into())).await;
    assert_eq!(next.token(), held.token() + 1);
}

#[tokio::test]
async fn a_lease_is_lost_while_redis_cannot_be_reached() {
    let mut server = RedisServer::start().await;
    let held = acquire(&Candidate::new(redis(&server).await, "x", "one".into())).await;
    server.kill();
    let begun = Instant::now();
    tokio::time::timeout(PATIENCE, held.lost()).await.expect("it is not told");
    assert!(begun.elapsed() < Duration::from_millis(3100), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_token_is_as_high_as_was_asked() {
    let server = RedisServer::start().await;
    let redis = redis(&server).await;
    let held = Candidate::new(redis.clone(), "x", "one".into()).acquire(7).await;
    assert_eq!(held.token(), 7);
    drop(held);
    assert_eq!(acquire(&Candidate::new(redis, "x", "two".into())).await.token(), 8);
}

#[tokio::test]
async fn a_lease_that_nobody_wants_any_more_is_forgotten_after_a_week() {
    let server = RedisServer::start().await;
    drop(acquire(&Candidate::new(redis(&server).await, "x", "one".into())).await);
    let left_ms: i64 = server.run("PTTL sky:lease:x").await;
    assert!((600_000_000..=604_800_000).contains(&left_ms), "{left_ms}");
}
