//! Two ends of a link between regions, joined over simulated paths in virtual time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a simulation that breaks is a failed test")]

use skywave_protocol::heartbeat::{Direction, LinkAction, LinkHeartbeat};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// One direction of a TCP connection: in order, and late where something was lost.
#[derive(Clone, Copy)]
struct Path {
    name: &'static str,
    delay: Duration,
    /// Added to it, uniformly.
    jitter: Duration,
    /// So many segments in 1,000 are lost, and repeated after the usual time-out, doubled each time.
    loss_per_mille: u64,
}

const STEADY: Path = Path { name: "steady", delay: ms(80), jitter: ms(4), loss_per_mille: 0 };
const USUAL: Path = Path { name: "usual", loss_per_mille: 1, ..STEADY };
const JITTERY: Path = Path { name: "jittery", jitter: ms(900), loss_per_mille: 5, ..STEADY };
const LOSSY: Path = Path { name: "lossy", jitter: ms(20), loss_per_mille: 50, ..STEADY };

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % bound.max(1)
    }

    /// When what is sent now arrives.
    fn travel(&mut self, path: &Path) -> Duration {
        let jitter = u64::try_from(path.jitter.as_micros()).unwrap();
        let mut time = path.delay + Duration::from_micros(self.below(jitter));
        let mut repetition = path.delay * 2 + ms(200);
        while self.below(1_000) < path.loss_per_mille {
            time += repetition;
            repetition *= 2;
        }
        time
    }
}

#[derive(Clone, Copy)]
enum Happening {
    Wake,
    Beat { interval: Duration, sent: Duration },
    Acknowledgement { interval: Duration, sent: Duration },
}

/// A link's two ends, 0 and 1, and what happens to them next.
struct Link {
    path: Path,
    random: Random,
    start: Instant,
    now: Duration,
    ends: [LinkHeartbeat; 2],
    /// By time and a number that tells those of one time apart: whom it happens to, and what.
    agenda: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, (usize, Happening)>,
    count: u64,
    /// Each end's next step; others are out of date.
    wake: [u64; 2],
    /// The connection of each end is broken: neither its beats nor their acknowledgements pass.
    cut: [bool; 2],
    /// The last arrival on each connection, each way: it is a stream, nothing overtakes.
    arrived: [[Duration; 2]; 2],
    beats: u64,
    /// How often each end came to suspect a direction.
    suspicions: [u64; 2],
    was: [[Direction; 2]; 2],
}

impl Link {
    fn new(path: Path, seed: u64) -> Self {
        let start = Instant::now();
        let mut link = Self {
            path,
            random: Random(seed),
            start,
            now: Duration::ZERO,
            ends: [LinkHeartbeat::new(start), LinkHeartbeat::new(start)],
            agenda: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            count: 0,
            wake: [1, 2],
            cut: [false; 2],
            arrived: [[Duration::ZERO; 2]; 2],
            beats: 0,
            suspicions: [0; 2],
            was: [[Direction::Unknown; 2]; 2],
        };
        link.plan(Duration::ZERO, 0, Happening::Wake);
        link.plan(Duration::ZERO, 1, Happening::Wake);
        link
    }

    fn plan(&mut self, at: Duration, end: usize, happening: Happening) {
        self.count += 1;
        self.agenda.push(Reverse((at, self.count)));
        self.happenings.insert(self.count, (end, happening));
    }

    /// Something travels on the connection that `owner` opened, towards the other end or back.
    fn travel(&mut self, owner: usize, back: bool, happening: Happening) {
        let towards = if back { owner } else { 1 - owner };
        let last = self.arrived[owner][usize::from(back)];
        let arrival = (self.now + self.random.travel(&self.path)).max(last);
        self.arrived[owner][usize::from(back)] = arrival;
        if !self.cut[owner] {
            self.plan(arrival, towards, happening);
        }
    }

    fn step(&mut self, end: usize, happening: Happening) {
        let now = self.start + self.now;
        match happening {
            Happening::Wake => {}
            Happening::Beat { .. } | Happening::Acknowledgement { .. } if self.is_stopped(end, happening) => {
                return;
            }
            Happening::Beat { interval, sent } => {
                self.ends[end].heard(interval, now);
                self.travel(1 - end, true, Happening::Acknowledgement { interval, sent });
            }
            Happening::Acknowledgement { interval, sent } => {
                self.ends[end].acknowledged(interval, self.now - sent, now);
            }
        }
        loop {
            match self.ends[end].poll(now) {
                LinkAction::Send { interval, .. } => {
                    self.beats += 1;
                    self.travel(end, false, Happening::Beat { interval, sent: self.now });
                }
                LinkAction::Wait(until) => {
                    let until = until.saturating_duration_since(self.start);
                    self.happenings.remove(&self.wake[end]);
                    self.plan(until.max(self.now + Duration::from_micros(1)), end, Happening::Wake);
                    self.wake[end] = self.count;
                    break;
                }
            }
        }
        let is = [self.ends[end].outbound(now), self.ends[end].inbound(now)];
        for (is, was) in is.into_iter().zip(self.was[end]) {
            self.suspicions[end] += u64::from(is == Direction::Suspected && was != Direction::Suspected);
        }
        self.was[end] = is;
    }

