//! What a run yields, and what many of them amount to.

use crate::{
    adaptive, fixed,
    network::{HOUR, NEVER, Network, Path, Random, Transport},
};
use skywave_protocol::heartbeat::Activity;

pub const LIVE_SESSIONS: u64 = 100;
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Pings,
    NoticedP50,
    NoticedP99,
    FalseAlarms,
}

impl Measure {
    pub const ALL: [Self; 4] = [Self::Pings, Self::NoticedP50, Self::NoticedP99, Self::FalseAlarms];
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
    /// The same times of death for each policy, and for each its own luck in the network: one run of losses must not
    /// count in several cells.
    pub fn measure(policy: Policy, path: Path, transport: Transport, stream: u64) -> Self {
        let (mut pings, mut false_alarms) = (0, 0);
        for index in 0..LIVE_SESSIONS {
            let mut network = Network::new(path, transport, seed(stream, index), NEVER);
            let outcome = policy.run(&mut network, LIVE_HOURS_EACH * HOUR);
            pings += outcome.pings;
            false_alarms += outcome.false_alarms;
        }
        let mut noticed: Vec<u64> =
            (0..DEATHS).map(|index| notice_one(policy, path, transport, stream, index)).collect();
        noticed.sort_unstable();
        let percentile = |percent: usize| noticed[noticed.len() * percent / 100];
        Self { pings, noticed_p50: percentile(50), noticed_p99: percentile(99), false_alarms }
    }

    pub fn pings_per_hour(self) -> u64 {
        (self.pings + LIVE_HOURS / 2) / LIVE_HOURS
    }

    /// The measures in which this is worse than a rival. A difference in false alarms of less than three standard
    /// errors (both counts being Poisson distributed) is chance.
    pub fn worse_than(self, rival: Self) -> Vec<Measure> {
        let more_alarms = self.false_alarms.saturating_sub(rival.false_alarms);
        let worse = |measure: &Measure| match measure {
            Measure::Pings => self.pings > rival.pings,
            Measure::NoticedP50 => self.noticed_p50 > rival.noticed_p50,
            Measure::NoticedP99 => self.noticed_p99 > rival.noticed_p99,
            Measure::FalseAlarms => more_alarms.pow(2) > 9 * (self.false_alarms + rival.false_alarms),
        };
        Measure::ALL.into_iter().filter(worse).collect()
    }

    pub fn text(self, measure: Measure) -> String {
        match measure {
            Measure::Pings => self.pings_per_hour().to_string(),
            Measure::NoticedP50 => tenths_of_seconds(self.noticed_p50),
            Measure::NoticedP99 => tenths_of_seconds(self.noticed_p99),
            Measure::FalseAlarms => (self.false_alarms * 1_000 / LIVE_HOURS).to_string(),
        }
    }
}

/// In integers, so that every machine rounds alike.
fn tenths_of_seconds(micros: u64) -> String {
    let tenths = (micros + 50_000) / 100_000;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

fn notice_one(policy: Policy, path: Path, transport: Transport, stream: u64, index: u64) -> u64 {
    let death = Random::new(index).below(HOUR);
    let mut network = Network::new(path, transport, seed(stream, LIVE_SESSIONS + index), death);
    policy.run(&mut network, death + HOUR).noticed_after.expect("every death is noticed within the hour")
}

fn seed(stream: u64, index: u64) -> u64 {
    (stream << 32) + index
}
