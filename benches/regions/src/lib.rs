//! Several regions on one machine, broken on purpose: real nodes, real Redis, a network that can be cut, and a checker
//! that knows everything that was acknowledged.

#![warn(unreachable_pub)]

pub mod browsers;
pub mod certificate;
pub mod checker;
pub mod cluster;
pub mod cost;
pub mod faults;
pub mod latency;
pub mod node;
#[cfg(all(target_os = "linux", feature = "packets"))]
pub mod packets;
#[cfg(all(target_os = "linux", feature = "packets"))]
pub mod path;
pub mod probe;
pub mod process;
pub mod redis;
pub mod relay;
pub mod report;
pub mod scene;
pub mod seeding;
pub mod site;
pub mod stream;
pub mod traffic;
pub mod user;
pub mod wan;
pub mod world;
