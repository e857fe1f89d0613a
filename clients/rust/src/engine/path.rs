//! The connection in use, as far as its round-trip time goes.

use crate::transport::Control;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

#[derive(Debug, Clone)]
pub(crate) struct Path {
    pub(super) control: Control,
    /// Smoothed time from request to reply in microseconds; 0: none yet.
    reply_time_us: Arc<AtomicU64>,
}

impl Path {
    pub(super) fn new(control: Control) -> Self {
        Self { control, reply_time_us: Arc::default() }
    }

    /// Takes the smoothed time from request to reply.
    pub(super) fn replied(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.reply_time_us.store(micros, Ordering::Relaxed);
    }

    /// The transport's own time, or that from request to reply where it is shorter.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let reply_time = match self.reply_time_us.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        };
        self.control.rtt().into_iter().chain(reply_time).min()
    }
}
