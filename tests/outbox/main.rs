//! What a session, slow or fast, can rely on from its outbox.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod closing;
mod content;
mod events;
mod filling;
mod paces;
mod reader;
mod slow_readers;
