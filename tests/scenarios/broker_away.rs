//! A broker that does not answer costs a session its answers, and nothing else.

use crate::{
    peer::{Peer, channel, connect_to, from_the_beginning, id},
    world::{TOKEN_SECRET, config, eventually, json, soon, token},
};
use futures_util::future::{self, BoxFuture, FutureExt};
use skywave::{
    auth::Authenticator,
    broadcast::{Broadcast, Event, Publication},
    broker::{
        Accepted, Broker, BrokerError, Chunk, Delivery, Page, PageLimit, PageOf, Publish, ReadFrom,
        memory::MemoryBroker,
    },
    hub::Hub,
    metrics::Metrics,
    node::{Node, Parts},
    presence::Presence,
    region::Sharing,
    rights::Right,
    transport::websocket,
};
use skywave_client::{
    Channel, Encoding, SubscribeOptions,
    transport::{DialOptions, Dialer, TransportKind},
};
use skywave_protocol::{
    ClientFrame, ErrorCode, ServerFrame, Text,
    frame::{self, Connect, HistoryRequest},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// A broker in memory of which something is not as it should be.
trait Faulty: Send + Sync {
    fn memory(&self) -> &MemoryBroker;

    fn partitions(&self) -> u16 {
        self.memory().partitions()
    }

    fn partition(&self, channel: &Channel) -> u16 {
        self.memory().partition(channel)
    }

    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Accepted, BrokerError>> {
        self.memory().publish(publish)
    }

    fn read(&self, channel: &Channel, from: ReadFrom) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        self.memory().read(channel, from)
    }

    fn history(
        &self,
        channel: &Channel,
        page: PageOf,
        limit: PageLimit,
    ) -> BoxFuture<'static, Result<Page, BrokerError>> {
        self.memory().history(channel, page, limit)
    }
}

struct FaultyBroker<F>(Arc<F>);

impl<F: Faulty> Broker for FaultyBroker<F> {
    fn partitions(&self) -> u16 {
        self.0.partitions()
    }

    fn partition(&self, channel: &Channel) -> u16 {
        self.0.partition(channel)
    }

    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Accepted, BrokerError>> {
        self.0.publish(publish)
    }

    fn emit(&self, event: Arc<Event>) -> Result<(), BrokerError> {
        self.0.memory().emit(event)
    }

    fn read(&self, channel: &Channel, from: ReadFrom) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        self.0.read(channel, from)
    }

    fn history(
        &self,
        channel: &Channel,
        page: PageOf,
        limit: PageLimit,
    ) -> BoxFuture<'static, Result<Page, BrokerError>> {
        self.0.history(channel, page, limit)
    }
}

/// Takes publishes and answers none.
struct Stuck(MemoryBroker);

impl Faulty for Stuck {
    fn memory(&self) -> &MemoryBroker {
        &self.0
    }

    fn publish(&self, _: Publish) -> BoxFuture<'static, Result<Accepted, BrokerError>> {
        future::pending().boxed()
    }
}

/// Cannot be read while it is away.
struct Away {
    memory: MemoryBroker,
    is_away: AtomicBool,
    /// How often it was asked in vain.
    refused: AtomicUsize,
}

impl Faulty for Away {
    fn memory(&self) -> &MemoryBroker {
        &self.memory
    }

    fn read(&self, channel: &Channel, from: ReadFrom) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        if self.is_away.load(Ordering::Acquire) {
            self.refused.fetch_add(1, Ordering::AcqRel);
            return future::ready(Err(BrokerError::Unavailable)).boxed();
        }
        self.memory.read(channel, from)
    }
}

/// Answers no read before so many are asked.
struct Together {
    memory: MemoryBroker,
    asked: watch::Sender<usize>,
    wanted: usize,
}

impl Faulty for Together {
    fn memory(&self) -> &MemoryBroker {
        &self.memory
    }

    fn read(&self, channel: &Channel, from: ReadFrom) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        let read = self.memory.read(channel, from);
        self.asked.send_modify(|asked| *asked += 1);
        let (mut asked, wanted) = (self.asked.subscribe(), self.wanted);
        Box::pin(async move {
            asked.wait_for(|asked| *asked >= wanted).await.unwrap();
            read.await
        })
    }
}

