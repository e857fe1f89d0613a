//! Events from the nodes of the region, over pub/sub; while there is no connection they are lost, as events may be.

use crate::keys::RegionKeys as _;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use skywave_channels::{broadcast::Broadcast, broker::Delivery};
use skywave_protocol::{frame, position::Origin};
use skywave_redis::{Keys, pulse::Pulse, subscription::Listener};
use std::sync::Arc;

/// Delivers to this node what other nodes emit, and what it emits itself.
pub struct Events {
    pub delivery: Arc<dyn Delivery>,
    pub pulse: Arc<Pulse>,
}

/// An event as it travels between nodes.
#[derive(Serialize, Deserialize)]
struct Said<E> {
    /// The region where it was emitted.
    origin: Origin,
    event: E,
}

/// # Errors
/// When it cannot be written.
pub fn encode(origin: &Origin, event: &frame::Event) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(&Said { origin: origin.clone(), event })
}

/// The region where an encoded event was emitted.
///
/// # Errors
/// When it is none.
pub fn origin(event: &[u8]) -> Result<Origin, rmp_serde::decode::Error> {
    rmp_serde::from_slice::<Said<IgnoredAny>>(event).map(|said| said.origin)
}

/// Where events are said.
pub fn channels(keys: &Keys) -> Vec<String> {
    (0..keys.partitions()).map(|partition| keys.event(partition)).collect()
}

impl Listener for Events {
    fn message(&mut self, _channel: &str, payload: &[u8]) {
        match rmp_serde::from_slice(payload) {
            Ok(Said { event, .. }) => self.delivery.event(&Broadcast::<frame::Event>::new(event)),
            Err(error) => tracing::error!(%error, "an event is passed over"),
        }
    }

    fn lost(&mut self) {
        self.pulse.broke();
    }

    fn resumed(&mut self) {
        self.pulse.connected();
    }
}
