//! A standing reader against a model that is obviously right, whatever happens to the history between its reads, and
//! whatever it hears live, in any order, late or twice.

use super::{
    tests::{History, Name, Step, name, run, step},
    *,
};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use skywave_protocol::Admission;
use std::collections::HashSet;

/// The history, and all that was ever published.
#[derive(Debug, Clone)]
struct World {
    history: History,
    published: Vec<Arc<Publication>>,
}

#[derive(Debug, Clone)]
enum Change {
    History(Step),
    /// The reader asks for a chunk of at most so many.
    Read(usize),
    Hear(prop::sample::Index),
}

impl World {
    /// What a reader at `position` still gets, in the order of the history: of each origin what is of its epoch and
    /// behind it, what follows something of its epoch, and all of the present one. Whatever else is there may have been
    /// seen.
    fn due(&self, position: &Position) -> Vec<Name> {
        let mut passed = HashSet::new();
        let mut is_due = |publication: &&Arc<Publication>| {
            let frame = publication.frame();
            let current = self.history.head.position.get(&frame.origin).map(|head| &head.epoch);
            match position.get(&frame.origin) {
                Some(seen) if seen.epoch == frame.epoch => {
                    passed.insert(frame.origin.clone());
                    frame.offset > seen.offset
                }
                Some(_) => current == Some(&frame.epoch) || passed.contains(&frame.origin),
                None => true,
            }
        };
        let publications = self.history.entries.iter().map(|entry| &entry.publication);
        publications.filter(|publication| is_due(publication)).map(|publication| name(publication)).collect()
    }
}

impl ReferenceStateMachine for World {
    type State = Self;
    type Transition = Change;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { history: History::new(), published: Vec::new() }).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Change> {
        prop_oneof![
            8 => step().prop_map(Change::History),
            3 => (1..4_usize).prop_map(Change::Read),
            4 => any::<prop::sample::Index>().prop_map(Change::Hear),
        ]
        .boxed()
    }

    fn apply(mut world: Self, change: &Change) -> Self {
        if let Change::History(step) = change {
            run(&mut world.history, step);
            if let Step::Publish(_) = step {
                world.published.extend(world.history.entries.last().map(|entry| entry.publication.clone()));
            }
        }
        world
    }
}

/// Whoever stands at a position: live publications that follow are taken, for others the history is read.
#[derive(Clone)]
struct Reader {
    position: Position,
    got: Vec<Name>,
}

impl Reader {
    fn take(&mut self, publication: &Publication) -> Admission {
        let frame = publication.frame();
        let admission = self.position.admit(&frame.origin, &frame.epoch, frame.offset);
        if admission == Admission::Next {
            self.position.advance(&frame.origin, &frame.epoch, frame.offset);
            self.got.push(name(publication));
        }
        admission
    }

    /// Reads a chunk; `true` when it was the last.
    fn read(&mut self, world: &World, publications: usize) -> bool {
        let chunk = world.history.read(&self.position, ChunkLimit { publications, bytes: 1_000 });
        for Lost { origin, point, .. } in &chunk.lost {
            let seen = self.position.get(origin);
            let goes_on = seen.is_none_or(|seen| seen.epoch != point.epoch || seen.offset < point.offset);
            assert!(goes_on, "{origin} goes back from {seen:?} to {point:?}");
            self.position.set(origin.clone(), point.clone());
        }
        for publication in &chunk.publications {
            assert_eq!(self.take(publication), Admission::Next, "{:?}", name(publication));
        }
        assert!(chunk.complete || !chunk.publications.is_empty() || !chunk.lost.is_empty(), "no progress");
        chunk.complete
    }
}

impl StateMachineTest for Reader {
    type SystemUnderTest = Self;
    type Reference = World;

    fn init_test(world: &World) -> Self {
        Self { position: world.history.head.position.clone(), got: Vec::new() }
    }

    fn apply(mut reader: Self, world: &World, change: Change) -> Self {
        match change {
            Change::Hear(index) if !world.published.is_empty() => {
                let publication = index.get(&world.published);
                if matches!(reader.take(publication), Admission::Gap | Admission::NewEpoch) {
                    reader.read(world, 3);
                }
            }
            Change::Read(count) => drop(reader.read(world, count)),
            Change::Hear(_) | Change::History(_) => {}
        }
        reader
    }

    fn check_invariants(reader: &Self, world: &World) {
        let unique: HashSet<_> = reader.got.iter().collect();
        assert_eq!(unique.len(), reader.got.len(), "repeated: {:?}", reader.got);
        // Were it to read on now, it would get all that is due, and stand at the head.
        let mut later = reader.clone();
        let mut rounds = 0;
        while !later.read(world, 3) {
            rounds += 1;
            assert!(rounds < 100, "reading does not end");
        }
        assert_eq!(later.got[reader.got.len()..], world.due(&reader.position));
        for (origin, head) in world.history.head.position.iter() {
            let seen = later.position.get(origin);
            // Of another region it may have heard what is here no more.
            let is_ahead = |seen: &Point| {
                *origin != world.history.head.succession.own
                    && seen.epoch == head.epoch
                    && seen.offset > head.offset
            };
            let is_there = |seen: &Point| seen == head || is_ahead(seen);
            assert!(seen.map_or(head.offset == 0, is_there), "{origin}: {seen:?} is not the head {head:?}");
        }
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    })]

    #[test]
    fn a_standing_reader_gets_what_there_is_once_whatever_it_hears_live(sequential 1..40 => Reader);
}

/// `PROPTEST_CASES`, or so many that nobody waits for them.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}
