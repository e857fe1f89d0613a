//! Links between regions: known to be up, suspected when they are cut, and up again, on every node.

use skywave::{
    config::Secret,
    host::Host,
    metrics::Metrics,
    redis::{Address, Redis},
    region::{
        Regions, Remote,
        link::{Condition, LinkState, LinkStates, Links, MeasuredLag},
    },
};
use skywave_protocol::{Text, heartbeat::Direction};
use skywave_testing::{PATIENCE, RedisServer, Relay};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};

/// A link that is cut is suspected within three seconds; nodes read it each half a second, and machines are slow.
const LAG_LIMIT: Duration = Duration::from_secs(1);
const SUSPECTED_WITHIN: Duration = Duration::from_millis(5_000);

fn address(region: &str, url: String) -> Address {
    let region = Text::new(region).unwrap();
    Address {
        url: Secret::new(url),
        prefix: "sky".to_owned(),
        partitions: 4,
        ca: None,
        region,
        scripts: skywave::scripts::ALL,
    }
}

/// A node, as far as its region's link to one other region is concerned.
struct Node {
    links: Arc<Links>,
    regions: Arc<Regions>,
    metrics: Metrics,
    states: watch::Receiver<LinkStates>,
    other: &'static str,
    lag: MeasuredLag,
    tasks: JoinSet<()>,
}

impl Node {
    /// Follows the region's links, and leads none.
    async fn new(node: &str, server: &RedisServer, other: &'static str, path: &Relay) -> Self {
        let (own, _) = node.split_once('-').unwrap();
        let metrics = Metrics::new().unwrap();
        let local =
            Redis::connect(&Host::machine(), &address(own, server.url()), "commands", metrics.redis.clone())
                .await
                .unwrap();
        let name = format!("remote-{other}");
        let redis =
            Redis::reach(&Host::machine(), &address(other, path.url("redis")), &name, metrics.redis.clone())
                .unwrap();
        let remote = Remote { name: Text::new(other).unwrap(), url: "https://localhost".into(), redis };
        let regions = Arc::new(Regions { own: Text::new(own).unwrap(), local, remotes: vec![remote] });
        let links = Arc::new(Links::new(regions.clone(), node.into(), metrics.link_beats.clone(), LAG_LIMIT));
        let mut tasks = JoinSet::new();
        let following = links.clone();
        tasks.spawn(async move { following.follow().await });
        let lag = MeasuredLag::default();
        Self { states: links.states(), links, regions, metrics, other, lag, tasks }
    }

    fn lead(&mut self) {
        let (links, regions) = (self.links.clone(), self.regions.clone());
        let lag = self.lag.clone();
        self.tasks.spawn(async move { match links.lead(&regions.remotes[0], &lag).await {} });
    }

    fn state(&self) -> LinkState {
        self.states.borrow().get(self.other).unwrap().clone()
    }

    /// Waits until the link is in this state; how long it took.
    async fn until(&mut self, what: &str, is_so: impl Fn(&LinkState) -> bool) -> Duration {
        let begun = Instant::now();
        let other = self.other;
        let waiting = self.states.wait_for(|states| is_so(states.get(other).unwrap()));
        let seen = tokio::time::timeout(PATIENCE, waiting).await.map(drop);
        assert!(seen.is_ok(), "{what}: {:?}", self.state());
        begun.elapsed()
    }

    async fn up(&mut self) -> Duration {
        self.until("up", |state| state.condition() == Condition::Up).await
    }

    async fn suspected(&mut self) -> Duration {
        self.until("suspected", |state| state.condition() == Condition::Suspected).await
    }

    /// How often the link came to be suspected, and was up again.
    fn changes(&self) -> (u64, u64) {
        let metrics = &self.metrics.link_beats;
        let count = |counter: &prometheus::IntCounterVec| counter.with_label_values(&[self.other]).get();
        (count(&metrics.suspicions), count(&metrics.recoveries))
    }

    fn rtt_samples(&self) -> u64 {
        self.metrics.link_beats.rtt.with_label_values(&[self.other]).get_sample_count()
    }
}

/// Two regions with a node each that leads, and what lies between them.
struct World {
    eu: Node,
    us: Node,
    eu_redis: RedisServer,
    us_redis: RedisServer,
    /// eu's way to us, and us' way to eu.
    eu_to_us: Relay,
    us_to_eu: Relay,
}

