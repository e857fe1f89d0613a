//! What a run yields, and what many of them amount to.
use crate::adaptive;
use crate::fixed;
use crate::network::{HOUR, NEVER, Network, Path, Random, Transport};
use skywave_protocol::heartbeat::Activity;

const LIVE_SESSIONS: u64 = 200;
const LIVE_HOURS_EACH: u64 = 10;
const LIVE_HOURS: u64 = LIVE_SESSIONS * LIVE_HOURS_EACH;
const DEATHS: u64 = 1_000;

#[derive(Default)]
pub struct Outcome {
    pub pings: u64,
    /// How often a client that lived was cut, by the node or by its own timer.
    pub false_alarms: u64,
    /// From the client's death until the node gave it up.
    pub noticed_after: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Fixed,
    Adaptive(Activity),
}

impl Policy {
    pub const ALL: [Self; 5] = [
        Self::Fixed,
        Self::Adaptive(Activity::Foreground),
        Self::Adaptive(Activity::Idle),
        Self::Adaptive(Activity::Background),
        Self::Adaptive(Activity::Saver),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed 25 s / 20 s",
            Self::Adaptive(Activity::Foreground) => "foreground",
            Self::Adaptive(Activity::Idle) => "idle",
            Self::Adaptive(Activity::Background) => "background",
            Self::Adaptive(Activity::Saver) => "saver",
        }
    }

    fn run(self, network: &mut Network, horizon: u64) -> Outcome {
        match self {
            Self::Fixed => fixed::run(network, horizon),
            Self::Adaptive(activity) => adaptive::run(activity, network, horizon),
        }
    }
}

/// One line of the table. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub pings: u64,
    pub noticed_p50: u64,
    pub noticed_p99: u64,
    pub false_alarms: u64,
}

impl Summary {
    /// The same seeds, and the same times of death, for each policy.
    pub fn measure(policy: Policy, path: Path, transport: Transport) -> Self {
        let (mut pings, mut false_alarms) = (0, 0);
        for seed in 0..LIVE_SESSIONS {
            let mut network = Network::new(path, transport, seed, NEVER);
            let outcome = policy.run(&mut network, LIVE_HOURS_EACH * HOUR);
            pings += outcome.pings;
            false_alarms += outcome.false_alarms;
        }
        let mut noticed: Vec<u64> =
            (0..DEATHS).map(|seed| notice_one(policy, path, transport, seed)).collect();
        noticed.sort_unstable();
        let percentile = |percent: usize| noticed[noticed.len() * percent / 100];
        Self { pings, noticed_p50: percentile(50), noticed_p99: percentile(99), false_alarms }
    }

    pub fn pings_per_hour(self) -> u64 {
        (self.pings + LIVE_HOURS / 2) / LIVE_HOURS
    }

    /// Tenths per 1,000 hours.
    pub fn false_alarms_tenths(self) -> u64 {
        self.false_alarms * 10_000 / LIVE_HOURS
    }
}

fn notice_one(policy: Policy, path: Path, transport: Transport, seed: u64) -> u64 {
    let seed = seed + LIVE_SESSIONS;
    let death = Random::new(seed).below(HOUR);
    let mut network = Network::new(path, transport, seed, death);
    policy.run(&mut network, death + HOUR).noticed_after.expect("every death is noticed within the hour")
}
