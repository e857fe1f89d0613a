//! `[broker]`: what carries publications between the nodes of this region.

use super::{
    checks::identifier,
    duration::{DAY, MINUTE, SECOND},
    redis,
    section::Section,
};
use crate::redis::Secret;
use std::{path::PathBuf, time::Duration};

/// What carries publications between the nodes of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerKind {
    /// Nothing: the node is alone.
    Memory,
    /// Redis Streams.
    Redis,
}

/// `[broker]`.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `kind`: `memory` or `redis`. Default: `memory`.
    pub kind: BrokerKind,
    /// `url` or `url_file`: the region's Redis, see [`crate::redis::RedisUrl`]; may hold a password.
    pub url: Option<Secret>,
    /// `ca`: a PEM file with the authorities that vouch for it over TLS. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// `partitions`: of the region's log; 1 … 1,024, fixed per deployment. Default: 16.
    pub partitions: u16,
    /// `log_age`: how long the log is kept; 10s … 7d. Default: 10m.
    pub log_age: Duration,
    /// `prefix`: of every Redis key; 1 … 32 of `a-z 0-9 _ -`. Default: `sky`.
    pub prefix: String,
}

impl BrokerConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let kinds = [("memory", BrokerKind::Memory), ("redis", BrokerKind::Redis)];
        let config = Self {
            kind: section.choice("kind", BrokerKind::Memory, &kinds),
            url: redis::url(section, "url"),
            ca: section.text("ca").map(PathBuf::from),
            partitions: section.integer("partitions", 16, 1..=1_024),
            log_age: section.duration("log_age", 10 * MINUTE, 10 * SECOND..=7 * DAY),
            prefix: section
                .parsed("prefix", |text| identifier(text, 32, false))
                .unwrap_or_else(|| "sky".to_owned()),
        };
        redis::check_authorities(section, config.url.as_ref());
        let is_url_set = section.is_set("url") || section.is_set("url_file");
        match config.kind {
            BrokerKind::Redis if !is_url_set => section.add("url", "is missing: kind is \"redis\""),
            BrokerKind::Memory if is_url_set => {
                let key = if section.is_set("url") { "url" } else { "url_file" };
                section.add(key, "is of no use to a memory broker: set kind = \"redis\"");
            }
            _ => {}
        }
        config
    }
}
