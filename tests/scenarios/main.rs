//! The node seen from outside: each scenario over WebTransport, over WebSocket in both encodings and on HTTP/2, and
//! over a transport that the node knows nothing of.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

mod addresses;
mod auth;
mod broker_away;
mod channels;
mod drain;
mod events;
mod faulty_broker;
mod heartbeat;
mod history;
mod limits;
mod peer;
mod pipe;
mod presence;
mod resume;
mod sessions;
mod slow_readers;
mod subscribing;
mod virtual_time;
mod world;
