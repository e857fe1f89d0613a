//! Nodes whose broker, one in memory, does not do as it should, and sessions of them.

use crate::{
    peer::{Peer, channel, connect_to, id},
    world::{config, json},
};
use futures_util::future::{self, BoxFuture, FutureExt};
use skywave::{
    auth::Authenticator,
    broadcast::{Broadcast, Event, Publication},
    broker::{
        Accepted, Broker, BrokerError, Chunk, Page, PageLimit, PageOf, Publish, ReadFrom,
        memory::MemoryBroker,
    },
    host::{Host, WallClock},
    hub::Hub,
    metrics::Metrics,
    node::{Node, Parts},
    presence::Presence,
    region::Sharing,
    transport::http,
};
use skywave_client::{
    Channel, Encoding, SubscribeOptions,
    transport::{DialOptions, Dialer, TransportKind},
};
use skywave_protocol::{ClientFrame, ServerFrame, Text, frame};
use skywave_testing::soon;
use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// A broker in memory of which something is not as it should be.
pub trait Faulty: Send + Sync {
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
pub struct Stuck(pub MemoryBroker);

impl Faulty for Stuck {
    fn memory(&self) -> &MemoryBroker {
        &self.0
    }

    fn publish(&self, _: Publish) -> BoxFuture<'static, Result<Accepted, BrokerError>> {
        future::pending().boxed()
    }
}

/// Cannot be read while it is away.
pub struct Away {
    pub memory: MemoryBroker,
    pub is_away: AtomicBool,
    /// How often it was asked in vain.
    pub refused: AtomicUsize,
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
pub struct Together {
    pub memory: MemoryBroker,
    pub asked: watch::Sender<usize>,
    pub wanted: usize,
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
pub struct Held {
    pub memory: MemoryBroker,
    free: &'static [&'static str],
    let_go: watch::Sender<bool>,
    /// How many were held.
    pub held: AtomicUsize,
}

impl Held {
    pub fn but(free: &'static [&'static str]) -> impl FnOnce(MemoryBroker) -> Self {
        move |memory| Self { memory, free, let_go: watch::Sender::new(false), held: AtomicUsize::new(0) }
    }

    pub fn let_go(&self) {
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
pub struct Divided {
    pub memory: MemoryBroker,
    pub hangs: AtomicBool,
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
pub fn node<F: Faulty + 'static>(broker: impl FnOnce(MemoryBroker) -> F) -> (Arc<Node>, Arc<F>, Arc<Hub>) {
    node_with(&[], broker)
}

/// As [`node`], with some keys of its configuration set.
pub fn node_with<F: Faulty + 'static>(
    settings: &[(&str, &str)],
    broker: impl FnOnce(MemoryBroker) -> F,
) -> (Arc<Node>, Arc<F>, Arc<Hub>) {
    let config = config(settings);
    let region: Text<32> = Text::new("local").unwrap();
    let hub = Arc::new(Hub::default());
    let memory = MemoryBroker::new(&Host::machine(), region.clone(), config.channels.clone(), hub.clone());
    let broker = Arc::new(broker(memory));
    let parts = Parts {
        host: Host::machine(),
        region,
        regions: Vec::new(),
        hub: hub.clone(),
        broker: Arc::new(FaultyBroker(broker.clone())),
        sharing: Sharing::Alone,
        presence: Presence::of_node(WallClock::machine(), hub.clone(), config.channels.clone()),
        authenticator: Authenticator::new(&config.auth).unwrap(),
        metrics: Metrics::new().unwrap(),
        config,
    };
    (Node::new(parts), broker, hub)
}

pub fn publication(epoch: &str, offset: u64) -> Arc<Publication> {
    publication_on("chat:1", epoch, offset)
}

pub fn publication_on(name: &str, epoch: &str, offset: u64) -> Arc<Publication> {
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

/// A session that is subscribed to one channel.
pub async fn connect(node: Arc<Node>) -> (Peer, JoinHandle<()>) {
    let (mut peer, listening) = dial(node).await;
    peer.send(ClientFrame::Connect(connect_to([("chat:1", SubscribeOptions::default())]))).await;
    (peer, listening)
}

pub async fn dial(node: Arc<Node>) -> (Peer, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    let listening = tokio::spawn(http::listen_plain(node, listener));
    let dialer = Dialer::new(DialOptions { encoding: Encoding::Json, ..DialOptions::default() }).unwrap();
    let connection = soon(dialer.dial(&url, TransportKind::WebSocket)).await.unwrap();
    let peer = Peer::over(connection);
    (peer, listening)
}

pub fn subscribe(number: u32, name: &str) -> ClientFrame {
    let (position, history) = (None, None);
    let request =
        frame::Subscribe { id: id(number), channel: channel(name), position, history, presence: false };
    ClientFrame::Subscribe(request)
}

pub fn unsubscribe(number: u32, name: &str) -> ClientFrame {
    ClientFrame::Unsubscribe(frame::Unsubscribe { id: id(number), channel: channel(name) })
}

pub fn publish(number: u32, name: &str) -> ClientFrame {
    let (channel, data) = (channel(name), json(number).into());
    ClientFrame::Publish(frame::Publish { id: id(number), channel, key: None, data })
}

pub async fn next_offset(peer: &mut Peer) -> u64 {
    match peer.next().await.unwrap() {
        ServerFrame::Publication(publication) => publication.offset,
        other => panic!("{other:?}"),
    }
}

pub async fn subscribed_epoch(peer: &mut Peer) -> Text<32> {
    let position = peer.subscribed("chat:1").await.position;
    position.iter().next().unwrap().1.epoch.clone()
}
