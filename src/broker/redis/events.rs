//! Events from the nodes of the region, over pub/sub; while there is no connection they are lost, as events may be.

use super::{
    connection::{Backoff, ConnectError, Endpoint, TIMEOUT},
    keys::Keys,
};
use crate::{broadcast::Broadcast, broker::Delivery};
use futures_util::StreamExt;
use prometheus::IntCounter;
use redis::aio::PubSub;
use skywave_protocol::frame;
use std::{sync::Arc, time::Duration};

/// A silent connection is tried this often.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// An event as it travels between nodes.
pub fn encode(event: &frame::Event) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(event)
}

pub struct Events {
    endpoint: Endpoint,
    channels: Vec<String>,
    delivery: Arc<dyn Delivery>,
    reconnects: IntCounter,
}

impl Events {
    /// Subscribes; the task that it gives delivers from then on.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn start(
        endpoint: Endpoint,
        keys: &Keys,
        delivery: Arc<dyn Delivery>,
        reconnects: IntCounter,
    ) -> Result<impl Future<Output = ()> + Send + 'static, ConnectError> {
        let channels: Vec<_> = (0..keys.partitions()).map(|partition| keys.event(partition)).collect();
        let subscriber = endpoint.subscribe(&channels).await?;
        Ok(Self { endpoint, channels, delivery, reconnects }.run(subscriber))
    }

    async fn run(self, mut subscriber: PubSub) {
        loop {
            self.deliver(subscriber).await;
            tracing::warn!("events of other nodes are lost until Redis can be reached again");
            let mut backoff = Backoff::default();
            subscriber = loop {
                tokio::time::sleep(backoff.pause()).await;
                match self.endpoint.subscribe(&self.channels).await {
                    Ok(subscriber) => break subscriber,
                    Err(error) => tracing::debug!(%error, "Redis cannot be reached yet"),
                }
            };
            self.reconnects.inc();
        }
    }

    /// Delivers until the connection breaks.
    async fn deliver(&self, subscriber: PubSub) {
        let (mut sink, mut messages) = subscriber.split();
        loop {
            match tokio::time::timeout(PING_INTERVAL, messages.next()).await {
                Ok(Some(message)) => match rmp_serde::from_slice(message.get_payload_bytes()) {
                    Ok(event) => self.delivery.event(&Broadcast::<frame::Event>::new(event)),
                    Err(error) => tracing::error!(%error, "an event is passed over"),
                },
                Ok(None) => return,
                Err(_) => match tokio::time::timeout(TIMEOUT, sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => return,
                },
            }
        }
    }
}
