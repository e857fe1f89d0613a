//! The heartbeat's state machine: when to ping, when to ask again, when to give the peer up.

use super::{
    Action, Activity, BACKGROUND_MAX, HeartbeatConfig, IDLE_MAX, IDLE_PATIENCE, PathKind, Schedule, after,
    idle::IdleMemory,
    loss::{LossHistory, ProbePlan},
    millis,
    rtt::RttEstimator,
};
use std::time::{Duration, Instant};

/// A poll this much after its time means that this side stood still: silence then proves nothing.
const LATE_POLL: Duration = Duration::from_secs(1);
/// How soon a session that someone looks at is pinged for the first times.
const FIRST_BEATS_MS: u32 = 1_000;
/// The first ping measures the path's round-trip time, the second tells the peer what follows from it.
const FIRST_BEATS: u32 = 2;
/// The most quick pings, as long as the peer was told more patience than a session that someone looks at should need.
/// What was measured first is often the time that the peer took to begin.
const MOST_FIRST_BEATS: u32 = 30;
const TCP_MIN_RTO: Duration = Duration::from_millis(200);
/// On TCP an answer this much slower than the fastest ones waited for a retransmission.
const LATE_ANSWER_US: u32 = 150_000;
/// One long outage says no more about a path's loss than this many lost pings.
const MAX_LOSSES_PER_BEAT: u8 = 8;

/// The configuration in milliseconds, small enough to have one in each session.
#[derive(Clone, Copy, Debug)]
struct Limits {
    min_ms: u32,
    max_ms: u32,
    foreground_max_ms: u32,
    udp_start_ms: u32,
    tcp_start_ms: u32,
}

/// The pings of one beat that are not answered yet.
#[derive(Clone, Copy, Debug)]
struct Beat {
    plan: ProbePlan,
    sent: u8,
    /// Something else than an answer was received since the first ping: the peer lives.
    heard: bool,
    /// How long nothing had passed in either direction when the first ping was sent; zero where that is not known.
    pause_ms: u32,
    first_at: Instant,
    last_at: Instant,
}

impl Beat {
    /// When the last ping has been waited for long enough.
    fn next_at(&self) -> Instant {
        after(self.last_at, self.plan.gap_ms(self.sent.saturating_sub(1)))
    }
}

/// The adaptive heartbeat of one session or link, held by the side that pings.
///
/// A beat is due when for one interval nothing was received, or nothing was sent. It is one ping on TCP, and on UDP
/// up to twenty, one after the other while no answer comes. All arithmetic saturates, and no order of calls and no
/// clock makes it panic. A clock that runs backward is taken to have stood still.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    limits: Limits,
    path: PathKind,
    activity: Activity,
    rtt: RttEstimator,
    /// The lower envelope of the answers' round trips.
    fastest_us: u32,
    losses: LossHistory,
    idle: IdleMemory,
    last_received: Instant,
    last_sent: Instant,
    /// What the peer was told last, and may hold us to.
    told_interval_ms: u32,
    told_timeout_ms: u32,
    /// The interval that we keep to: what was told, or less.
    interval_ms: u32,
    seq: u32,
    beat: Option<Beat>,
}

impl Heartbeat {
    /// Begins when the session does: `now` is when the peer is told [`Heartbeat::schedule`] for the first time.
    #[must_use]
    pub fn new(config: &HeartbeatConfig, path: PathKind, activity: Activity, now: Instant) -> Self {
        let limits = Limits::new(config);
        let mut heartbeat = Self {
            limits,
            path,
            activity,
            rtt: RttEstimator::default(),
            fastest_us: u32::MAX,
            losses: LossHistory::new(path),
            idle: IdleMemory::new(limits.start_ms(path)),
            last_received: now,
            last_sent: now,
            told_interval_ms: 0,
            told_timeout_ms: 0,
            interval_ms: 0,
            seq: 0,
            beat: None,
        };
        heartbeat.plan();
        heartbeat
    }

    /// Anything came from the peer: it lives, and no ping is needed for it.
    pub fn received(&mut self, now: Instant) {
        self.follow_clock(now);
        self.last_received = now;
        if let Some(beat) = &mut self.beat {
            beat.heard = true;
        }
    }

    /// A transport that had been full took more, at a time that may lie behind. The peer lives and reads, though the
    /// ping may wait behind much else.
    pub fn taken(&mut self, at: Instant) {
        if at <= self.last_received {
            return;
        }
        self.last_received = at;
        if let Some(beat) = self.beat.as_mut().filter(|beat| beat.first_at <= at) {
            beat.heard = true;
        }
    }

