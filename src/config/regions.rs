//! `[broker]`, `[[regions]]`, `[failover]` and `[heartbeat]`: the nodes around this one, and the paths to them.

use super::{
    checks::{identifier, nodes_url},
    section::Section,
};
use crate::redis::{RedisUrl, Secret};
use skywave_protocol::heartbeat::HeartbeatConfig;
use std::{path::PathBuf, time::Duration};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

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
    /// `url` or `url_file`: the region's Redis, see [`RedisUrl`]; may hold a password.
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
            url: redis(section, "url"),
            ca: section.text("ca").map(PathBuf::from),
            partitions: section.integer("partitions", 16, 1..=1_024),
            log_age: section.duration("log_age", 10 * MINUTE, 10 * SECOND..=7 * DAY),
            prefix: section
                .parsed("prefix", |text| identifier(text, 32, false))
                .unwrap_or_else(|| "sky".to_owned()),
        };
        check_authorities(section, config.url.as_ref());
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

fn redis(section: &mut Section<'_>, key: &str) -> Option<Secret> {
    let url = section.secret(key, 1)?;
    match RedisUrl::parse(url.expose()) {
        Ok(_) => Some(url),
        Err(message) => {
            section.add(key, message);
            None
        }
    }
}

/// Who names authorities means to have TLS.
fn check_authorities(section: &mut Section<'_>, url: Option<&Secret>) {
    if section.is_set("ca") && url.is_some_and(|url| !RedisUrl::is_over_tls(url.expose())) {
        section.add("ca", "is of no use without TLS, which the URL has that begins with rediss");
    }
}

/// `[[regions]]`: one of the other regions.
#[derive(Clone, Debug)]
pub struct RegionConfig {
    /// `name`: as that region's nodes call it; 1 … 32 of `a-z 0-9 _ -`.
    pub name: String,
    /// `redis` or `redis_file`: that region's Redis.
    pub redis: Secret,
    /// `ca`: a PEM file with the authorities that vouch for it over TLS. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// `url`: where clients reach that region, `https://HOST[:PORT][/PATH]`.
    pub url: String,
}

impl RegionConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let name = section.parsed("name", |text| identifier(text, 32, false));
        let redis = redis(section, "redis");
        let ca = section.text("ca").map(PathBuf::from);
        check_authorities(section, redis.as_ref());
        let url = section.parsed("url", nodes_url);
        for (key, is_set) in [
            ("name", section.is_set("name")),
            ("redis", section.is_set("redis") || section.is_set("redis_file")),
            ("url", section.is_set("url")),
        ] {
            if !is_set {
                section.add(key, "is missing");
            }
        }
        Some(Self { name: name?, redis: redis?, ca, url: url? })
    }
}

/// What a region does when its links to all others are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolated {
    /// Go on; the logs merge when the links heal.
    Serve,
    /// Send its sessions to another region.
    Leave,
}

/// `[failover]`: when a node is left.
#[derive(Clone, Debug)]
pub struct FailoverConfig {
    /// `broker_away`: a node whose Redis is away for so long sends its sessions elsewhere; 100ms … 10m. Default: 3s.
    pub broker_away: Duration,
    /// `link_lag`: a link that lags further is marked and counted; 10ms … 10m. Default: 1s.
    pub link_lag: Duration,
    /// `isolated`: `serve` or `leave`. Default: `serve`.
    pub isolated: Isolated,
}

impl FailoverConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let choices = [("serve", Isolated::Serve), ("leave", Isolated::Leave)];
        Self {
            broker_away: section.duration("broker_away", 3 * SECOND, 100 * MILLISECOND..=10 * MINUTE),
            link_lag: section.duration("link_lag", SECOND, 10 * MILLISECOND..=10 * MINUTE),
            isolated: section.choice("isolated", Isolated::Serve, &choices),
        }
    }
}

/// Reads `[heartbeat]`. Every duration is 100ms … 1h, and all lie between `min` and `max`.
pub(super) fn read_heartbeat(section: &mut Section<'_>) -> HeartbeatConfig {
    let bounds = 100 * MILLISECOND..=HOUR;
    let default = HeartbeatConfig::default();
    let mut config = HeartbeatConfig {
        min: section.duration("min", default.min, bounds.clone()),
        max: section.duration("max", default.max, bounds.clone()),
        foreground_max: section.duration("foreground_max", default.foreground_max, bounds.clone()),
        udp_start: section.duration("udp_start", default.udp_start, bounds.clone()),
        tcp_start: section.duration("tcp_start", default.tcp_start, bounds),
    };
    let (min, max) = (config.min, config.max);
    if min > max {
        section.add(if section.is_set("min") { "min" } else { "max" }, "min must not be longer than max");
        return config;
    }
    for (key, value) in [
        ("foreground_max", &mut config.foreground_max),
        ("udp_start", &mut config.udp_start),
        ("tcp_start", &mut config.tcp_start),
    ] {
        if section.is_set(key) && !(min..=max).contains(value) {
            section.add(key, "must lie between min and max");
        }
        // A default gives way to a bound that was written.
        *value = (*value).clamp(min, max);
    }
    config
}