    /// Whether it was under way on a connection that has been cut since.
    fn is_stopped(&self, end: usize, happening: Happening) -> bool {
        match happening {
            Happening::Wake => false,
            Happening::Beat { .. } => self.cut[1 - end],
            Happening::Acknowledgement { .. } => self.cut[end],
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(Reverse((at, number))) = self.agenda.peek().copied() {
            if at > until {
                break;
            }
            self.agenda.pop();
            self.now = at;
            if let Some((end, happening)) = self.happenings.remove(&number) {
                self.step(end, happening);
            }
        }
        self.now = until;
    }

    /// Runs until an end sees its directions like this; how long it took.
    fn until(&mut self, end: usize, outbound: Direction, inbound: Direction) -> Duration {
        let begin = self.now;
        while self.was[end] != [outbound, inbound] {
            self.run(ms(1));
            let waited = self.now - begin;
            assert!(waited < 30 * SECOND, "{}: end {end} sees {:?}", self.path.name, self.was[end]);
        }
        self.now - begin
    }
}

/// A link that has run for a while.
fn running(path: Path, seed: u64) -> Link {
    let mut link = Link::new(path, seed);
    link.run(300 * SECOND + ms(137) * u32::try_from(seed).unwrap());
    link
}

#[test]
fn a_steady_link_is_never_suspected_and_beats_rarely() {
    let mut link = running(STEADY, 1);
    let beats = link.beats;
    link.run(30 * HOUR);
    assert_eq!(link.suspicions, [0, 0]);
    let per_end_and_hour = (link.beats - beats) / 60;
    assert!((1_700..=1_900).contains(&per_end_and_hour), "one every two seconds: {per_end_and_hour}");
}

/// A segment that is lost once comes 360 ms late, one that is lost twice more than a second.
#[test]
fn usual_loss_is_not_mistaken_for_a_cut() {
    let mut link = running(USUAL, 2);
    link.run(30 * HOUR);
    assert!(link.suspicions.iter().sum::<u64>() <= 1, "in 60 hours: {:?}", link.suspicions);
}

#[test]
fn a_shaky_link_beats_often_and_is_seldom_suspected() {
    for (path, longest, most) in [(JITTERY, ms(600), 0), (LOSSY, ms(1_000), 10)] {
        let mut link = running(path, 3);
        let (beats, suspicions) = (link.beats, link.suspicions);
        link.run(HOUR);
        let interval = HOUR * 2 / u32::try_from(link.beats - beats).unwrap();
        assert!(interval < longest, "{}: {interval:?}", path.name);
        let alarms = link.suspicions[0] + link.suspicions[1] - suspicions[0] - suspicions[1];
        assert!(alarms <= most, "{}: {alarms} false alarms in two hours", path.name);
    }
}

#[test]
fn a_cut_link_is_suspected_within_three_seconds_on_both_sides_and_up_soon_after_it_heals() {
    for path in [STEADY, USUAL, LOSSY] {
        for seed in 0..50 {
            let mut link = running(path, seed);
            link.until(0, Direction::Up, Direction::Up);
            link.until(1, Direction::Up, Direction::Up);
            link.cut = [true, true];
            let begin = link.now;
            link.until(0, Direction::Suspected, Direction::Suspected);
            link.until(1, Direction::Suspected, Direction::Suspected);
            let took = link.now - begin;
            let bound = if path.loss_per_mille < 10 { 3 * SECOND } else { 5 * SECOND };
            assert!(took <= bound, "{} {seed}: {took:?}", path.name);
            link.cut = [false, false];
            let begin = link.now;
            link.until(0, Direction::Up, Direction::Up);
            link.until(1, Direction::Up, Direction::Up);
            assert!(link.now - begin <= 4 * SECOND, "{} {seed}: {:?}", path.name, link.now - begin);
        }
    }
}

#[test]
fn of_a_one_way_cut_each_side_sees_its_part() {
    let mut link = running(STEADY, 4);
    link.cut = [true, false];
    link.until(0, Direction::Suspected, Direction::Up);
    link.until(1, Direction::Up, Direction::Suspected);
    link.run(60 * SECOND);
    assert_eq!(link.was[0], [Direction::Suspected, Direction::Up]);
    assert_eq!(link.was[1], [Direction::Up, Direction::Suspected]);
}

#[test]
fn an_end_that_stood_still_suspects_nobody() {
    let mut link = running(STEADY, 5);
    // Nothing happens to either end for a minute; then all that waited comes at once.
    link.now += 60 * SECOND;
    let now = link.start + link.now;
    assert!(matches!(link.ends[0].poll(now), LinkAction::Send { .. }));
    assert_eq!(link.ends[0].inbound(now), Direction::Up);
    assert_eq!(link.ends[0].outbound(now), Direction::Up);
}

#[test]
fn a_beat_that_failed_is_followed_by_another_soon() {
    let start = Instant::now();
    let mut end = LinkHeartbeat::new(start);
    let mut now = start;
    for _ in 0..50 {
        let LinkAction::Send { interval, .. } = end.poll(now) else { panic!("a beat is due") };
        end.acknowledged(interval, ms(1), now);
        now += end.interval();
        while let LinkAction::Wait(until) = end.poll(now) {
            assert!(until > now);
            now = until;
        }
        end.failed(now);
        let LinkAction::Wait(until) = end.poll(now) else { panic!("it was just sent") };
        assert!(until <= now + LinkHeartbeat::MIN_INTERVAL, "{:?}", until - now);
        now = until;
    }
}
