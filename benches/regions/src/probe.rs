//! What a region's own clients notice while something else goes on: publications of their own, one after the other.

use crate::{
    site::Site,
    stream::{TICK, connect},
};
use anyhow::Context;
use skywave_client::{CertificateCheck, ChannelEvent, Client, Json, SubscribeOptions, Subscription};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A channel that nothing else uses.
const CHANNEL: &str = "room:probe";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that publishes to itself.
pub struct Probe {
    client: Client,
    subscription: Subscription,
}

impl Probe {
    pub async fn start(site: &Site, url: &str, certificate: CertificateCheck) -> anyhow::Result<Self> {
        let client = connect(site, url, certificate).await?;
        let subscription = client.subscribe(CHANNEL, SubscribeOptions::default()).await?;
        Ok(Self { client, subscription })
    }

    /// Publishes until `end` is ready: how long each publication took until it was delivered, in microseconds.
    ///
    /// # Errors
    /// When one is refused or does not come back.
    pub async fn run(&mut self, end: impl Future<Output = ()>) -> anyhow::Result<Vec<u64>> {
        let mut delays = Vec::new();
        tokio::pin!(end);
        loop {
            let took = timeout(ANSWER_TIMEOUT, self.publish(delays.len()));
            delays.push(took.await.context("a region's own publication is lost")??);
            tokio::select! {
                () = &mut end => return Ok(delays),
                () = sleep(TICK) => {}
            }
        }
    }

    async fn publish(&mut self, number: usize) -> anyhow::Result<u64> {
        let begun = Instant::now();
        let published = self.client.publish(CHANNEL, Json::of(&number)?).await?;
        loop {
            match self.subscription.next().await.context("the subscription ended")? {
                ChannelEvent::Publication(one)
                    if one.origin == published.origin && one.offset == published.offset =>
                {
                    return Ok(u64::try_from(begun.elapsed().as_micros())?);
                }
                _ => {}
            }
        }
    }

    pub async fn close(self) {
        self.client.close().await;
    }
}
