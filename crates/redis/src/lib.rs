//! A Redis as nodes use it: connections, commands in order, scripts, pub/sub, and the names of keys.
//!
//! It knows none of those who use it: they bring their scripts, and look after its tasks.

#![warn(unreachable_pub)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod address;
pub mod backoff;
mod batch;
mod cluster;
pub mod commands;
pub mod connection;
mod dialling;
mod endpoint;
pub mod errors;
pub mod heard;
mod hedging;
pub mod keys;
pub mod layout;
mod line;
mod lines;
pub mod lives;
pub mod metrics;
pub mod ownership;
pub mod patient;
mod pipe;
pub mod pulse;
mod redirect;
pub mod registration;
pub mod reply;
mod request;
pub mod script;
mod secret;
mod sentinel;
mod server;
mod slot;
pub mod subscription;
mod switchboard;
pub mod tasks;
mod url;
mod watch;

use futures_util::{FutureExt, future::BoxFuture};
use layout::Connections;
use metrics::RedisMetrics;
use ownership::Ownership;
use skywave_host::{Chance, Host};
use std::sync::Arc;
use tasks::Tasks;

pub use address::Address;
pub use commands::Commands;
pub use endpoint::Endpoint;
pub use errors::{CallError, ConnectError, Stranger};
pub use keys::Keys;
pub use reply::{Malformed, StreamId};
pub use request::Request;
pub use script::{Script, Scripts};
pub use secret::Secret;
pub use server::Server;
pub use url::RedisUrl;

/// A region's Redis: one connection for commands to each of its servers, and what is needed to make further ones.
#[derive(Clone)]
pub struct Redis {
    pub endpoint: Endpoint,
    pub keys: Keys,
    pub commands: Commands,
    pub metrics: RedisMetrics,
    tasks: Arc<Tasks>,
}

impl Redis {
    /// Connects to the Redis of this node's region, from where the node runs. `name` tells its connection from others in
    /// metrics, logs and `CLIENT LIST`.
    ///
    /// # Errors
    /// See [`ConnectError`]. Once connected, a connection that breaks is made anew for as long as it takes.
    pub async fn connect(
        host: &Host,
        address: &Address,
        name: &str,
        metrics: RedisMetrics,
    ) -> Result<Self, ConnectError> {
        let endpoint = Endpoint::new(host, address, Ownership::of_own(address))?;
        let connections = endpoint.connect_to_all(name).await?;
        Ok(Self::watched(endpoint, name, metrics, Some(connections)))
    }

    /// Further connections to the same servers, for calls that need no place in the order of the others.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn beside(&self, name: &str) -> Result<Self, ConnectError> {
        let (endpoint, metrics) = (self.endpoint.clone(), self.metrics.clone());
        let connections = endpoint.connect_to_all(name).await?;
        let (commands, lines) = Commands::new(endpoint.clone(), name.into(), Some(connections), &metrics);
        Ok(Self::with(endpoint, commands, metrics, [lines.boxed()]))
    }

    /// Connects to another region's Redis without waiting. Calls fail as unavailable until the first connection is
    /// made, and while the Redis does not say that it is that region's.
    ///
    /// # Errors
    /// When the URL makes no sense.
    pub fn reach(
        host: &Host,
        address: &Address,
        name: &str,
        metrics: RedisMetrics,
    ) -> Result<Self, ConnectError> {
        let endpoint = Endpoint::new(host, address, Ownership::of_other(address))?;
        Ok(Self::watched(endpoint, name, metrics, None))
    }

    /// With a task that looks again and again whose the Redis is.
    fn watched(
        endpoint: Endpoint,
        name: &str,
        metrics: RedisMetrics,
        connections: Option<Connections>,
    ) -> Self {
        let (commands, lines) = Commands::new(endpoint.clone(), name.into(), connections, &metrics);
        let watching = watch::watch(endpoint.ownership.clone(), commands.clone());
        Self::with(endpoint, commands, metrics, [lines.boxed(), watching.boxed()])
    }

    fn with<const COUNT: usize>(
        endpoint: Endpoint,
        commands: Commands,
        metrics: RedisMetrics,
        tasks: [BoxFuture<'static, ()>; COUNT],
    ) -> Self {
        let keys = endpoint.ownership.keys.clone();
        Self { endpoint, keys, commands, metrics, tasks: Arc::new(Tasks::new(tasks)) }
    }

    /// What is drawn wherever it is used.
    pub fn chance(&self) -> &Chance {
        &self.endpoint.host.chance
    }

    /// Waits until what serves the connections ends, though it was to go on. A panic goes on in who waits.
    pub async fn ended(self) {
        self.tasks.ended().await;
    }
}
