//! Pub/sub channels, subscribed anew for as long as it takes; what is said while there is no connection is lost.

use super::{
    connection::{ConnectError, RECONNECT_PAUSE, TIMEOUT},
    endpoint::Endpoint,
};
use crate::backoff::Backoff;
use futures_util::StreamExt;
use prometheus::IntCounter;
use redis::{Msg, aio::PubSub};
use std::time::Duration;

/// A silent connection is tried this often.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Takes what is said on the channels of a [`Subscription`], in order. Never blocks.
pub trait Listener: Send + 'static {
    /// A message on a channel.
    fn message(&mut self, channel: &str, payload: &[u8]);
    /// The connection broke: what is said is lost from now on.
    fn lost(&mut self) {}
    /// The connection was made anew.
    fn resumed(&mut self) {}
}

pub struct Subscription<L> {
    endpoint: Endpoint,
    channels: Vec<String>,
    listener: L,
    reconnects: IntCounter,
}

impl<L: Listener> Subscription<L> {
    /// Subscribes; the task that it gives tells the listener from then on.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn start(
        endpoint: Endpoint,
        channels: Vec<String>,
        listener: L,
        reconnects: IntCounter,
    ) -> Result<impl Future<Output = ()> + Send + 'static, ConnectError> {
        let subscriber = endpoint.subscribe(&channels).await?;
        Ok(Self { endpoint, channels, listener, reconnects }.run(subscriber))
    }

    async fn run(mut self, mut subscriber: PubSub) {
        loop {
            self.listen(subscriber).await;
            self.listener.lost();
            tracing::warn!("what other nodes say is lost until Redis can be reached again");
            let mut backoff = Backoff::new(RECONNECT_PAUSE);
            subscriber = loop {
                tokio::time::sleep(backoff.pause()).await;
                match self.endpoint.subscribe(&self.channels).await {
                    Ok(subscriber) => break subscriber,
                    Err(error) => tracing::debug!(%error, "Redis cannot be reached yet"),
                }
            };
            tracing::info!("what other nodes say is heard again");
            self.reconnects.inc();
            self.listener.resumed();
        }
    }

    /// Listens until the connection breaks.
    async fn listen(&mut self, subscriber: PubSub) {
        let (mut sink, mut messages) = subscriber.split();
        loop {
            match tokio::time::timeout(PING_INTERVAL, messages.next()).await {
                Ok(Some(message)) => self.hear(&message),
                Ok(None) => return,
                Err(_) => match tokio::time::timeout(TIMEOUT, sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => return,
                },
            }
        }
    }

    fn hear(&mut self, message: &Msg) {
        self.listener.message(message.get_channel_name(), message.get_payload_bytes());
    }
}
