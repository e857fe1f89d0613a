//! The links to the other regions: beats both ways, what their silence means, and what the region's nodes know of it.
//!
//! The node that leads a link beats into the other region's Redis and listens to the other's beats in its own. What it
//! sees it writes into its region's Redis, where every node of the region reads it. Nothing here asks what time it is:
//! intervals are announced, arrivals are timed by one node's own steps.

mod beats;
mod lag;
pub mod metrics;
mod state;

use crate::regions::{Regions, Remote};
use beats::{Beat, Heard, Listener, Outcome};
use futures_util::{StreamExt, stream::FuturesUnordered};
use lag::Lag;
use metrics::LinkBeatMetrics;
use prometheus::IntGaugeVec;
use skywave_protocol::heartbeat::{Direction, LinkAction, LinkHeartbeat};
use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

pub use lag::MeasuredLag;
pub use state::{Condition, LinkState, LinkStates};

/// What is seen is written at least this often; what changed, at once.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// How often each node reads it.
const READ_INTERVAL: Duration = Duration::from_millis(500);
/// Beats that were heard and not dealt with yet.
const MAX_HEARD: usize = 16;
/// Our own Redis is silent for longer than this: the other region's beats could be waiting in it.
const OWN_SILENCE: Duration = Duration::from_millis(250);

/// The links of this node's region.
pub struct Links {
    regions: Arc<Regions>,
    node: Arc<str>,
    metrics: LinkBeatMetrics,
    /// A link that lags further is marked.
    lag_limit: Duration,
    states: watch::Sender<LinkStates>,
}

impl Links {
    /// `node` is named in the beats, for who looks at them; a link that lags further than `lag_limit` is marked.
    pub fn new(regions: Arc<Regions>, node: Arc<str>, metrics: LinkBeatMetrics, lag_limit: Duration) -> Self {
        for remote in &regions.remotes {
            // They begin with zero, so that the first change is seen.
            metrics.lag.with_label_values(&[&*remote.name]);
            for counter in [&metrics.suspicions, &metrics.recoveries, &metrics.lags] {
                counter.with_label_values(&[&*remote.name]);
            }
        }
        let states = watch::Sender::new(LinkStates::unknown(&regions));
        Self { regions, node, metrics, lag_limit, states }
    }

    /// What the region knows of its links, on every node.
    pub fn states(&self) -> watch::Receiver<LinkStates> {
        self.states.subscribe()
    }

    /// Keeps [`Self::states`] up to date for as long as it is polled.
    pub async fn follow(&self) {
        loop {
            let states = LinkStates::read(&self.regions).await;
            for (name, state) in states.iter() {
                let set = |gauge: &IntGaugeVec, is: bool| gauge.with_label_values(&[&**name]).set(is.into());
                set(&self.metrics.up, state.condition() == Condition::Up);
                set(&self.metrics.lagging, state.lagging);
            }
            for remote in &self.regions.remotes {
                let refused = self.metrics.refused.with_label_values(&[&*remote.name]);
                refused.set(remote.stranger().is_some().into());
            }
            self.states.send_if_modified(|known| {
                let changed = *known != states;
                *known = states;
                changed
            });
            tokio::time::sleep(READ_INTERVAL).await;
        }
    }

    /// Leads a link for as long as it is polled. The one node of the region that holds the bridge's lease does, and it
    /// measures the bridge's lag.
    pub async fn lead(&self, remote: &Remote, lag: &MeasuredLag) -> Infallible {
        let (heard, beats) = mpsc::channel(MAX_HEARD);
        let listener = Listener::new(&self.regions.local, &remote.name);
        // What its former leader knew holds until more is known.
        let known = LinkState::read(&self.regions.local, &remote.name).await;
        let leader = Leader::new(self, remote, known, lag);
        tokio::select! {
            biased;
            never = leader.run(beats) => never,
            // While there is one who leads, there is one who wants to hear.
            () = listener.listen(heard) => std::future::pending().await,
        }
    }
}

type UnderWay<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>>;

/// A link while this node leads it.
struct Leader<'a> {
    links: &'a Links,
    remote: &'a Remote,
    lag: Lag,
    heartbeat: LinkHeartbeat,
    /// What was known before this node led, outbound and inbound.
    known: (Direction, Direction),
    /// Since when the other's beats cannot be listened to.
    deaf_since: Option<Instant>,
    /// It has been suspected, and was not up since.
    is_suspected: bool,
    state: LinkState,
    write_at: Instant,
}

impl<'a> Leader<'a> {
    fn new(links: &'a Links, remote: &'a Remote, known: LinkState, lag: &MeasuredLag) -> Self {
        let now = Instant::now();
        Self {
            links,
            remote,
            lag: Lag::new(lag.clone(), links.lag_limit, (known.lag, known.lagging), now),
            known: (known.outbound, known.inbound),
            heartbeat: LinkHeartbeat::new(now.into_std()),
            deaf_since: Some(now),
            is_suspected: known.condition() == Condition::Suspected,
            state: LinkState { leader: Some(links.node.clone()), ..known },
            write_at: now,
        }
    }

