//! A link against a model that is obviously right: all that the other region accepted, in its order, each once.

use super::*;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// The other region's partition, as its Redis has it.
#[derive(Debug, Clone)]
struct Region {
    accepted: Vec<Accepted>,
    lives: usize,
    /// The last id when its life began.
    born: StreamId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Accepted {
    life: String,
    id: StreamId,
    count: u64,
    /// By a node of this version, which tells the count.
    counted: bool,
}

impl Region {
    fn life(&self) -> String {
        format!("life{}", self.lives)
    }

    fn last(&self) -> StreamId {
        self.accepted.last().map_or(StreamId::MIN, |last| last.id)
    }

    fn head(&self) -> Head {
        Head {
            life: self.life(),
            born: self.born,
            count: self.accepted.len() as u64,
            last_own: self.accepted.last().map(|last| last.id),
            now_ms: 0,
            newest: self.last(),
            oldest: self.accepted.first().map(|first| first.id),
            trimmed: false,
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Accept {
        counted: bool,
    },
    /// Some of what was accepted is heard: in any order, late, twice, or never.
    Hear(Vec<prop::sample::Index>),
    /// The other region's Redis restarts with its data.
    Restart,
    /// Another node here takes over.
    TakeOver,
}

impl ReferenceStateMachine for Region {
    type State = Self;
    type Transition = Change;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { accepted: Vec::new(), lives: 1, born: StreamId::MIN }).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Change> {
        let heard = prop::collection::vec(any::<prop::sample::Index>(), 1..6);
        prop_oneof![
            8 => prop::bool::weighted(0.9).prop_map(|counted| Change::Accept { counted }),
            6 => heard.prop_map(Change::Hear),
            1 => Just(Change::Restart),
            1 => Just(Change::TakeOver),
        ]
        .boxed()
    }

    fn apply(mut region: Self, change: &Change) -> Self {
        match change {
            Change::Accept { counted } => {
                let id = region.last().next();
                let count = region.accepted.len() as u64 + 1;
                region.accepted.push(Accepted { life: region.life(), id, count, counted: *counted });
            }
            Change::Restart => {
                region.born = region.last();
                region.lives += 1;
            }
            Change::Hear(_) | Change::TakeOver => {}
        }
        region
    }
}

/// A link that decides as the real one does, with a Redis here that only remembers.
struct Follower {
    stored: String,
    cursor: Cursor,
    applied: Vec<StreamId>,
}

impl Follower {
    fn catch_up(&mut self, region: &Region) {
        let head = region.head();
        if head.life != self.cursor.life {
            return self.begin(region);
        }
        assert!(!is_trimmed(&head, self.cursor.id));
        let behind = region.accepted.iter().filter(|one| one.id > self.cursor.id);
        self.applied.extend(behind.map(|one| one.id));
        self.cursor.id = self.cursor.id.max(head.newest);
        self.cursor.count = head.count;
        self.stored = self.cursor.to_string();
    }

    /// Begins from what is stored.
    fn begin(&mut self, region: &Region) {
        self.cursor = Cursor::parse(&self.stored).unwrap().in_life(&region.life(), region.born);
        self.catch_up(region);
    }

    fn hear(&mut self, region: &Region, messages: Vec<Heard>) {
        let Followed { taken, cursor, end } = Followed::of(&self.cursor, messages);
        self.applied.extend(taken.iter().map(|(heard, _)| heard.id));
        self.cursor = cursor;
        self.stored = self.cursor.to_string();
        match end {
            None => {}
            Some(End::Missed) => self.catch_up(region),
            Some(End::AnotherLife) => self.begin(region),
        }
    }
}

fn heard(one: &Accepted) -> Heard {
    let count = one.counted.then_some(one.count);
    Heard { life: one.life.clone(), id: one.id, count, fields: Vec::new(), bytes: 0 }
}

impl StateMachineTest for Follower {
    type SystemUnderTest = Self;
    type Reference = Region;

    fn init_test(region: &Region) -> Self {
        let cursor = Cursor { life: region.life(), id: StreamId::MIN, count: 0, born: None };
        Self { stored: cursor.to_string(), cursor, applied: Vec::new() }
    }

    fn apply(mut follower: Self, region: &Region, change: Change) -> Self {
        match change {
            Change::Hear(indices) if !region.accepted.is_empty() => {
                let messages = indices.iter().map(|index| heard(index.get(&region.accepted))).collect();
                follower.hear(region, messages);
            }
            Change::TakeOver => follower.begin(region),
            _ => {}
        }
        follower
    }

    fn check_invariants(follower: &Self, region: &Region) {
        let all: Vec<_> = region.accepted.iter().map(|one| one.id).collect();
        assert!(all.starts_with(&follower.applied), "{:?} of {all:?}", follower.applied);
        // Whoever hears the newest now lacks nothing.
        let mut later = Self {
            stored: follower.stored.clone(),
            cursor: follower.cursor.clone(),
            applied: follower.applied.clone(),
        };
        if let Some(newest) = region.accepted.last() {
            later.hear(region, vec![heard(newest)]);
            assert_eq!(later.applied, all);
        }
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    })]

    #[test]
    fn whatever_is_heard_in_whatever_order_all_is_applied_once_and_in_order(sequential 1..60 => Follower);
}

/// `PROPTEST_CASES`, or so many that nobody waits for them.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}