/// Answers reads once it is let go; of these channels at once.
struct Held {
    memory: MemoryBroker,
    free: &'static [&'static str],
    let_go: watch::Sender<bool>,
    /// How many were held.
    held: AtomicUsize,
}

impl Held {
    fn but(free: &'static [&'static str]) -> impl FnOnce(MemoryBroker) -> Self {
        move |memory| Self { memory, free, let_go: watch::Sender::new(false), held: AtomicUsize::new(0) }
    }

    fn let_go(&self) {
        self.let_go.send_replace(true);
    }

    fn hold<T: Send + 'static>(
        &self,
        channel: &Channel,
        answer: BoxFuture<'static, T>,
    ) -> BoxFuture<'static, T> {
        if self.free.contains(&&**channel) {
            return answer;
        }
        self.held.fetch_add(1, Ordering::AcqRel);
        let mut let_go = self.let_go.subscribe();
        Box::pin(async move {
            let_go.wait_for(|let_go| *let_go).await.unwrap();
            answer.await
        })
    }
}

impl Faulty for Held {
    fn memory(&self) -> &MemoryBroker {
        &self.memory
    }

    fn read(&self, channel: &Channel, from: ReadFrom) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        self.hold(channel, self.memory.read(channel, from))
    }

    fn history(
        &self,
        channel: &Channel,
        page: PageOf,
        limit: PageLimit,
    ) -> BoxFuture<'static, Result<Page, BrokerError>> {
        self.hold(channel, self.memory.history(channel, page, limit))
    }
}

/// Has another partition for some channels, which answers no more reads once it hangs.
struct Divided {
    memory: MemoryBroker,
    hangs: AtomicBool,
}

impl Faulty for Divided {
    fn memory(&self) -> &MemoryBroker {
        &self.memory
    }

    fn partitions(&self) -> u16 {
        2
    }

    fn partition(&self, channel: &Channel) -> u16 {
        u16::from(channel.starts_with("chat:other"))
    }

    fn read(&self, channel: &Channel, from: ReadFrom) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        if self.hangs.load(Ordering::Acquire) && self.partition(channel) == 1 {
            return future::pending().boxed();
        }
        self.memory.read(channel, from)
    }
}

/// A node, its broker and its hub.
fn node<F: Faulty + 'static>(broker: impl FnOnce(MemoryBroker) -> F) -> (Arc<Node>, Arc<F>, Arc<Hub>) {
    node_with(&[], broker)
}

/// As [`node`], with some keys of its configuration set.
fn node_with<F: Faulty + 'static>(
    settings: &[(&str, &str)],
    broker: impl FnOnce(MemoryBroker) -> F,
) -> (Arc<Node>, Arc<F>, Arc<Hub>) {
    let config = config(settings);
    let region: Text<32> = Text::new("local").unwrap();
    let hub = Arc::new(Hub::default());
    let memory = MemoryBroker::new(region.clone(), config.channels.clone(), hub.clone());
    let broker = Arc::new(broker(memory));
    let parts = Parts {
        region,
        regions: Vec::new(),
        hub: hub.clone(),
        broker: Arc::new(FaultyBroker(broker.clone())),
        sharing: Sharing::Alone,
        presence: Presence::of_node(hub.clone(), config.channels.clone()),
        authenticator: Authenticator::new(&config.auth).unwrap(),
        metrics: Metrics::new().unwrap(),
        config,
    };
    (Node::new(parts), broker, hub)
}

fn publication(epoch: &str, offset: u64) -> Arc<Publication> {
    publication_on("chat:1", epoch, offset)
}