impl World {
    async fn new() -> Self {
        let (eu_redis, us_redis) = tokio::join!(RedisServer::start(), RedisServer::start());
        let (eu_to_us, us_to_eu) = (Relay::tcp(us_redis.port()).await, Relay::tcp(eu_redis.port()).await);
        let mut eu = Node::new("eu-1", &eu_redis, "us", &eu_to_us).await;
        let mut us = Node::new("us-1", &us_redis, "eu", &us_to_eu).await;
        eu.lead();
        us.lead();
        Self { eu, us, eu_redis, us_redis, eu_to_us, us_to_eu }
    }

    async fn up() -> Self {
        let mut world = Self::new().await;
        tokio::join!(world.eu.up(), world.us.up());
        world
    }

    fn cut(&self) {
        self.eu_to_us.cut();
        self.us_to_eu.cut();
    }

    fn heal(&self) {
        self.eu_to_us.heal();
        self.us_to_eu.heal();
    }
}

#[tokio::test]
async fn a_link_comes_up_and_its_round_trip_is_known_to_every_node_of_the_region() {
    let mut world = World::up().await;
    let mut second = Node::new("eu-2", &world.eu_redis, "us", &world.eu_to_us).await;
    second.up().await;
    let state = second.until("heard there", |state| state.is_heard == Some(true)).await;
    assert!(state < PATIENCE);
    let state = second.state();
    assert_eq!(state.leader.as_deref(), Some("eu-1"));
    assert!(state.srtt.unwrap() < Duration::from_millis(500), "{state:?}");
    assert_eq!(second.rtt_samples(), 0, "who does not lead measures nothing");
    assert!(world.eu.rtt_samples() > 0 && world.us.rtt_samples() > 0);
    assert_eq!((world.eu.changes(), world.us.changes()), ((0, 0), (0, 0)));
    world.us.up().await;
}

#[tokio::test]
async fn a_cut_link_is_suspected_on_both_sides_and_up_again_when_it_heals() {
    let mut world = World::up().await;
    world.cut();
    let (eu, us) = tokio::join!(world.eu.suspected(), world.us.suspected());
    assert!(eu < SUSPECTED_WITHIN && us < SUSPECTED_WITHIN, "{eu:?} {us:?}");
    world
        .eu
        .until("both ways", |state| {
            state.outbound == Direction::Suspected && state.inbound == Direction::Suspected
        })
        .await;
    assert!(world.eu.states.borrow().is_isolated());
    world.heal();
    let (eu, us) = tokio::join!(world.eu.up(), world.us.up());
    assert!(eu < SUSPECTED_WITHIN && us < SUSPECTED_WITHIN, "{eu:?} {us:?}");
    assert_eq!((world.eu.changes(), world.us.changes()), ((1, 1), (1, 1)));
    assert!(!world.eu.states.borrow().is_isolated());
}

#[tokio::test]
async fn of_a_one_way_cut_each_side_sees_its_part_and_is_told_the_other() {
    let mut world = World::up().await;
    world.eu_to_us.cut();
    world.eu.until("outbound", |state| state.outbound == Direction::Suspected).await;
    world.us.until("inbound", |state| state.inbound == Direction::Suspected).await;
    world.eu.until("told", |state| state.is_heard == Some(false)).await;
    let (eu, us) = (world.eu.state(), world.us.state());
    assert_eq!((eu.outbound, eu.inbound), (Direction::Suspected, Direction::Up));
    assert_eq!((us.outbound, us.inbound), (Direction::Up, Direction::Suspected));
    assert!(!world.us.states.borrow().is_isolated(), "it reaches the other");
}

#[tokio::test]
async fn a_slow_redis_is_not_mistaken_for_a_cut() {
    let mut world = World::up().await;
    let before = world.eu.rtt_samples();
    for _ in 0..8 {
        let paused: String = world.us_redis.run("CLIENT PAUSE 250 ALL").await;
        assert_eq!(paused, "OK");
        // The next command waits for the end of the pause.
        world.us_redis.run::<String>("PING").await;
    }
    assert!(world.eu.rtt_samples() > before);
    assert_eq!((world.eu.changes(), world.us.changes()), ((0, 0), (0, 0)));
    world.eu.up().await;
}

#[tokio::test]
async fn while_the_own_redis_hangs_nobody_else_is_suspected() {
    let mut world = World::up().await;
    world.eu_redis.freeze();
    // The other side does suspect.
    world.us.suspected().await;
    world.eu.until("unknown", |state| state.condition() != Condition::Up).await;
    world.eu_redis.thaw();
    tokio::join!(world.eu.up(), world.us.up());
    assert_eq!(world.eu.changes(), (0, 0), "eu cannot know");
    assert_eq!(world.us.changes(), (1, 1));
}