    async fn run(mut self, mut heard: mpsc::Receiver<Heard>) -> Infallible {
        let mut under_way = UnderWay::new();
        loop {
            if self.deaf_since.is_some() || self.links.regions.local.commands.away_for() > OWN_SILENCE {
                self.heartbeat.was_deaf(Instant::now().into_std());
            }
            let wake = match self.heartbeat.poll(Instant::now().into_std()) {
                LinkAction::Send { seq, interval } => {
                    let beat = Beat { seq, interval, hears: self.state.inbound == Direction::Up };
                    under_way.push(Box::pin(beat.send(self.links, self.remote)));
                    continue;
                }
                LinkAction::Wait(until) => Instant::from_std(until),
            };
            self.look();
            tokio::select! {
                biased;
                Some(outcome) = under_way.next() => self.sent(outcome),
                Some(said) = heard.recv() => self.heard(said, &mut heard),
                () = sleep_until(wake.min(self.write_at)) => {}
            }
        }
    }

    fn sent(&mut self, outcome: Outcome) {
        let now = Instant::now().into_std();
        match outcome.rtt {
            Some(rtt) => {
                self.links.metrics.rtt.with_label_values(&[&*self.remote.name]).observe(rtt.as_secs_f64());
                self.heartbeat.acknowledged(outcome.interval, rtt, now);
                self.lag.acknowledged(Instant::now());
            }
            None => self.heartbeat.failed(now),
        }
    }

    /// Deals with all that was heard: of beats that come together, the last one counts.
    fn heard(&mut self, first: Heard, more: &mut mpsc::Receiver<Heard>) {
        let now = Instant::now().into_std();
        let mut last = None;
        let mut next = Some(first);
        while let Some(said) = next {
            match said {
                Heard::Beat(beat) => last = Some(beat),
                Heard::Listening => self.deaf_since = None,
                Heard::Deaf => self.deaf_since = self.deaf_since.or(Some(Instant::now())),
            }
            next = more.try_recv().ok();
        }
        if let Some(beat) = last {
            self.heartbeat.heard(beat.interval, now);
            self.state.is_heard = Some(beat.hears);
        }
    }

    /// Judges the link by now, and tells what changed.
    fn look(&mut self) {
        let now = Instant::now();
        let before = (self.state.outbound, self.state.inbound);
        self.state.outbound = self.heartbeat.outbound(now.into_std()).or(self.known.0);
        self.state.inbound = match self.deaf_since {
            Some(since) if now - since > LinkHeartbeat::PATIENCE => Direction::Unknown,
            _ => self.heartbeat.inbound(now.into_std()).or(self.known.1),
        };
        self.state.srtt = self.heartbeat.srtt().or(self.state.srtt);
        let phi = self.heartbeat.phi(now.into_std());
        self.links.metrics.phi.with_label_values(&[&*self.remote.name]).set(phi);
        let changed = before != (self.state.outbound, self.state.inbound);
        if changed {
            self.tell(phi);
        }
        if changed || now >= self.write_at {
            self.look_at_lag(now);
            self.state.write(&self.links.regions.local, &self.remote.name);
            self.write_at = now + WRITE_INTERVAL;
        }
    }

    fn look_at_lag(&mut self, now: Instant) {
        let was_lagging = self.state.lagging;
        self.state.lag = self.lag.now(self.state.outbound, now);
        self.state.lagging = self.lag.is_over(self.state.lag, now);
        let (link, lag) = (&*self.remote.name, self.state.lag);
        self.links.metrics.lag.with_label_values(&[link]).set(lag.as_secs_f64());
        match (was_lagging, self.state.lagging) {
            (false, true) => {
                tracing::warn!(link, ?lag, limit = ?self.links.lag_limit, "the link lags");
                self.links.metrics.lags.with_label_values(&[link]).inc();
            }
            (true, false) => tracing::info!(link, ?lag, "the link lags no more"),
            _ => {}
        }
    }

    /// Logs and counts a change.
    fn tell(&mut self, phi: f64) {
        let link = &*self.remote.name;
        let metrics = &self.links.metrics;
        match self.state.condition() {
            Condition::Suspected => {
                let interval = self.heartbeat.interval();
                tracing::warn!(link, phi, ?interval, "the link is suspected: {}", self.state.in_words());
                if !std::mem::replace(&mut self.is_suspected, true) {
                    metrics.suspicions.with_label_values(&[link]).inc();
                }
            }
            Condition::Up if std::mem::take(&mut self.is_suspected) => {
                tracing::info!(link, srtt = ?self.state.srtt, "the link is up again");
                metrics.recoveries.with_label_values(&[link]).inc();
            }
            Condition::Up => tracing::info!(link, srtt = ?self.state.srtt, "the link is up"),
            Condition::Unknown => tracing::debug!(link, "it is not known whether the link is up"),
        }
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        // Another node leads now, and knows better.
        self.links.metrics.lag.with_label_values(&[&*self.remote.name]).set(0.0);
        if self.links.metrics.phi.remove_label_values(&[&*self.remote.name]).is_err() {
            tracing::debug!(link = &*self.remote.name, "the link was not led for long enough to be judged");
        }
    }
}
