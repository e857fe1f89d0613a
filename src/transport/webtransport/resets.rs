//! Stateless resets, which tell a client that its connection is over (RFC 9000, section 10.3).

use crate::config::{Config, Secret};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use quinn::EndpointConfig;
use quinn_proto::RandomConnectionIdGenerator;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Keeps this key apart from any other use of the same secret.
const DOMAIN: &str = "skywave reset v1";

/// An endpoint whose resets are believed by clients of an earlier life of the same node, which knew them and was
/// killed.
pub(crate) fn config(config: &Config, node: &str, address: SocketAddr) -> EndpointConfig {
    let mut endpoint = EndpointConfig::new(Arc::new(key(&config.auth.session_secret, node, address)));
    endpoint
        // Of 64 random bits, since none may come twice under one key.
        .cid_generator(|| Box::new(RandomConnectionIdGenerator::default()))
        // No more are sent away than may come back.
        .min_reset_interval(Duration::from_secs(1) / config.limits.handshakes_per_second);
    endpoint
}

/// Each endpoint has its own. If another one had the same key, anybody could send it what is meant for this one, and
/// learn how to end a connection here (RFC 9000, section 21.11).
fn key(secret: &Secret, node: &str, address: SocketAddr) -> hmac::Key {
    let secret = hmac::Key::new(HMAC_SHA256, secret.expose().as_bytes());
    let tag = hmac::sign(&secret, format!("{DOMAIN}\0{node}\0{address}").as_bytes());
    hmac::Key::new(HMAC_SHA256, tag.as_ref())
}
