//! What a node measures of the Redis that it uses.

use crate::registration::{LATENCY_BUCKETS, Registration};
use prometheus::{HistogramVec, IntCounterVec};

/// Of all connections.
#[derive(Clone)]
pub struct RedisMetrics {
    /// By connection (`commands`, `remote-REGION`, `bridge-REGION`) and command.
    pub command_duration: HistogramVec,
    /// By connection: `commands`, `tail`, `events`, `presence`, `inbox`, `presence-mirror`, `link-REGION`,
    /// `remote-REGION`.
    pub reconnects: IntCounterVec,
}

impl RedisMetrics {
    /// # Errors
    /// See [`Registration`].
    pub fn new(registration: &Registration) -> Result<Self, prometheus::Error> {
        Ok(Self {
            command_duration: registration.histograms(
                "skywave_redis_command_seconds",
                "From a call to Redis' answer, waiting in line included; scripts by their names",
                &["connection", "command"],
                LATENCY_BUCKETS,
            )?,
            reconnects: registration.counters(
                "skywave_redis_reconnects_total",
                "Connections to Redis that were made anew after they broke",
                "connection",
            )?,
        })
    }
}
