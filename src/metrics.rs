//! Everything that the node counts and measures, in Prometheus' format.

use crate::{
    redis::{
        metrics::RedisMetrics,
        registration::{LATENCY_BUCKETS, RTT_BUCKETS, Registration},
    },
    region::{bridge::metrics::LinksMetrics, broker::lag::LagMetrics, link::metrics::LinkBeatMetrics},
};
use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

/// The node's metrics; one of each for the whole process.
pub struct Metrics {
    registry: Registry,
    pub sessions: IntGaugeVec,
    pub(crate) sessions_opened: IntCounterVec,
    pub(crate) sessions_resumed: IntCounterVec,
    pub sessions_closed: IntCounterVec,
    pub handshakes_refused: IntCounterVec,
    pub refusals: IntCounterVec,
    pub quic_retries: IntCounter,
    pub subscriptions: IntGauge,
    pub publications: IntCounter,
    pub(crate) publications_repeated: IntCounter,
    pub(crate) publish_duration: Histogram,
    pub events: IntCounter,
    pub(crate) frames_received: IntCounterVec,
    pub frames_sent: IntCounterVec,
    pub errors: IntCounterVec,
    pub pings: IntCounterVec,
    pub session_rtt: HistogramVec,
    pub address_changes: IntCounter,
    pub events_conflated: IntCounter,
    pub events_dropped: IntCounter,
    pub queues_dropped: IntCounter,
    pub(crate) udp_receive_buffer: IntGauge,
    pub(crate) udp_send_buffer: IntGauge,
    pub cluster: ClusterMetrics,
    pub redis: RedisMetrics,
    pub log_lag: LagMetrics,
    pub links: LinksMetrics,
    pub link_beats: LinkBeatMetrics,
}

/// What a node tells of itself as one of its region.
#[derive(Clone)]
pub struct ClusterMetrics {
    pub draining: IntGauge,
    pub away: IntGauge,
    pub failovers: IntCounter,
    pub sessions_shed: IntCounter,
}

