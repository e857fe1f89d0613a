//! The skywave.v1 wire protocol: pure values and bytes, no IO and no clock.
pub mod heartbeat;
