//! A channel on one node: who is subscribed, who is present, what waits for each, and where publications stand.
//!
//! What nodes share stands behind two traits, [`broker::Broker`] and [`presence::Roster`]; their twins in memory are
//! here.

#![warn(unreachable_pub)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod broadcast;
pub mod broker;
pub mod by_session;
pub mod claim;
pub mod hub;
pub mod namespace;
pub mod presence;
pub mod rights;
