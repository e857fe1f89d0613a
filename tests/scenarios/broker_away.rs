//! A broker that does not answer costs a session its answers, and nothing else.

use crate::{
    peer::{Peer, channel, connect_to, id},
    world::{config, json, soon},
};
use futures_util::future::{self, BoxFuture, FutureExt};
use skywave::{
    auth::Authenticator,
    broadcast::{Broadcast, Event, Publication},
    broker::{
        Accepted, Broker, BrokerError, Chunk, Delivery, From, Page, PageLimit, PageOf, Publish,
        memory::MemoryBroker,
    },
    hub::Hub,
    metrics::Metrics,
    node::{Node, Parts},
    presence::Presence,
    transport::{bind_tcp, websocket},
};
use skywave_client::{
    Channel, Encoding, SubscribeOptions,
    transport::{DialOptions, Dialer, TransportKind},
};
use skywave_protocol::{ClientFrame, ServerFrame, Text, frame};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle};

/// A broker in memory of which something is not as it should be.
trait Faulty: Send + Sync {
    fn memory(&self) -> &MemoryBroker;

    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Accepted, BrokerError>> {
        self.memory().publish(publish)
    }

    fn read(&self, channel: &Channel, from: From) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        self.memory().read(channel, from)
    }
}

struct FaultyBroker<F>(Arc<F>);

impl<F: Faulty> Broker for FaultyBroker<F> {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Accepted, BrokerError>> {
        self.0.publish(publish)
    }

    fn emit(&self, event: Arc<Event>) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.0.memory().emit(event)
    }

    fn read(&self, channel: &Channel, from: From) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        self.0.read(channel, from)
    }

    fn history(
        &self,
        channel: &Channel,
        page: PageOf,
        limit: PageLimit,
    ) -> BoxFuture<'static, Result<Page, BrokerError>> {
        self.0.memory().history(channel, page, limit)
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

    fn read(&self, channel: &Channel, from: From) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
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

    fn read(&self, channel: &Channel, from: From) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        let read = self.memory.read(channel, from);
        self.asked.send_modify(|asked| *asked += 1);
        let (mut asked, wanted) = (self.asked.subscribe(), self.wanted);
        Box::pin(async move {
            asked.wait_for(|asked| *asked >= wanted).await.unwrap();
            read.await
        })
    }
}

/// A node, its broker and its hub.
fn node<F: Faulty + 'static>(broker: impl FnOnce(MemoryBroker) -> F) -> (Arc<Node>, Arc<F>, Arc<Hub>) {
    let config = config(&[]);
    let region: Text<32> = Text::new("local").unwrap();
    let hub = Arc::new(Hub::default());
    let memory = MemoryBroker::new(region.clone(), config.channels.clone(), hub.clone());
    let broker = Arc::new(broker(memory));
    let parts = Parts {
        region,
        regions: Vec::new(),
        hub: hub.clone(),
        broker: Arc::new(FaultyBroker(broker.clone())),
        redis: None,
        other_regions: None,
        presence: Presence::of_node(hub.clone(), config.channels.clone()),
        authenticator: Authenticator::new(&config.auth).unwrap(),
        metrics: Metrics::new().unwrap(),
        config,
    };
    (Node::new(parts), broker, hub)
}

fn publication(epoch: &str, offset: u64) -> Arc<Publication> {
    Broadcast::new(frame::Publication {
        channel: channel("chat:1"),
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
async fn the_channels_of_a_connect_are_read_together_and_answered_in_order() {
    let (node, ..) = node(|memory| Together { memory, asked: watch::Sender::new(0), wanted: 32 });
    let limit = node.config.limits.channels_per_session;
    let names: Vec<_> = (0..limit + 5).map(|number| format!("chat:{number:03}")).collect();
    let mut connect = connect_to([]);
    connect.subscriptions = names.iter().map(|name| (channel(name), SubscribeOptions::default())).collect();
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect)).await;
    assert!(matches!(peer.next().await, Ok(ServerFrame::Connected(_))));
    for (index, name) in names.iter().enumerate() {
        match peer.next().await.unwrap() {
            ServerFrame::Subscribed(one) => assert!(&*one.channel == name && index < limit),
            ServerFrame::Unsubscribed(one) => {
                assert_eq!(one.reason.as_deref(), Some("limit_reached"));
                assert!(&*one.channel == name && index >= limit);
            }
            other => panic!("{other:?}"),
        }
    }
    listening.abort();
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
    let listener = bind_tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    let listening = tokio::spawn(websocket::listen(node, listener, None));
    let dialer = Dialer::new(DialOptions { encoding: Encoding::Json, ..DialOptions::default() }).unwrap();
    let connection = soon(dialer.dial(&url, TransportKind::WebSocket)).await.unwrap();
    let peer = Peer::over(connection);
    (peer, listening)
}
