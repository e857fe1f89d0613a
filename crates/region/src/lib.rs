//! What nodes share over Redis: publications and presence of their region, and what crosses between regions.

#![warn(unreachable_pub)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod bridge;
pub mod broker;
pub mod identity;
pub mod keys;
pub mod lease;
pub mod link;
pub mod presence;
mod regions;
mod sharing;

pub use regions::{Elsewhere, Regions, Remote};
pub use sharing::Sharing;