impl Metrics {
    /// # Errors
    /// When two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        Self::registered(&Registration::default())
    }

    fn registered(registration: &Registration) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            sessions: registration.gauges("skywave_sessions", "Sessions connected now", "transport")?,
            sessions_opened: registration.counters(
                "skywave_sessions_opened_total",
                "Sessions opened",
                "transport",
            )?,
            sessions_resumed: registration.counters(
                "skywave_sessions_resumed_total",
                "Sessions that went on after a break or on another transport",
                "transport",
            )?,
            sessions_closed: registration.counters(
                "skywave_sessions_closed_total",
                "Transports closed, by close code; `gone` when the peer went by itself, `cut` when the path broke without a word",
                "code",
            )?,
            handshakes_refused: registration.counters(
                "skywave_handshakes_refused_total",
                "Transports that did not become a session",
                "reason",
            )?,
            refusals: registration.counters(
                "skywave_refusals_total",
                "Tokens, resume secrets, origins of pages and API keys that were not accepted, sessions beyond a limit, and \
                 sessions that were not asked for as WebSockets",
                "cause",
            )?,
            quic_retries: registration.counter(
                "skywave_quic_retries_total",
                "QUIC clients that had to prove their address first, because many handshakes were under way",
            )?,
            subscriptions: registration.gauge("skywave_subscriptions", "Subscriptions on this node now")?,
            publications: registration.counter("skywave_publications_total", "Publications accepted")?,
            publications_repeated: registration.counter(
                "skywave_publications_repeated_total",
                "Publishes answered from their idempotency key",
            )?,
            publish_duration: registration.histogram(
                "skywave_publish_duration_seconds",
                "From a publish frame to the broker's answer",
                LATENCY_BUCKETS,
            )?,
            events: registration.counter("skywave_events_total", "Events accepted")?,
            frames_received: registration.counters(
                "skywave_frames_received_total",
                "Frames from clients",
                "transport",
            )?,
            frames_sent: registration.counters("skywave_frames_sent_total", "Frames to clients", "transport")?,
            errors: registration.counters("skywave_errors_total", "Error frames sent, by code", "code")?,
            pings: registration.counters("skywave_pings_total", "Heartbeat pings sent", "transport")?,
            session_rtt: registration.histograms(
                "skywave_session_rtt_seconds",
                "Round-trip times of sessions, a sample per heartbeat",
                &["transport"],
                RTT_BUCKETS,
            )?,
            address_changes: registration.counter(
                "skywave_address_changes_total",
                "WebTransport sessions that went on from another address",
            )?,
            events_conflated: registration.counter(
                "skywave_events_conflated_total",
                "Events replaced by a newer one of their slot before they were sent",
            )?,
            events_dropped: registration
                .counter("skywave_events_dropped_total", "Events dropped for slow clients")?,
            queues_dropped: registration.counter(
                "skywave_queues_dropped_total",
                "Channel queues dropped for slow clients, to be filled from history",
            )?,
            udp_receive_buffer: registration.gauge(
                "skywave_udp_receive_buffer_bytes",
                "What the kernel granted the QUIC socket for receiving",
            )?,
            udp_send_buffer: registration.gauge(
                "skywave_udp_send_buffer_bytes",
                "What the kernel granted the QUIC socket for sending",
            )?,
            cluster: ClusterMetrics {
                draining: registration.gauge("skywave_draining", "1 while the node moves its sessions off")?,
                away: registration.gauge(
                    "skywave_away",
                    "1 while the node cannot serve: its Redis is away, or it is isolated, or was a moment ago",
                )?,
                failovers: registration.counter(
                    "skywave_failovers_total",
                    "Times that the node sent its sessions to another region because it could not serve",
                )?,
                sessions_shed: registration.counter(
                    "skywave_sessions_shed_total",
                    "Sessions asked to move because the node had more than its share",
                )?,
            },
            redis: RedisMetrics::new(registration)?,
            log_lag: LagMetrics::new(registration)?,
            links: LinksMetrics::new(registration)?,
            link_beats: LinkBeatMetrics::new(registration)?,
            registry: registration.registry(),
        };
        Ok(metrics)
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// When the text cannot be written.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::registration::Description;
    use std::collections::BTreeSet;

    const DOCUMENT: &str = include_str!("../docs/metrics.md");

    fn descriptions() -> Vec<Description> {
        let registration = Registration::default();
        Metrics::registered(&registration).unwrap();
        let mut descriptions = registration.descriptions();
        descriptions.sort();
        descriptions
    }

    /// The rows of a table of the document that begins so.
    fn table(head: &str) -> impl Iterator<Item = &'static str> {
        let (_, table) = DOCUMENT.split_once(head).unwrap();
        table.lines().take_while(|line| line.starts_with('|'))
    }

    /// The rows of docs/metrics.md as they have to be.
    fn rows() -> String {
        let row = |Description { name, labels, help }: &Description| {
            let labels = labels.join("`, `");
            let labels = if labels.is_empty() { labels } else { format!("`{labels}`") };
            format!("| `{name}` | {labels} | {help} |\n")
        };
        descriptions().iter().map(row).collect()
    }

    #[test]
    fn every_metric_is_in_the_documentation_as_it_describes_itself() {
        let table: String = table("|---|---|---|\n").map(|line| format!("{line}\n")).collect();
        assert!(table == rows(), "docs/metrics.md has to list:\n{}", rows());
    }

    #[test]
    fn every_label_is_in_the_documentation() {
        let explained: BTreeSet<_> =
            table("| values |\n|---|---|\n").filter_map(|line| line.split('`').nth(1)).collect();
        let descriptions = descriptions();
        let labels = descriptions.iter().flat_map(|one| &one.labels).map(|label| &**label);
        assert_eq!(explained, labels.collect::<BTreeSet<_>>());
    }
}
