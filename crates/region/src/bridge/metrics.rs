//! What a node measures of the bridges from other regions.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use skywave_redis::registration::Registration;

/// What a node measures of the links to all other regions, by `link`: the other region.
#[derive(Clone)]
pub struct LinksMetrics {
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
    pub(crate) applied: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub gaps: IntCounter,
    pub malformed: IntCounter,
    pub repaired: IntCounter,
    pub filled: IntCounter,
    pub events_dropped: IntCounter,
    pub(crate) takeovers: IntCounter,
    pub interruptions: IntCounter,
    pub leader: IntGauge,
    /// In publications.
    pub backlog: IntGauge,
}

impl LinksMetrics {
    /// # Errors
    /// See [`Registration`].
    pub fn new(registration: &Registration) -> Result<Self, prometheus::Error> {
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

    /// Of one region.
    pub fn of(&self, region: &str) -> LinkMetrics {
        let labels = &[region];
        LinkMetrics {
            applied: self.applied.with_label_values(labels),
            duplicates: self.duplicates.with_label_values(labels),
            gaps: self.gaps.with_label_values(labels),
            malformed: self.malformed.with_label_values(labels),
            repaired: self.repaired.with_label_values(labels),
            filled: self.filled.with_label_values(labels),
            events_dropped: self.events_dropped.with_label_values(labels),
            takeovers: self.takeovers.with_label_values(labels),
            interruptions: self.interruptions.with_label_values(labels),
            leader: self.leader.with_label_values(labels),
            backlog: self.backlog.with_label_values(labels),
        }
    }
}
