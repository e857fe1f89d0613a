//! Makes metrics and registers them: each part of a node brings its own.

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};
use std::cell::RefCell;

/// Round-trip times from a LAN to a satellite with a queue, in seconds.
pub const RTT_BUCKETS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0];
/// From a call in memory to a slow broker, in seconds.
pub const LATENCY_BUCKETS: &[f64] =
    &[0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// What a metric says of itself.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Description {
    pub name: String,
    pub labels: Vec<String>,
    pub help: String,
}

/// Where metrics are registered. Each of its functions fails when a name or a label cannot be, or is taken.
#[derive(Default)]
pub struct Registration {
    registry: Registry,
    descriptions: RefCell<Vec<Description>>,
}

impl Registration {
    /// Whoever has it can read all that is registered.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Of all that was registered.
    pub fn descriptions(self) -> Vec<Description> {
        self.descriptions.into_inner()
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        let describe = |description: &prometheus::core::Desc| Description {
            name: description.fq_name.clone(),
            labels: description.variable_labels.clone(),
            help: description.help.clone(),
        };
        self.descriptions.borrow_mut().extend(metric.desc().into_iter().map(describe));
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }

    pub fn counters(&self, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), &[label])?)
    }

    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }

    pub fn gauges(&self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), &[label])?)
    }

    /// Of numbers that are not whole.
    pub fn fractions(&self, name: &str, help: &str, label: &str) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(Opts::new(name, help), &[label])?)
    }

    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options)?)
    }

    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }
}