    /// Something was sent that the transport delivers reliably, at a time that may lie behind. The peer hears from us,
    /// and no ping is needed for that.
    pub fn sent(&mut self, at: Instant) {
        // A busy session would never be pinged, and its peer would keep a time-out that notices a silent node too late.
        // So where someone looks, beats wait for silence only once the peer knows better.
        if !self.is_new() && !self.is_slow() {
            self.last_sent = self.last_sent.max(at);
        }
    }

    /// A round trip that the transport measured itself (QUIC). Call once per measurement.
    pub fn rtt_sample(&mut self, rtt: Duration) {
        self.rtt.sample(rtt);
    }

    /// The answer to a ping: the round trip, if it answers one of the beat that is open. An unknown or late number
    /// counts as received and is ignored otherwise. Each probe has its own number, so there is no doubt which one was
    /// answered (Karn's problem). Only the send times of the first and the last probe are kept; answers to others give
    /// no sample.
    pub fn pong(&mut self, seq: u32, now: Instant) -> Option<Duration> {
        let beat = self.beat;
        self.received(now);
        let beat = beat?;
        let first_seq = self.seq.saturating_sub(u32::from(beat.sent.saturating_sub(1)));
        if !(first_seq..=self.seq).contains(&seq) {
            return None;
        }
        let lost = u8::try_from(seq - first_seq).unwrap_or(u8::MAX);
        let rtt = match seq {
            _ if seq == self.seq => Some(now.saturating_duration_since(beat.last_at)),
            _ if seq == first_seq => Some(now.saturating_duration_since(beat.first_at)),
            _ => None,
        };
        self.learn(&beat, lost, rtt, now);
        self.beat = None;
        self.last_sent = now;
        self.hasten();
        rtt
    }

    /// The hint changed. A shorter interval holds from now on, a longer one from the next ping.
    pub fn set_activity(&mut self, activity: Activity, now: Instant) {
        self.follow_clock(now);
        self.activity = activity;
        self.hasten();
    }

    /// The peer's address or network changed: what was learned about the old path is forgotten.
    ///
    /// Not so when the change comes after pings that were lost in a row: then a NAT binding expired, and the peer's
    /// own packet opened another one. The path is the same, and the pause before these pings was too long for it.
    pub fn path_changed(&mut self, now: Instant) {
        self.follow_clock(now);
        match &mut self.beat {
            Some(beat) if beat.plan.is_suspicious(beat.sent.saturating_sub(1)) => {
                self.idle.failed(beat.pause_ms, now);
                beat.pause_ms = 0;
            }
            _ => self.idle = IdleMemory::new(self.limits.start_ms(self.path)),
        }
        self.rtt = RttEstimator::default();
        self.fastest_us = u32::MAX;
        self.losses = LossHistory::new(self.path);
        self.hasten();
    }