#[tokio::test]
async fn a_link_without_a_leader_is_unknown_and_not_up() {
    let mut world = World::up().await;
    world.eu.tasks.abort_all();
    let mut second = Node::new("eu-2", &world.eu_redis, "us", &world.eu_to_us).await;
    second.until("unknown", |state| state.leader.is_none()).await;
    assert_eq!(second.state().condition(), Condition::Unknown);
    second.lead();
    second.up().await;
}

#[tokio::test]
async fn a_node_that_takes_over_goes_on_from_what_was_known() {
    let mut world = World::up().await;
    world.cut();
    world.eu.suspected().await;
    world.eu.tasks.abort_all();
    let mut second = Node::new("eu-2", &world.eu_redis, "us", &world.eu_to_us).await;
    second.lead();
    second.until("led by the second", |state| state.leader.as_deref() == Some("eu-2")).await;
    assert_eq!(second.state().condition(), Condition::Suspected);
    world.heal();
    second.up().await;
    assert_eq!(second.changes(), (0, 1), "it was suspected before");
}

#[tokio::test]
async fn a_link_that_lags_is_marked_on_every_node_and_counted_once() {
    let world = World::up().await;
    let mut second = Node::new("eu-2", &world.eu_redis, "us", &world.eu_to_us).await;
    let lag = &world.eu.lag;
    lag.set(Duration::from_millis(1_500));
    second.until("marked", |state| state.lagging).await;
    assert_eq!(second.state().lag, Duration::from_millis(1_500));
    let marked = second.metrics.link_beats.lagging.with_label_values(&["us"]);
    assert_eq!(marked.get(), 1);
    lag.set(Duration::from_millis(200));
    second.until("not marked", |state| !state.lagging).await;
    assert_eq!(marked.get(), 0);
    assert_eq!(world.eu.metrics.link_beats.lags.with_label_values(&["us"]).get(), 1);
    assert_eq!(second.state().condition(), Condition::Up, "it is slow and lives");
}

#[tokio::test]
async fn a_cut_that_outlasts_its_leader_is_one_lag_that_grows() {
    let mut world = World::up().await;
    world.cut();
    world.eu.until("marked", |state| state.lagging).await;
    world.eu.tasks.abort_all();
    let mut second = Node::new("eu-2", &world.eu_redis, "us", &world.eu_to_us).await;
    second.lead();
    second.until("led by the second", |state| state.leader.as_deref() == Some("eu-2")).await;
    assert!(second.state().lagging);
    let before = second.state().lag;
    second.until("a lag that grows", |state| !state.lagging || state.lag > before + LAG_LIMIT).await;
    assert!(second.state().lagging);
    assert_eq!(second.metrics.link_beats.lags.with_label_values(&["us"]).get(), 0, "it was marked before");
    let told = second.metrics.link_beats.lag.with_label_values(&["us"]).get();
    assert!(told >= before.as_secs_f64(), "{told}");
    world.heal();
    second.up().await;
    assert!(second.state().lagging, "until the bridge knows better");
    second.lag.set(Duration::ZERO);
    second.until("not marked", |state| !state.lagging).await;
}

#[tokio::test]
async fn a_redis_that_starts_again_empty_brings_the_link_back() {
    let mut world = World::up().await;
    world.us_redis.kill();
    world.eu.suspected().await;
    world.us_redis.relaunch().await;
    tokio::join!(world.eu.up(), world.us.up());
}

#[tokio::test]
async fn what_does_not_make_sense_in_redis_is_passed_over() {
    let mut world = World::up().await;
    for beat in ["interval_ms never", "x y", "interval_ms 18446744073709551615"] {
        world.eu_redis.run::<String>(&format!("XADD sky:link:us * {beat}")).await;
    }
    world.eu_redis.run::<String>("SET sky:linkstate:us nonsense").await;
    world.eu.up().await;
    world.eu_redis.run::<u64>("DEL sky:link:us").await;
    world.eu_redis.run::<String>("SET sky:link:us nonsense").await;
    world.eu.until("deaf", |state| state.inbound == Direction::Unknown).await;
    world.us.until("not acknowledged", |state| state.outbound == Direction::Suspected).await;
    world.eu_redis.run::<u64>("DEL sky:link:us").await;
    tokio::join!(world.eu.up(), world.us.up());
}
