//! Pub/sub channels, subscribed anew for as long as it takes; what is said while there is no connection is lost.
//!
//! A connection that lives may still hear nothing: a server that its cluster has forgotten keeps its subscribers and
//! answers them. So each subscription is tested by a message that is sent for it through another server.

use crate::{
    Redis,
    backoff::{Backoff, RECONNECT_PAUSE},
    errors::{ConnectError, TIMEOUT},
    request::Request,
};
use futures_util::StreamExt;
use prometheus::IntCounter;
use redis::{
    Msg,
    aio::{PubSub, PubSubSink, PubSubStream},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// A subscription is tried this often.
const TRIAL_INTERVAL: Duration = Duration::from_secs(5);
/// For so long what was said before may come first, on a path on which much waits.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(30);

/// Takes what is said on the channels of a [`Subscription`], in order. Never blocks.
pub trait Listener: Send + 'static {
    /// A message on a channel.
    fn message(&mut self, channel: &str, payload: &[u8]);
    /// The connection broke: what is said is lost from now on.
    fn lost(&mut self) {}
    /// The connection was made anew.
    fn resumed(&mut self) {}
}

/// A connection that hears what is said on some channels, until it breaks or turns out to be deaf.
pub struct Hearing {
    redis: Redis,
    subscriber: PubSub,
    /// The name of the server.
    server: Arc<str>,
    /// The channel on which it is tried.
    probe: String,
}

const DEAF: &str = "nothing is heard of what is said elsewhere";

/// What came of saying something elsewhere.
enum Trial {
    /// It has to be heard.
    Said,
    Broken,
    /// Nothing could be said elsewhere, and the connection lives.
    Unknown,
}

impl Hearing {
    /// # Errors
    /// See [`ConnectError`]. Nothing is heard of a Redis that is not known to be the one that it is taken for.
    pub async fn open(redis: &Redis, channels: &[String]) -> Result<Self, ConnectError> {
        redis.endpoint.ownership.check()?;
        let probe = redis.keys.probe(redis.chance().any());
        let mut channels = channels.to_vec();
        channels.push(probe.clone());
        let (subscriber, server) = redis.endpoint.subscribe(&channels).await?;
        Ok(Self { redis: redis.clone(), subscriber, server, probe })
    }

    /// Hands on what is heard, and tries the connection this often. Ends, and says why, when nothing more is to be
    /// heard.
    pub async fn listen(self, interval: Duration, mut hear: impl FnMut(&Msg)) -> &'static str {
        let Self { redis, subscriber, server, probe } = self;
        let (mut sink, mut messages) = subscriber.split();
        loop {
            if hear_for(interval, &mut messages, &probe, &mut hear).await.is_none() {
                return "the connection broke";
            }
            if !redis.commands.has(&server) {
                return "the server is none of those that have keys any more";
            }
            let mut trial = std::pin::pin!(try_once(&redis, &server, &probe, &mut sink));
            let (mut said_at, mut heard_at) = (None, Instant::now());
            loop {
                let deaf_at = said_at.map(|said_at| is_deaf_at(said_at, heard_at));
                tokio::select! {
                    biased;
                    trial = &mut trial, if deaf_at.is_none() => match trial {
                        Trial::Said => said_at = Some(Instant::now()),
                        Trial::Broken => return "the connection does not answer",
                        Trial::Unknown => break,
                    },
                    message = messages.next() => match message {
                        Some(message) if message.get_channel_name() == probe => break,
                        Some(message) => {
                            heard_at = Instant::now();
                            hear(&message);
                            // Others may be heard all the while.
                            if said_at.is_some_and(|said_at| is_deaf_at(said_at, heard_at) <= heard_at) {
                                return DEAF;
                            }
                        }
                        None => return "the connection broke",
                    },
                    () = sleep_until(deaf_at.unwrap_or(heard_at)), if deaf_at.is_some() => {
                        return DEAF;
                    }
                }
            }
        }
    }
}

/// When a subscription counts as deaf to what was said at some time: what was said before comes first.
fn is_deaf_at(said_at: Instant, heard_at: Instant) -> Instant {
    (said_at.max(heard_at) + TIMEOUT).min(said_at + BACKLOG_PATIENCE)
}

/// Hears for some time; `None` when the connection broke.
async fn hear_for(
    time: Duration,
    messages: &mut PubSubStream,
    probe: &str,
    hear: &mut impl FnMut(&Msg),
) -> Option<()> {
    let mut end = std::pin::pin!(tokio::time::sleep(time));
    loop {
        tokio::select! {
            biased;
            () = &mut end => return Some(()),
            message = messages.next() => {
                // A trial that was late is over.
                let message = message?;
                if message.get_channel_name() != probe {
                    hear(&message);
                }
            }
        }
    }
}

/// Says something elsewhere, which has to be heard in time.
async fn try_once(redis: &Redis, server: &str, probe: &str, sink: &mut PubSubSink) -> Trial {
    let said = redis.commands.call_elsewhere(Request::command(["PUBLISH", probe, ""]), server);
    if said.await.is_ok() {
        return Trial::Said;
    }
    match tokio::time::timeout(TIMEOUT, sink.ping::<redis::Value>()).await {
        Ok(Ok(_)) => Trial::Unknown,
        Ok(Err(_)) | Err(_) => Trial::Broken,
    }
}

pub struct Subscription<L> {
    redis: Redis,
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
        redis: &Redis,
        channels: Vec<String>,
        listener: L,
        reconnects: IntCounter,
    ) -> Result<impl Future<Output = ()> + Send + use<L>, ConnectError> {
        let hearing = Hearing::open(redis, &channels).await?;
        Ok(Self { redis: redis.clone(), channels, listener, reconnects }.run(hearing))
    }

    async fn run(mut self, mut hearing: Hearing) {
        loop {
            let listener = &mut self.listener;
            let hear = |message: &Msg| {
                listener.message(message.get_channel_name(), message.get_payload_bytes());
            };
            let reason = hearing.listen(TRIAL_INTERVAL, hear).await;
            self.listener.lost();
            tracing::warn!(reason, "what other nodes say is lost until Redis can be reached again");
            let mut backoff = Backoff::new(RECONNECT_PAUSE, self.redis.chance());
            hearing = loop {
                tokio::time::sleep(backoff.pause()).await;
                match Hearing::open(&self.redis, &self.channels).await {
                    Ok(hearing) => break hearing,
                    Err(error) => self.redis.endpoint.ownership.tell_unreachable(&error),
                }
            };
            tracing::info!("what other nodes say is heard again");
            self.reconnects.inc();
            self.listener.resumed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_not_deaf_while_what_was_said_before_still_comes() {
        let said_at = Instant::now();
        let after = |seconds| said_at + Duration::from_secs(seconds);
        assert_eq!(is_deaf_at(said_at, said_at - Duration::from_secs(9)), said_at + TIMEOUT);
        assert_eq!(is_deaf_at(said_at, after(7)), after(7) + TIMEOUT);
        // A server may be heard all the while that hears no other one.
        assert_eq!(is_deaf_at(said_at, after(29)), after(30));
    }
}
