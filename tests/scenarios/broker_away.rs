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
    Encoding, SubscribeOptions,
    transport::{DialOptions, Dialer, TransportKind},
};
use skywave_protocol::{ClientFrame, ServerFrame, Text, frame};
use std::sync::Arc;

/// Takes publishes and answers none.
struct Stuck(MemoryBroker);

impl Broker for Stuck {
    fn publish(&self, _: Publish) -> BoxFuture<'static, Result<Accepted, BrokerError>> {
        future::pending().boxed()
    }

    fn emit(&self, event: Arc<Event>) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.0.emit(event)
    }

    fn read(
        &self,
        channel: &skywave_client::Channel,
        from: From,
    ) -> BoxFuture<'static, Result<Chunk, BrokerError>> {
        self.0.read(channel, from)
    }

    fn history(
        &self,
        channel: &skywave_client::Channel,
        page: PageOf,
        limit: PageLimit,
    ) -> BoxFuture<'static, Result<Page, BrokerError>> {
        self.0.history(channel, page, limit)
    }
}

fn node() -> (Arc<Node>, Arc<Hub>) {
    let config = config(&[]);
    let region: Text<32> = Text::new("local").unwrap();
    let hub = Arc::new(Hub::default());
    let memory = MemoryBroker::new(region.clone(), config.channels.clone(), hub.clone());
    let parts = Parts {
        region,
        regions: Vec::new(),
        hub: hub.clone(),
        broker: Arc::new(Stuck(memory)),
        redis: None,
        other_regions: None,
        presence: Presence::of_node(hub.clone(), config.channels.clone()),
        authenticator: Authenticator::new(&config.auth).unwrap(),
        metrics: Metrics::new().unwrap(),
        config,
    };
    (Node::new(parts), hub)
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
    let (node, hub) = node();
    let listener = bind_tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    let listening = tokio::spawn(websocket::listen(node, listener, None));
    let dialer = Dialer::new(DialOptions { encoding: Encoding::Json, ..DialOptions::default() }).unwrap();
    let connection = soon(dialer.dial(&url, TransportKind::WebSocket)).await.unwrap();
    let mut peer = Peer::over(connection);
    peer.send(ClientFrame::Connect(connect_to([("chat:1", SubscribeOptions::default())]))).await;
    let position = peer.subscribed("chat:1").await.position;
    let epoch = position.iter().next().unwrap().1.epoch.clone();
    for number in 2..1000 {
        let data = json(number).into();
        let publish = frame::Publish { id: id(number), channel: channel("chat:1"), key: None, data };
        peer.send(ClientFrame::Publish(publish)).await;
    }
    for offset in 1..=100 {
        hub.publication(&publication(&epoch, offset));
        match peer.next().await.unwrap() {
            ServerFrame::Publication(publication) => assert_eq!(publication.offset, offset),
            other => panic!("{other:?}"),
        }
    }
    listening.abort();
}
