//! Nodes in this process, as tests configure them.

pub mod before;
pub mod broker;
mod client;
mod token;

pub use client::{another, connect, options, publication};
pub use token::{HMAC_SECRET, token};

use skywave::{config::Config, server::Server};

/// What tests of nodes have in common: listeners on free ports of this machine, and limits that are not in the way.
const USUAL: [(&str, &str); 5] = [
    ("LISTEN__PUBLIC", "127.0.0.1:0"),
    ("LISTEN__PLAIN", "127.0.0.1:0"),
    ("LISTEN__ADMIN", "127.0.0.1:0"),
    // Tests are in a greater hurry than people.
    ("LIMITS__REQUESTS_PER_SECOND", "100000"),
    ("LIMITS__PUBLISHES_PER_SECOND", "100000"),
];

/// What nodes are told that share a Redis, and go on with each other's sessions.
pub fn sharing(redis: &str) -> [(&'static str, &str); 3] {
    [
        ("BROKER__KIND", "redis"),
        ("BROKER__URL", redis),
        ("AUTH__SESSION_SECRET", "a secret that all nodes of all regions share"),
    ]
}

/// Where presence is in the way, none of the namespaces for development has it.
pub const WITHOUT_PRESENCE: [(&str, &str); 6] = [
    ("CHANNELS__CALL__PRESENCE", "false"),
    ("CHANNELS__CHAT__PRESENCE", "false"),
    ("CHANNELS__DOC__PRESENCE", "false"),
    ("CHANNELS__PRESENCE__PRESENCE", "false"),
    ("CHANNELS__ROOM__PRESENCE", "false"),
    ("CHANNELS__TEST__PRESENCE", "false"),
];

/// The variables that set these keys, such as `LIMITS__SESSIONS`, and what is usual where they do not.
pub fn environment(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let is_set = |key: &str| settings.iter().any(|(set, _)| *set == key);
    let usual = USUAL.iter().filter(|(key, _)| !is_set(key));
    usual.chain(settings).map(|(key, value)| (format!("SKYWAVE_{key}"), (*value).to_owned())).collect()
}

/// The development defaults with [`environment`].
pub fn config(settings: &[(&str, &str)]) -> Config {
    Config::load(None, true, environment(settings)).unwrap()
}

/// A node with the configuration of [`config`].
pub async fn start(settings: &[(&str, &str)]) -> Server {
    Server::start(config(settings)).await.unwrap()
}

/// Where clients reach a node.
pub fn url(node: &Server) -> String {
    format!("https://localhost:{}", node.public().unwrap().port())
}
