//! What is known by session, in an order that follows from what was put in alone.

use skywave_protocol::frame::SessionId;
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, DefaultHasher},
};

/// A map by session. Nodes draw the ids of sessions, so nobody chooses keys that collide, and hashes need no secret.
/// Without one, two runs that put in the same meet it in the same order.
pub type BySession<V> = HashMap<SessionId, V, BuildHasherDefault<DefaultHasher>>;
