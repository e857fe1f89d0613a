//! `[limits]`: how much one session, user, address or the whole node may take.

use super::section::Section;
use std::time::Duration;

/// Transports of one address beyond two for each of its sessions.
const SPARE_TRANSPORTS: usize = 16;

/// `[limits]`. Every limit is at least 1.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// `sessions`: of the node; up to 10,000,000. Default: 100,000.
    pub sessions: usize,
    /// `sessions_per_address`: of one IPv4 address or IPv6 /64; up to 10,000,000. Default: 1,000, with `--dev` 100,000.
    /// Behind a balancer that ends TLS all sessions come from its address, and this has to allow them.
    pub sessions_per_address: usize,
    /// `sessions_per_user`: of one user on this node; up to 1,000,000. Default: 50, with `--dev` 10,000.
    pub sessions_per_user: usize,
    /// `handshakes_per_second`: TLS and QUIC handshakes of the node, and WebSockets without TLS; up to 1,000,000.
    /// Default: 500, with `--dev` 10,000.
    pub handshakes_per_second: u32,
    /// `frame_bytes`: of one frame; 1,024 … 16,777,216. Default: 65,536.
    pub frame_bytes: usize,
    /// `channels_per_session`: up to 10,000. Default: 128.
    pub channels_per_session: usize,
    /// `requests_per_second`: of one session, in bursts of two seconds' worth; up to 1,000,000. Default: 50.
    pub requests_per_second: u32,
    /// `publishes_per_second`: of one session, in bursts of two seconds' worth; up to 1,000,000. Default: 20.
    pub publishes_per_second: u32,
    /// `outbox_bytes`: what waits for one slow session; 4,096 … 1,073,741,824, and not less than `frame_bytes`.
    /// Default: 1,048,576.
    pub outbox_bytes: usize,
    /// `connect_timeout`: from the first byte to the `connect` frame; 100ms … 5m. Default: 5s.
    pub connect_timeout: Duration,
}

impl LimitsConfig {
    /// How many transports of one address may be on their way to a session. The limit on sessions answers with a code,
    /// so it comes first, and a session that moves has two for a moment.
    pub(crate) fn transports_per_address(&self) -> usize {
        self.sessions_per_address.saturating_mul(2).saturating_add(SPARE_TRANSPORTS)
    }

    pub(super) fn read(section: &mut Section<'_>, dev: bool) -> Self {
        let config = Self {
            sessions: section.integer("sessions", 100_000, 1..=10_000_000),
            sessions_per_address: section.integer(
                "sessions_per_address",
                if dev { 100_000 } else { 1_000 },
                1..=10_000_000,
            ),
            sessions_per_user: section.integer(
                "sessions_per_user",
                if dev { 10_000 } else { 50 },
                1..=1_000_000,
            ),
            handshakes_per_second: section.integer(
                "handshakes_per_second",
                if dev { 10_000 } else { 500 },
                1..=1_000_000,
            ),
            frame_bytes: section.integer("frame_bytes", 65_536, 1_024..=16_777_216),
            channels_per_session: section.integer("channels_per_session", 128, 1..=10_000),
            requests_per_second: section.integer("requests_per_second", 50, 1..=1_000_000),
            publishes_per_second: section.integer("publishes_per_second", 20, 1..=1_000_000),
            outbox_bytes: section.integer("outbox_bytes", 1_048_576, 4_096..=1_073_741_824),
            connect_timeout: section.duration(
                "connect_timeout",
                Duration::from_secs(5),
                Duration::from_millis(100)..=Duration::from_secs(300),
            ),
        };
        if config.outbox_bytes < config.frame_bytes {
            let key = if section.is_set("outbox_bytes") { "outbox_bytes" } else { "frame_bytes" };
            section.add(key, "outbox_bytes must not be less than frame_bytes");
        }
        config
    }
}
