//! Two regions of two nodes each in a storm: members come, go and move while links, nodes and Redis break. Once it is
//! over, all who are told who is there know exactly that.
//!
//! `SKYWAVE_STORM_SEED` says which storms there are, and `SKYWAVE_STORM_SECONDS` how long each lasts.

mod ear;
mod fleet;

use fleet::{Fleet, Force};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use skywave::presence::Stay;
use skywave_testing::environment;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{Instant, sleep};

/// The first of them only move: they are always there.
const MEMBERS: usize = 14;
const MOVERS: usize = 5;
/// How long after the last blow all must know who is there: leases of nodes and of regions have run out by then.
const SETTLING: Duration = Duration::from_secs(60);
/// What comes late would come within this.
const ECHO: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn who_is_there_is_known_after_storms_and_who_only_moved_is_not_told() {
    weather(Force::Gentle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_there_is_known_after_storms_that_take_it_from_redis() {
    weather(Force::Full).await;
}

/// A session, and where it is.
struct Member {
    name: String,
    attempt: u64,
    /// By which node.
    place: Option<(u64, Stay)>,
}

struct Storm {
    force: Force,
    random: SmallRng,
    fleet: Fleet,
    members: Vec<Member>,
    /// Transports that were left, and end then.
    left: Vec<(Instant, Stay)>,
}

async fn weather(force: Force) {
    let seed = environment::number("SKYWAVE_STORM_SEED").unwrap_or(1);
    let seconds = environment::number("SKYWAVE_STORM_SECONDS").unwrap_or(8);
    println!("storm {seed}");
    let member = |number| Member { name: format!("s{number:02}"), attempt: 0, place: None };
    let mut storm = Storm {
        force,
        random: SmallRng::seed_from_u64(seed),
        fleet: Fleet::start(seed, force).await,
        members: (0..MEMBERS).map(member).collect(),
        left: Vec::new(),
    };
    for number in 0..MOVERS {
        storm.go_somewhere(number);
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut next = Instant::now();
    while Instant::now() < until {
        storm.act();
        if Instant::now() >= next {
            let gone = storm.fleet.blow().await;
            storm.come_back_from(&gone);
            next = Instant::now() + Duration::from_millis(storm.random.random_range(50..1_200));
        }
        let movers = storm.told_who_moves();
        storm.fleet.hear(&movers).await;
        sleep(Duration::from_millis(storm.random.random_range(5..60))).await;
    }
    storm.fleet.calm();
    storm.settle(seed).await;
}

impl Storm {
    /// Those who are always there, in a storm in which nothing may be lost of them.
    fn told_who_moves(&self) -> BTreeSet<String> {
        let movers = self.members.iter().take(MOVERS).map(|member| member.name.clone());
        if self.force == Force::Gentle { movers.collect() } else { BTreeSet::new() }
    }

    fn truth(&self) -> BTreeSet<String> {
        let here = |member: &&Member| member.place.as_ref().is_some_and(|(node, _)| self.fleet.lives(*node));
        self.members.iter().filter(here).map(|member| member.name.clone()).collect()
    }

    /// Comes by some node, and leaves the transport before a little later.
    fn go_somewhere(&mut self, number: usize) {
        let node = self.fleet.any_node();
        let member = &mut self.members[number];
        member.attempt += 2;
        let stay = self.fleet.arrive(node, &member.name, member.attempt);
        self.fleet.tell(format!("{} to {node}", member.name));
        if let Some((_, stay)) = member.place.replace((node, stay)) {
            let overlap = Duration::from_millis(self.random.random_range(0..400));
            self.left.push((Instant::now() + overlap, stay));
        }
    }

    /// Members do what they do.
    fn act(&mut self) {
        let now = Instant::now();
        self.left.retain(|(until, _)| *until > now);
        if self.random.random_bool(0.5) {
            return;
        }
        let number = self.random.random_range(0..MEMBERS);
        if number < MOVERS {
            return self.go_somewhere(number);
        }
        match self.random.random_range(0..10) {
            0..4 => self.go_somewhere(number),
            4 | 5 => {
                if let Some((_, stay)) = self.members[number].place.take() {
                    self.fleet.tell(format!("{} leaves", self.members[number].name));
                    stay.leave();
                }
            }
            6 => {
                self.fleet.tell(format!("{} ends", self.members[number].name));
                self.members[number].place = None;
            }
            7 => {
                // A transport that was long under way.
                let node = self.fleet.any_node();
                let member = &self.members[number];
                if member.place.is_some() && member.attempt > 1 {
                    let late = self.fleet.arrive(node, &member.name, member.attempt - 1);
                    self.fleet.tell(format!("{} late to {node}", member.name));
                    self.left.push((now + Duration::from_millis(50), late));
                }
            }
            _ => {}
        }
    }

    /// Who was on these nodes goes on elsewhere, or is gone.
    fn come_back_from(&mut self, gone: &[u64]) {
        for number in 0..MEMBERS {
            let was_there = self.members[number].place.as_ref().is_some_and(|(node, _)| gone.contains(node));
            if !was_there {
                continue;
            }
            if number < MOVERS || self.random.random_bool(0.6) {
                self.go_somewhere(number);
            } else {
                self.fleet.tell(format!("{} is gone with its node", self.members[number].name));
                self.members[number].place = None;
            }
        }
    }

    async fn settle(&mut self, seed: u64) {
        let (begun, movers) = (Instant::now(), self.told_who_moves());
        let mut right_since = None;
        loop {
            self.left.clear();
            self.fleet.hear(&movers).await;
            let wrong = self.fleet.wrong(&self.truth()).await;
            if wrong.is_none() {
                let since = *right_since.get_or_insert_with(Instant::now);
                if since.elapsed() > ECHO {
                    return;
                }
            } else {
                right_since = None;
            }
            if begun.elapsed() > SETTLING {
                panic!("storm {seed}: {wrong:?}\n{}", self.fleet.told.join("\n"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}