fn publication_on(name: &str, epoch: &str, offset: u64) -> Arc<Publication> {
    Broadcast::new(frame::Publication {
        channel: channel(name),
        origin: Text::new("local").unwrap(),
        epoch: Text::new(epoch).unwrap(),
        offset,
        time_ms: 0,
        key: None,
        user: None,
        data: json(offset).into(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_arrive_while_many_publishes_wait_for_the_broker() {
    let (node, _, hub) = node(Stuck);
    let (mut peer, listening) = connect(node).await;
    let epoch = subscribed_epoch(&mut peer).await;
    for number in 2..1000 {
        let data = json(number).into();
        let publish = frame::Publish { id: id(number), channel: channel("chat:1"), key: None, data };
        peer.send(ClientFrame::Publish(publish)).await;
    }
    for offset in 1..=100 {
        hub.publication(&publication(&epoch, offset));
        assert_eq!(next_offset(&mut peer).await, offset);
    }
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_for_a_while_costs_a_subscriber_nothing() {
    let (node, away, hub) =
        node(|memory| Away { memory, is_away: AtomicBool::new(false), refused: AtomicUsize::new(0) });
    let (mut peer, listening) = connect(node).await;
    let epoch = subscribed_epoch(&mut peer).await;
    away.is_away.store(true, Ordering::Release);
    // The first ones have been missed: history has to be read.
    for number in 1..=3 {
        let (channel, data) = (channel("chat:1"), json(number).into());
        soon(away.publish(Publish { channel, data, key: None, user: None })).await.unwrap();
    }
    let begun = Instant::now();
    hub.publication(&publication(&epoch, 5));
    for offset in 1..=3 {
        assert_eq!(next_offset(&mut peer).await, offset);
    }
    soon(async {
        while away.refused.load(Ordering::Acquire) < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // With pauses that grow: half of 50, 100 and 200 ms at least.
    assert!(begun.elapsed() >= Duration::from_millis(175));
    let (channel, data) = (channel("chat:1"), json(4).into());
    soon(away.publish(Publish { channel, data, key: None, user: None })).await.unwrap();
    away.is_away.store(false, Ordering::Release);
    for offset in 4..=5 {
        assert_eq!(next_offset(&mut peer).await, offset);
    }
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_live_makes_up_for_a_history_that_was_overtaken_while_it_was_asked_for() {
    let settings = [("CHANNELS__CHAT__HISTORY", "1")];
    let (node, away, hub) = node_with(&settings, |memory| Away {
        memory,
        is_away: AtomicBool::new(false),
        refused: AtomicUsize::new(0),
    });
    let (mut peer, listening) = connect(node).await;
    subscribed_epoch(&mut peer).await;
    away.is_away.store(true, Ordering::Release);
    hub.uncertain(&|_| true);
    eventually("a reading", || away.refused.load(Ordering::Acquire) > 0).await;
    let publish = async |number| {
        let (channel, data) = (channel("chat:1"), json(number).into());
        soon(away.publish(Publish { channel, data, key: None, user: None })).await.unwrap();
    };
    for number in 1..=50 {
        publish(number).await;
    }
    away.is_away.store(false, Ordering::Release);
    for offset in 1..=50 {
        assert_eq!(next_offset(&mut peer).await, offset);
    }
    publish(51).await;
    assert_eq!(next_offset(&mut peer).await, 51);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_whose_server_does_not_answer_hold_up_no_others() {
    let (node, divided, hub) = node(|memory| Divided { memory, hangs: AtomicBool::new(false) });
    let (mut peer, listening) = dial(node).await;
    let others: Vec<_> = (0..20).map(|number| format!("chat:other{number}")).collect();
    let mut connect = connect_to([("chat:1", SubscribeOptions::default())]);
    connect.subscriptions.extend(others.iter().map(|name| (channel(name), SubscribeOptions::default())));
    peer.send(ClientFrame::Connect(connect)).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Connected(_))));
    let mut epochs = BTreeMap::new();
    for _ in 0..=others.len() {
        let Ok(ServerFrame::Subscribed(one)) = peer.next().await else { panic!("not subscribed") };
        epochs.insert(one.channel.to_string(), one.position.get("local").unwrap().epoch.to_string());
    }
    divided.hangs.store(true, Ordering::Release);
    // The first one is missing of each: all histories have to be read.
    for name in &others {
        hub.publication(&publication_on(name, &epochs[name], 2));
    }
    let (channel, data) = (channel("chat:1"), json(1).into());
    hub.publication(&publication("x", 7));
    soon(divided.publish(Publish { channel, data, key: None, user: None })).await.unwrap();
    assert_eq!(next_offset(&mut peer).await, 1);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_channels_of_a_connect_are_read_together_and_those_beyond_the_limit_refused() {
    let (node, ..) = node(|memory| Together { memory, asked: watch::Sender::new(0), wanted: 32 });
    let limit = node.config.limits.channels_per_session;
    let names: Vec<_> = (0..limit + 5).map(|number| format!("chat:{number:03}")).collect();
    let mut connect = connect_to([]);
    connect.subscriptions = names.iter().map(|name| (channel(name), SubscribeOptions::default())).collect();
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect)).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Connected(_))));
    let mut subscribed = BTreeSet::new();
    for _ in &names {
        match peer.next().await.unwrap() {
            ServerFrame::Subscribed(one) => assert!(subscribed.insert(one.channel.to_string())),
            ServerFrame::Unsubscribed(one) => {
                assert_eq!(one.reason.as_deref(), Some("limit_reached"));
                assert!(names[limit..].iter().any(|name| *name == *one.channel));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(subscribed.iter().eq(&names[..limit]));
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn connected_waits_for_no_subscription() {
    let (node, held, _) = node(Held::but(&["chat:1"]));
    let (mut peer, listening) = dial(node).await;
    let options = SubscribeOptions::default;
    peer.send(ClientFrame::Connect(connect_to([("chat:0", options()), ("chat:1", options())]))).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Connected(_))));
    assert!(matches!(peer.next().await, Ok(ServerFrame::Subscribed(one)) if &*one.channel == "chat:1"));
    held.let_go();
    assert!(matches!(peer.next().await, Ok(ServerFrame::Subscribed(one)) if &*one.channel == "chat:0"));
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_while_it_subscribes() {
    let (node, held, hub) = node(Held::but(&["chat:1"]));
    let (mut peer, listening) = connect(node).await;
    let epoch = subscribed_epoch(&mut peer).await;
    peer.send(subscribe(2, "chat:2")).await;
    for offset in 1..=10 {
        hub.publication(&publication(&epoch, offset));
        assert_eq!(next_offset(&mut peer).await, offset);
    }
    peer.send(publish(3, "chat:2")).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Published(published)) if published.id == id(3)));
    held.let_go();
    // What came meanwhile is not lost.
    assert!(matches!(peer.next().await, Ok(ServerFrame::Subscribed(one)) if one.id == Some(id(2))));
    assert_eq!(peer.publication("chat:2").await.offset, 1);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_channel_while_it_is_subscribed_to_is_done_in_order() {
    let (node, held, _) = node(Held::but(&[]));
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect_to([("chat:1", SubscribeOptions::default())]))).await;
    peer.send(subscribe(2, "chat:1")).await;
    assert_eq!(peer.error().await.reason.as_ref(), "already_subscribed");
    peer.send(unsubscribe(3, "chat:1")).await;
    peer.send(unsubscribe(4, "chat:1")).await;
    let error = peer.error().await;
    assert_eq!((error.id, error.reason.as_ref()), (Some(id(4)), "not_subscribed"));
    peer.send(subscribe(5, "chat:1")).await;
    peer.send(publish(6, "chat:1")).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Published(_))));
    held.let_go();
    assert!(matches!(peer.next().await, Ok(ServerFrame::Subscribed(one)) if one.id.is_none()));
    assert!(matches!(peer.next().await, Ok(ServerFrame::Unsubscribed(one)) if one.id == Some(id(3))));
    assert!(matches!(peer.next().await, Ok(ServerFrame::Subscribed(one)) if one.id == Some(id(5))));
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_counts_from_when_it_is_asked_for() {
    let settings = [("LIMITS__CHANNELS_PER_SESSION", "1")];
    let (node, held, _) = node_with(&settings, Held::but(&[]));
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect_to([]))).await;
    peer.send(subscribe(2, "chat:1")).await;
    peer.send(subscribe(3, "chat:2")).await;
    let error = peer.error().await;
    assert_eq!((error.id, error.reason.as_ref()), (Some(id(3)), "limit_reached"));
    held.let_go();
    peer.subscribed("chat:1").await;
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_beyond_what_may_wait_are_refused_for_now_and_others_are_read_on() {
    let (node, held, _) = node(Held::but(&[]));
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect_to([]))).await;
    for number in 2..200 {
        let (channel, limit) = (channel("chat:1"), 1);
        let ask = HistoryRequest { id: id(number), channel, limit, after: None, before: None };
        peer.send(ClientFrame::History(ask)).await;
    }
    let refused = peer.error().await;
    assert_eq!((refused.reason.as_ref(), refused.transient), ("rate_limited", true));
    assert!(refused.retry_after_ms.is_some_and(|wait| wait > 0));
    let first = refused.id.unwrap();
    peer.send(publish(200, "chat:1")).await;
    peer.until(|frame| matches!(frame, ServerFrame::Published(_)).then_some(())).await;
    held.let_go();
    for number in 2..first.get() {
        match peer.next().await.unwrap() {
            ServerFrame::History(history) => assert_eq!(history.id, id(number)),
            other => panic!("{other:?}"),
        }
    }
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_histories_that_a_session_asks_for_are_read_in_turn() {
    let (node, held, _) = node(Held::but(&[]));
    let (mut peer, listening) = dial(node).await;
    let mut connect = connect_to([]);
    let names = (0..100).map(|number| channel(&format!("chat:{number:03}")));
    connect.subscriptions = names.map(|name| (name, from_the_beginning())).collect();
    peer.send(ClientFrame::Connect(connect)).await;
    for number in 2..12 {
        let (channel, limit) = (channel("chat:1"), 1);
        let ask = HistoryRequest { id: id(number), channel, limit, after: None, before: None };
        peer.send(ClientFrame::History(ask)).await;
    }
    peer.send(publish(20, "chat:1")).await;
    peer.until(|frame| matches!(frame, ServerFrame::Published(_)).then_some(())).await;
    // Sixteen channels and one question.
    assert_eq!(held.held.load(Ordering::Acquire), 17);
    held.let_go();
    let (mut subscribed, mut answered) = (0, 0);
    while (subscribed, answered) != (100, 10) {
        match peer.next().await.unwrap() {
            ServerFrame::Subscribed(_) => subscribed += 1,
            ServerFrame::History(_) => answered += 1,
            ServerFrame::Publication(_) => {}
            other => panic!("{other:?}"),
        }
    }
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_grants_less_meanwhile_ends_what_is_being_subscribed_to() {
    let settings =
        [("AUTH__HMAC_SECRET", TOKEN_SECRET), ("AUTH__ANONYMOUS", "false"), ("CHANNELS__CHAT__ALLOW", "")];
    let (node, held, _) = node_with(&settings, Held::but(&[]));
    let (mut peer, listening) = dial(node).await;
    let all: &[(&str, &[Right])] = &[("chat:*", &[Right::Subscribe])];
    let connect = connect_to([("chat:1", SubscribeOptions::default())]);
    peer.send(ClientFrame::Connect(Connect { token: Some(token("alice", all).into()), ..connect })).await;
    peer.send(subscribe(2, "chat:2")).await;
    let token = token("alice", &[]).into();
    peer.send(ClientFrame::Refresh(frame::Refresh { id: id(3), token })).await;
    peer.until(|frame| matches!(frame, ServerFrame::Refreshed(_)).then_some(())).await;
    held.let_go();
    let mut ended = [None, None];
    for end in &mut ended {
        *end = match peer.next().await.unwrap() {
            ServerFrame::Unsubscribed(one) => Some((one.id, one.code)),
            ServerFrame::Error(error) => Some((error.id, Some(error.code))),
            other => panic!("{other:?}"),
        };
    }
    let forbidden = Some(ErrorCode::Forbidden.code());
    assert!(ended.contains(&Some((None, forbidden))) && ended.contains(&Some((Some(id(2)), forbidden))));
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_while_its_new_token_is_checked() {
    // The keys of tokens are with somebody who does not answer.
    let keys = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", keys.local_addr().unwrap());
    let (node, ..) = node_with(&[("AUTH__JWKS_URL", &url)], Held::but(&["chat:1"]));
    let (mut peer, listening) = connect(node).await;
    peer.subscribed("chat:1").await;
    let refresh = |number| {
        // {"alg":"ES256","kid":"1"} and no more that makes sense.
        let token = "eyJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ.e30.AA".into();
        ClientFrame::Refresh(frame::Refresh { id: id(number), token })
    };
    peer.send(refresh(2)).await;
    let _asked = soon(keys.accept()).await.unwrap();
    peer.send(refresh(3)).await;
    let refused = peer.error().await;
    assert_eq!((refused.id, refused.reason.as_ref()), (Some(id(3)), "rate_limited"));
    peer.send(publish(4, "chat:1")).await;
    assert_eq!(peer.publication("chat:1").await.offset, 1);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_beyond_what_may_wait_are_refused_for_now() {
    let settings = [("LIMITS__OUTBOX_BYTES", "65536"), ("LIMITS__FRAME_BYTES", "8192")];
    let (node, ..) = node_with(&settings, Stuck);
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect_to([]))).await;
    for number in 2..20 {
        let (channel, data) = (channel("chat:1"), json("x".repeat(8000)).into());
        let publish = frame::Publish { id: id(number), channel, key: None, data };
        peer.send(ClientFrame::Publish(publish)).await;
    }
    let refused = peer.error().await;
    // Seven of 8,514 bytes are within 65,536.
    assert_eq!((refused.id, refused.reason.as_ref()), (Some(id(9)), "rate_limited"));
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_it_subscribes_leaves_nobody_present() {
    let settings = [("CHANNELS__CHAT__PRESENCE", "true"), ("CHANNELS__CHAT__PRESENCE_GRACE", "0s")];
    let (node, held, _) = node_with(&settings, Held::but(&["chat:2"]));
    let running = tokio::spawn(node.presence.clone().run());
    let (mut leaving, listening) = dial(node.clone()).await;
    leaving.send(ClientFrame::Connect(connect_to([("chat:1", SubscribeOptions::default())]))).await;
    assert!(matches!(leaving.next().await, Ok(ServerFrame::Connected(_))));
    leaving.close().await;
    eventually("the session has ended", || node.sessions.is_empty()).await;
    held.let_go();
    soon(async {
        while soon(node.presence.members(&channel("chat:1"))).await.unwrap().count > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(node.hub.subscribers(&channel("chat:1")), 0);
    listening.abort();
    running.abort();
}

fn subscribe(number: u32, name: &str) -> ClientFrame {
    let (position, history) = (None, None);
    let request =
        frame::Subscribe { id: id(number), channel: channel(name), position, history, presence: false };
    ClientFrame::Subscribe(request)
}

fn unsubscribe(number: u32, name: &str) -> ClientFrame {
    ClientFrame::Unsubscribe(frame::Unsubscribe { id: id(number), channel: channel(name) })
}

fn publish(number: u32, name: &str) -> ClientFrame {
    let (channel, data) = (channel(name), json(number).into());
    ClientFrame::Publish(frame::Publish { id: id(number), channel, key: None, data })
}

async fn next_offset(peer: &mut Peer) -> u64 {
    match peer.next().await.unwrap() {
        ServerFrame::Publication(publication) => publication.offset,
        other => panic!("{other:?}"),
    }
}

async fn subscribed_epoch(peer: &mut Peer) -> Text<32> {
    let position = peer.subscribed("chat:1").await.position;
    position.iter().next().unwrap().1.epoch.clone()
}

/// A session that is subscribed to one channel.
async fn connect(node: Arc<Node>) -> (Peer, JoinHandle<()>) {
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect_to([("chat:1", SubscribeOptions::default())]))).await;
    (peer, listening)
}

async fn dial(node: Arc<Node>) -> (Peer, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    let listening = tokio::spawn(websocket::listen_plain(node, listener));
    let dialer = Dialer::new(DialOptions { encoding: Encoding::Json, ..DialOptions::default() }).unwrap();
    let connection = soon(dialer.dial(&url, TransportKind::WebSocket)).await.unwrap();
    let peer = Peer::over(connection);
    (peer, listening)
}
