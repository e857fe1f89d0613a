//! Everything that the node counts and measures, in Prometheus' format.

use crate::redis::{
    metrics::RedisMetrics,
    registration::{LATENCY_BUCKETS, RTT_BUCKETS, Registration},
};
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

/// The node's metrics; one of each for the whole process.
pub struct Metrics {
    registry: Registry,
    pub sessions: IntGaugeVec,
    pub sessions_opened: IntCounterVec,
    pub sessions_resumed: IntCounterVec,
    pub sessions_closed: IntCounterVec,
    pub handshakes_refused: IntCounterVec,
    pub refusals: IntCounterVec,
    pub quic_retries: IntCounter,
    pub subscriptions: IntGauge,
    pub publications: IntCounter,
    pub publications_repeated: IntCounter,
    pub publish_duration: Histogram,
    pub events: IntCounter,
    pub frames_received: IntCounterVec,
    pub frames_sent: IntCounterVec,
    pub errors: IntCounterVec,
    pub pings: IntCounterVec,
    pub session_rtt: HistogramVec,
    pub address_changes: IntCounter,
    pub events_conflated: IntCounter,
    pub events_dropped: IntCounter,
    pub queues_dropped: IntCounter,
    pub udp_receive_buffer: IntGauge,
    pub udp_send_buffer: IntGauge,
    pub cluster: ClusterMetrics,
    pub redis: RedisMetrics,
    links: LinksMetrics,
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

/// What a node measures of the links to all other regions, by `link`: the other region.
struct LinksMetrics {
    applied: IntCounterVec,
    duplicates: IntCounterVec,
    gaps: IntCounterVec,
    malformed: IntCounterVec,
    repaired: IntCounterVec,
    filled: IntCounterVec,
    events_dropped: IntCounterVec,
    takeovers: IntCounterVec,
    interruptions: IntCounterVec,
    leader: IntGaugeVec,
    backlog: IntGaugeVec,
}

/// What a node measures of the link to one other region, while it leads it.
#[derive(Clone)]
pub struct LinkMetrics {
    pub applied: IntCounter,
    pub duplicates: IntCounter,
    pub gaps: IntCounter,
    pub malformed: IntCounter,
    pub repaired: IntCounter,
    pub filled: IntCounter,
    pub events_dropped: IntCounter,
    pub takeovers: IntCounter,
    pub interruptions: IntCounter,
    pub leader: IntGauge,
    /// In publications.
    pub backlog: IntGauge,
}

/// What beats tell of the links to other regions; all by `link`.
#[derive(Clone)]
pub struct LinkBeatMetrics {
    pub rtt: HistogramVec,
    pub phi: GaugeVec,
    pub up: IntGaugeVec,
    pub refused: IntGaugeVec,
    pub suspicions: IntCounterVec,
    pub recoveries: IntCounterVec,
    pub lag: GaugeVec,
    pub lagging: IntGaugeVec,
    pub lags: IntCounterVec,
}

impl LinkBeatMetrics {
    fn new(registration: &Registration) -> Result<Self, prometheus::Error> {
        Ok(Self {
            rtt: registration.histograms(
                "skywave_link_rtt_seconds",
                "Round-trip times to other regions, a sample per beat; by the node that leads the link",
                &["link"],
                RTT_BUCKETS,
            )?,
            phi: registration.fractions(
                "skywave_link_phi",
                "How suspicious the silence on a link is; from 8 on it is suspected; by the node that leads it",
                "link",
            )?,
            up: registration.gauges(
                "skywave_link_up",
                "1 while beats go both ways, as far as this region knows",
                "link",
            )?,
            refused: registration.gauges(
                "skywave_link_refused",
                "1 while the Redis that this node was given for another region does not say that it is that region's",
                "link",
            )?,
            suspicions: registration.counters(
                "skywave_link_suspicions_total",
                "How often a link came to be suspected; by the node that leads it",
                "link",
            )?,
            recoveries: registration.counters(
                "skywave_link_recoveries_total",
                "How often a suspected link was up again; by the node that leads it",
                "link",
            )?,
            lag: registration.fractions(
                "skywave_link_lag_seconds",
                "For how long publications of another region may have waited to be applied here, by its clock; told by the leader",
                "link",
            )?,
            lagging: registration.gauges(
                "skywave_link_lagging",
                "1 while a link lags further than failover.link_lag, as far as this region knows",
                "link",
            )?,
            lags: registration.counters(
                "skywave_link_lagging_total",
                "How often a link came to lag further than failover.link_lag; by the node that leads it",
                "link",
            )?,
        })
    }
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
                "Tokens, resume secrets, origins of pages and API keys that were not accepted, and sessions beyond a limit",
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
            links: LinksMetrics::new(registration)?,
            link_beats: LinkBeatMetrics::new(registration)?,
            registry: registration.registry(),
        };
        Ok(metrics)
    }

    /// What is measured of the link to another region.
    pub fn link(&self, region: &str) -> LinkMetrics {
        let links = &self.links;
        let labels = &[region];
        LinkMetrics {
            applied: links.applied.with_label_values(labels),
            duplicates: links.duplicates.with_label_values(labels),
            gaps: links.gaps.with_label_values(labels),
            malformed: links.malformed.with_label_values(labels),
            repaired: links.repaired.with_label_values(labels),
            filled: links.filled.with_label_values(labels),
            events_dropped: links.events_dropped.with_label_values(labels),
            takeovers: links.takeovers.with_label_values(labels),
            interruptions: links.interruptions.with_label_values(labels),
            leader: links.leader.with_label_values(labels),
            backlog: links.backlog.with_label_values(labels),
        }
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

impl LinksMetrics {
    fn new(registration: &Registration) -> Result<Self, prometheus::Error> {
        let counters = |name, help| registration.counters(name, help, "link");
        Ok(Self {
            applied: counters(
                "skywave_link_applied_total",
                "Publications of another region that were applied here",
            )?,
            duplicates: counters(
                "skywave_link_duplicates_total",
                "Publications of another region that were here already",
            )?,
            gaps: counters(
                "skywave_link_gaps_total",
                "Publications of another region before which others are missing for good",
            )?,
            malformed: counters(
                "skywave_link_malformed_total",
                "Entries of another region that were passed over because they hold no publication",
            )?,
            repaired: counters(
                "skywave_link_repaired_total",
                "Publications of another region that its log had lost and its histories still held",
            )?,
            filled: counters(
                "skywave_link_filled_total",
                "Partitions of another region of which nothing was known here and that were filled in",
            )?,
            events_dropped: counters(
                "skywave_link_events_dropped_total",
                "Events of another region that were dropped because too many waited",
            )?,
            takeovers: counters(
                "skywave_link_takeovers_total",
                "How often this node began to lead the link",
            )?,
            interruptions: counters(
                "skywave_link_interruptions_total",
                "How often a link that this node leads had to begin anew; why stands in the node's log",
            )?,
            leader: registration.gauges("skywave_link_leader", "1 while this node leads the link", "link")?,
            backlog: registration.gauges(
                "skywave_link_backlog_entries",
                "Publications of another region that wait to be applied here; told by the leader",
                "link",
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::registration::Description;

    /// The rows of docs/metrics.md as they have to be.
    fn rows() -> String {
        let registration = Registration::default();
        Metrics::registered(&registration).unwrap();
        let mut descriptions = registration.descriptions();
        descriptions.sort();
        let row = |Description { name, labels, help }: &Description| {
            let labels = labels.join("`, `");
            let labels = if labels.is_empty() { labels } else { format!("`{labels}`") };
            format!("| `{name}` | {labels} | {help} |\n")
        };
        descriptions.iter().map(row).collect()
    }

    #[test]
    fn every_metric_is_in_the_documentation_as_it_describes_itself() {
        let text = include_str!("../docs/metrics.md");
        let (_, table) = text.split_once("|---|---|---|\n").unwrap();
        let table: String =
            table.lines().take_while(|line| line.starts_with('|')).map(|line| format!("{line}\n")).collect();
        assert!(table == rows(), "docs/metrics.md has to list:\n{}", rows());
    }
}
