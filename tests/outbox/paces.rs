//! Readers and publishers of any pace.

use crate::{
    content::{event, history, sized_publication},
    reader::{self, LIMIT, decode, live_lane, outbox, task},
};
use proptest::prelude::*;
use skywave::{
    broker::Chunk,
    hub::outbox::{Outbox, Task},
};
use skywave_protocol::ServerFrame;

#[derive(Debug, Clone)]
enum Step {
    Publish,
    Event,
    Take(usize),
    Fill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Publish),
        1 => Just(Step::Event),
        2 => (1usize..20).prop_map(Step::Take),
        2 => Just(Step::Fill),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However fast or slow the reader is, and whenever history is read.
    #[test]
    fn every_publication_arrives_once_and_in_order(steps in steps()) {
        let outbox = outbox();
        let lane = live_lane(&outbox, 0);
        let mut published = 0;
        let mut seen = Vec::new();
        let take = |outbox: &Outbox, seen: &mut Vec<u64>, most: usize| {
            while let Some(lane) = outbox.ready_lane() {
                for _ in 0..most {
                    match outbox.take(lane).map(decode) {
                        Some(ServerFrame::Publication(publication)) => seen.push(publication.offset),
                        Some(other) => panic!("{other:?}"),
                        None => break,
                    }
                }
                if most < usize::MAX {
                    outbox.put_back(lane);
                    return;
                }
            }
        };
        let fill = |outbox: &Outbox, published: u64| match task(outbox) {
            Some(Task::Fill(lane)) => {
                let after = outbox.position(lane).unwrap().get("eu").map_or(0, |point| point.offset);
                let last = published.min(after + 4);
                reader::fill(outbox, lane, &Chunk { complete: last == published, ..history(after + 1..=last) });
                true
            }
            _ => false,
        };
        for step in steps {
            match step {
                Step::Publish => {
                    published += 1;
                    outbox.publication(lane, &sized_publication(published, 300));
                }
                Step::Event => outbox.event(&event("other", None, 1)),
                Step::Take(most) => take(&outbox, &mut seen, most),
                Step::Fill => {
                    fill(&outbox, published);
                }
            }
            prop_assert!(outbox.bytes() <= LIMIT);
        }
        loop {
            take(&outbox, &mut seen, usize::MAX);
            while outbox.take_event().is_some() {}
            if !fill(&outbox, published) {
                break;
            }
        }
        prop_assert_eq!(seen, (1..=published).collect::<Vec<_>>());
    }
}
