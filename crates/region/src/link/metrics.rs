//! What a node measures of how far other regions are.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec};
use skywave_redis::registration::{RTT_BUCKETS, Registration};

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
    /// # Errors
    /// See [`Registration`].
    pub fn new(registration: &Registration) -> Result<Self, prometheus::Error> {
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
