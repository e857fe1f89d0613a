//! What a session, slow or fast, can rely on from its outbox.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod closing;
mod content;
mod events;
mod filling;
mod machine;
mod paces;
mod peer;
mod reader;
mod region;
mod slow_readers;
mod turns;