    /// What the peer is told in `connected` and in each `ping`.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule { interval: duration(self.told_interval_ms), timeout: duration(self.told_timeout_ms) }
    }

    /// The peer gives the connection up by itself when nothing has come for so long: pings leave a quarter of it for
    /// those that are lost. Before the first [`Heartbeat::schedule`] is told.
    pub fn respect_idle_timeout(&mut self, timeout: Duration) {
        let longest_ms = millis(timeout / 4 * 3).max(self.limits.min_ms);
        self.limits.max_ms = self.limits.max_ms.min(longest_ms);
        self.plan();
    }

    /// Begins with the round trip that the transport measured in its handshake. Before the first
    /// [`Heartbeat::schedule`] is told, which then is that of a path about which something is known.
    pub fn begin_with_rtt(&mut self, rtt: Duration) {
        self.rtt.sample(rtt);
        self.plan();
    }

    /// The round-trip estimate, for metrics.
    #[must_use]
    pub fn rtt(&self) -> &RttEstimator {
        &self.rtt
    }

    /// What this path taught about its idle timers, including a beat that failed just now. For a session that was
    /// cut though its client lived: the client came back.
    #[must_use]
    pub fn memory(&self, now: Instant) -> IdleMemory {
        let mut idle = self.idle;
        if let Some(beat) = &self.beat
            && !beat.heard
            && now.saturating_duration_since(beat.first_at) >= duration(beat.plan.timeout_ms() / 2)
        {
            idle.failed(beat.pause_ms, now);
        }
        idle
    }

    /// The same for a connection that was cut without a word: by a reset, an end or a time-out that was neither the
    /// peer's nor ours. The path does not survive as long a silence as it had just then. Whoever stands between counts
    /// each direction by itself (nginx, for example, what comes from the node), so the longer silence counts.
    #[must_use]
    pub fn memory_of_cut(&self, now: Instant) -> IdleMemory {
        let mut idle = self.idle;
        let quiet_since = self.last_received.min(self.last_sent);
        let pause_ms = match &self.beat {
            Some(beat) if !beat.heard => beat.pause_ms,
            _ => millis(now.saturating_duration_since(quiet_since)),
        };
        idle.failed(pause_ms, now);
        idle
    }

    /// Goes on from what an earlier session learned on the same path. Before the first [`Heartbeat::schedule`] is
    /// told.
    pub fn remember(&mut self, memory: IdleMemory) {
        self.idle = memory;
        self.plan();
    }

    /// What to do now. Call again at the time it gives, and after every other call.
    pub fn poll(&mut self, now: Instant) -> Action {
        self.follow_clock(now);
        let Some(beat) = &self.beat else { return self.poll_quiet(now) };
        // What is in the stream arrives, as the peer lives: asking again would add nothing. The answer may still come.
        if beat.heard && self.path == PathKind::Tcp {
            return self.poll_quiet(now);
        }
        let next_at = beat.next_at();
        if now < next_at {
            return Action::Wait(next_at);
        }
        if now.saturating_duration_since(next_at) > LATE_POLL {
            return self.begin_beat(0, now);
        }
        if beat.sent < beat.plan.probes {
            return self.probe(now);
        }
        if !beat.heard {
            return Action::Dead;
        }
        // The peer lives and answers no ping, or we lost all answers: the next beat will tell.
        self.beat = None;
        self.last_sent = now;
        self.poll_quiet(now)
    }

    fn poll_quiet(&mut self, now: Instant) -> Action {
        let begins = self.is_new() || (self.is_slow() && self.seq < MOST_FIRST_BEATS);
        let first_ms = if begins { FIRST_BEATS_MS } else { u32::MAX };
        let interval_ms = self.interval_ms.min(first_ms);
        let due = after(self.last_received.min(self.last_sent), interval_ms);
        if now < due {
            return Action::Wait(due);
        }
        // What passes in either direction keeps the path open.
        let pause = now.saturating_duration_since(self.last_received.max(self.last_sent));
        self.begin_beat(millis(pause), now)
    }

    /// Whether the peer is still to be told what its path needs, and someone looks.
    fn is_new(&self) -> bool {
        self.seq < FIRST_BEATS && self.activity == Activity::Foreground
    }

    /// Whether someone looks, and the peer was told to wait for longer than that asks for.
    fn is_slow(&self) -> bool {
        let told_ms = self.told_interval_ms.saturating_add(self.told_timeout_ms);
        self.activity == Activity::Foreground && told_ms > self.bounds_ms().1
    }

    /// The schedule holds for the whole beat: its end is known only by the answer to one of its pings, which told
    /// the peer the same.
    fn begin_beat(&mut self, pause_ms: u32, now: Instant) -> Action {
        let plan = self.plan();
        self.beat = Some(Beat { plan, sent: 0, heard: false, pause_ms, first_at: now, last_at: now });
        self.probe(now)
    }

    fn probe(&mut self, now: Instant) -> Action {
        self.seq = self.seq.saturating_add(1);
        if let Some(beat) = &mut self.beat {
            beat.last_at = now;
            beat.sent = beat.sent.saturating_add(1);
        }
        if self.path == PathKind::Tcp {
            self.last_sent = now;
        }
        Action::Ping { seq: self.seq }
    }

    /// Decides what the peer is told from here on.
    fn plan(&mut self) -> ProbePlan {
        let (interval_ms, plan) = self.planned();
        self.told_interval_ms = interval_ms;
        self.interval_ms = interval_ms;
        self.told_timeout_ms = plan.timeout_ms();
        plan
    }

    /// Shortens the interval if it should be shorter; to lengthen it, the peer has to be told first.
    fn hasten(&mut self) {
        self.interval_ms = self.told_interval_ms.min(self.planned().0);
    }

    /// The interval: what the path survives, and no longer than the session's activity allows. It is shorter where the
    /// time-out would not fit into the activity's patience, but at least half.
    fn planned(&self) -> (u32, ProbePlan) {
        let plan = self.losses.probe_plan(self.path, millis(self.retransmission_timeout()));
        let (cap_ms, patience_ms) = self.bounds_ms();
        let patient_ms = patience_ms.saturating_sub(plan.timeout_ms()).clamp(cap_ms / 2, cap_ms);
        let interval_ms = patient_ms.min(self.idle.trial_ms);
        (interval_ms.clamp(self.limits.min_ms, self.limits.max_ms), plan)
    }

    /// Ours between probes, or on TCP the one of the peer's and our TCP stacks: Linux computes it as SRTT +
    /// max(200 ms, 4 · RTTVAR).
    fn retransmission_timeout(&self) -> Duration {
        let rto = self.rtt.rto();
        match (self.path, self.rtt.srtt()) {
            (PathKind::Tcp, Some(srtt)) => rto.max(srtt + TCP_MIN_RTO),
            _ => rto,
        }
    }

    /// The longest interval, and the longest time for which a death may go unnoticed.
    fn bounds_ms(&self) -> (u32, u32) {
        let foreground_ms = self.limits.foreground_max_ms;
        let steady_udp = self.path == PathKind::Udp && !self.is_shaky();
        match self.activity {
            Activity::Foreground => (foreground_ms, foreground_ms.saturating_add(foreground_ms / 10)),
            Activity::Background if steady_udp => (millis(BACKGROUND_MAX), millis(IDLE_PATIENCE)),
            Activity::Idle | Activity::Background => (millis(IDLE_MAX), millis(IDLE_PATIENCE)),
            Activity::Saver => (self.limits.max_ms, u32::MAX),
        }
    }

    /// How far the pauses may grow: a shaky path is not stretched.
    fn longest_pause_ms(&self) -> u32 {
        let shaky_max_ms = if self.is_shaky() { millis(IDLE_MAX) } else { u32::MAX };
        self.bounds_ms().0.min(shaky_max_ms).min(self.limits.max_ms)
    }

    /// Losses lately, or round trips that vary by more than half of their mean.
    fn is_shaky(&self) -> bool {
        let rttvar = self.rtt.rttvar();
        let varies =
            rttvar > Duration::from_millis(25) && self.rtt.srtt().is_some_and(|srtt| rttvar * 2 > srtt);
        varies || self.losses.is_shaky()
    }

    fn learn(&mut self, beat: &Beat, lost: u8, rtt: Option<Duration>, now: Instant) {
        let late = rtt.is_some_and(|rtt| self.is_late(rtt));
        // Nor does TCP measure what it sent again (Karn): the wait for that is in the wait for an answer already.
        if let Some(rtt) = rtt.filter(|_| !late) {
            self.rtt.sample(rtt);
        }
        let suspicious = lost > 0 && beat.plan.is_suspicious(lost);
        // What a pause on trial did to the path says nothing about its loss.
        let counted = if suspicious && self.idle.is_on_trial(beat.pause_ms) { 1 } else { lost };
        (0..counted.min(MAX_LOSSES_PER_BEAT)).for_each(|_| self.losses.record(true));
        if suspicious {
            self.idle.failed(beat.pause_ms, now);
        }
        self.losses.record(late);
        if lost == 0 {
            let longest_ms = self.longest_pause_ms();
            self.idle.survived(beat.pause_ms, longest_ms, now);
        }
    }

    /// Whether an answer on TCP waited for a retransmission, which is at least 200 ms after the first attempt, or for a
    /// peer that was busy.
    fn is_late(&mut self, rtt: Duration) -> bool {
        if self.path == PathKind::Udp {
            return false;
        }
        let rtt_us = micros(rtt);
        // The envelope rises by 3 % per answer, so that a path that got longer is not late for good.
        let risen_us = self.fastest_us.saturating_add(self.fastest_us / 32 + 1);
        self.fastest_us = rtt_us.min(risen_us);
        // Those by which it was measured so far, as the first answers of a page that loads.
        if self.rtt.srtt().is_some_and(|srtt| self.is_beyond_fastest(micros(srtt))) {
            self.rtt = RttEstimator::default();
        }
        self.is_beyond_fastest(rtt_us)
    }

    fn is_beyond_fastest(&self, rtt_us: u32) -> bool {
        rtt_us.saturating_sub(self.fastest_us) > self.fastest_us.max(LATE_ANSWER_US)
    }

    /// Nothing has happened later than now, whatever the clock said before.
    fn follow_clock(&mut self, now: Instant) {
        self.last_received = self.last_received.min(now);
        self.last_sent = self.last_sent.min(now);
        if let Some(beat) = &mut self.beat {
            beat.first_at = beat.first_at.min(now);
            beat.last_at = beat.last_at.min(now);
        }
    }
}

impl Limits {
    fn new(config: &HeartbeatConfig) -> Self {
        let min_ms = millis(config.min).max(1);
        Self {
            min_ms,
            max_ms: millis(config.max).max(min_ms),
            foreground_max_ms: millis(config.foreground_max),
            udp_start_ms: millis(config.udp_start),
            tcp_start_ms: millis(config.tcp_start),
        }
    }

    fn start_ms(&self, path: PathKind) -> u32 {
        let start_ms = match path {
            PathKind::Udp => self.udp_start_ms,
            PathKind::Tcp => self.tcp_start_ms,
        };
        start_ms.clamp(self.min_ms, self.max_ms)
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn duration(millis: u32) -> Duration {
    Duration::from_millis(u64::from(millis))
}
