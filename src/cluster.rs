//! The nodes of this region as one of them knows them: who is there, how busy, who has which session, and who can serve.

pub mod balance;
pub mod directory;
pub mod failover;
pub mod fencing;
pub mod inbox;
pub mod questions;
pub mod rendezvous;
pub mod scripts;
