//! A node's outbox against the region, whatever comes in whatever order.

mod node;

use crate::{
    content::changed_to,
    region::{OTHER, Region},
};
use node::Node;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

const CHANNELS: usize = 2;

#[derive(Debug, Clone)]
struct World {
    max_bytes: usize,
    regions: [Region; CHANNELS],
}

#[derive(Debug, Clone)]
enum Step {
    /// What happens in the region, which the node does not notice.
    Publish {
        channel: usize,
        origin: usize,
        size: usize,
    },
    BeginEpoch {
        channel: usize,
        origin: usize,
        kept: bool,
    },
    BeginReplay {
        channel: usize,
    },
    EndReplay {
        channel: usize,
    },
    /// What the node hears.
    Hear {
        channel: usize,
        count: usize,
    },
    Miss {
        channel: usize,
    },
    Repeat {
        channel: usize,
        count: usize,
    },
    Doubt {
        channel: usize,
    },
    Presence {
        channel: usize,
        size: usize,
    },
    /// What its sessions do.
    Join {
        channel: usize,
        from: Start,
    },
    Leave {
        channel: usize,
    },
    Poll,
    Answer {
        channel: usize,
        most: usize,
    },
    Fill {
        channel: usize,
    },
    FillLate {
        channel: usize,
    },
    /// What its transport does.
    Take {
        count: usize,
    },
}

#[derive(Debug, Clone)]
enum Start {
    Head,
    Beginning,
    /// With so many of the last publications seen, heard here or not.
    Missing(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    let channel = || 0..CHANNELS;
    let origin = || prop_oneof![3 => Just(0), 1 => Just(OTHER)];
    let size = || prop_oneof![8 => Just(1usize), 3 => 200usize..700, 1 => Just(5000)];
    let start = prop_oneof![Just(Start::Head), Just(Start::Beginning), (0usize..8).prop_map(Start::Missing)];
    prop_oneof![
        12 => (channel(), origin(), size()).prop_map(|(channel, origin, size)| Step::Publish { channel, origin, size }),
        1 => (channel(), origin(), any::<bool>()).prop_map(|(channel, origin, kept)| Step::BeginEpoch { channel, origin, kept }),
        1 => channel().prop_map(|channel| Step::BeginReplay { channel }),
        1 => channel().prop_map(|channel| Step::EndReplay { channel }),
        8 => (channel(), 1usize..6).prop_map(|(channel, count)| Step::Hear { channel, count }),
        1 => channel().prop_map(|channel| Step::Miss { channel }),
        1 => (channel(), 1usize..6).prop_map(|(channel, count)| Step::Repeat { channel, count }),
        1 => channel().prop_map(|channel| Step::Doubt { channel }),
        2 => (channel(), size()).prop_map(|(channel, size)| Step::Presence { channel, size }),
        3 => (channel(), start).prop_map(|(channel, from)| Step::Join { channel, from }),
        1 => channel().prop_map(|channel| Step::Leave { channel }),
        6 => Just(Step::Poll),
        4 => (channel(), 0usize..6).prop_map(|(channel, most)| Step::Answer { channel, most }),
        4 => channel().prop_map(|channel| Step::Fill { channel }),
        1 => channel().prop_map(|channel| Step::FillLate { channel }),
        6 => (1usize..12).prop_map(|count| Step::Take { count }),
    ]
}

impl ReferenceStateMachine for World {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        let max_bytes = prop_oneof![Just(4096), Just(1 << 20)];
        let history = || prop_oneof![Just(0usize), Just(1), 2usize..6, Just(100)];
        let world = |(max_bytes, one, other)| World { max_bytes, regions: [one, other].map(Region::new) };
        (max_bytes, history(), history()).prop_map(world).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        steps().boxed()
    }

    fn apply(mut world: Self, step: &Step) -> Self {
        match *step {
            Step::Publish { channel, origin, size } => world.regions[channel].publish(origin, size),
            Step::BeginEpoch { channel, origin, kept } => world.regions[channel].begin_epoch(origin, kept),
            Step::BeginReplay { channel } => world.regions[channel].is_coming = true,
            Step::EndReplay { channel } => world.regions[channel].is_coming = false,
            _ => {}
        }
        world
    }
}

struct Machine;

impl StateMachineTest for Machine {
    type SystemUnderTest = Node;
    type Reference = World;

    fn init_test(world: &World) -> Node {
        Node::new(world.max_bytes)
    }

    fn apply(mut node: Node, world: &World, step: Step) -> Node {
        let region = |channel: usize| &world.regions[channel];
        match step {
            Step::Publish { .. } | Step::BeginReplay { .. } => {}
            Step::BeginEpoch { channel, .. } | Step::EndReplay { channel } => {
                node.channels[channel].is_uncertain = true
            }
            Step::Hear { channel, count } => node.hear(channel, region(channel), count),
            Step::Miss { channel } => {
                let subscribed = &mut node.channels[channel];
                if subscribed.heard < region(channel).log.len() {
                    subscribed.heard += 1;
                    subscribed.is_uncertain = true;
                }
            }
            Step::Repeat { channel, count } => {
                let end = node.channels[channel].heard;
                for (name, size) in &region(channel).log[end.saturating_sub(count)..end] {
                    // A loss may have been told by now of what was heard before the lane was there.
                    let was_there = node.channels[channel].peer.heard.contains(name);
                    if region(channel).is_heard(*name) {
                        node.deliver(channel, *name, *size);
                    }
                    if !was_there {
                        node.channels[channel].peer.heard.remove(name);
                    }
                }
            }
            Step::Doubt { channel } => node.doubt(channel),
            Step::Presence { channel, size } => {
                let subscribed = &mut node.channels[channel];
                if let Some(lane) = subscribed.lane {
                    subscribed.present += 1;
                    node.outbox.presence_changed(lane, &changed_to(subscribed.present, size));
                    node.forget_dropped();
                }
            }
            Step::Join { channel, from } => node.join(channel, region(channel), &from),
            Step::Leave { channel } => node.leave(channel),
            Step::Poll => {
                node.poll();
            }
            Step::Answer { channel, most } => node.answer(channel, region(channel), most),
            Step::Fill { channel } => node.fill(channel, region(channel)),
            Step::FillLate { channel } => {
                let subscribed = &node.channels[channel];
                if let (Some(lane), None, Some(chunk)) =
                    (subscribed.lane, &subscribed.reading, &subscribed.last)
                {
                    crate::reader::fill(&node.outbox, lane, chunk);
                }
            }
            Step::Take { count } => {
                node.take(count);
            }
        }
        node
    }

    fn check_invariants(node: &Node, world: &World) {
        assert!(node.outbox.bytes() <= world.max_bytes.max(6000));
    }

    fn teardown(mut node: Node, world: World) {
        node.settle(&world.regions);
        for subscribed in node.channels.iter().filter(|one| one.lane.is_some()) {
            let (peer, present) = (&subscribed.peer, subscribed.present);
            assert_eq!(peer.count, present, "who is there was not told at last: {peer:?}");
            assert!(peer.named == present || peer.has_missed, "{present} came: {peer:?}");
        }
        for (subscribed, region) in node.channels.iter().zip(&world.regions) {
            for head in region.heads.iter().filter(|head| head.origin != OTHER || !region.is_coming) {
                let seen = subscribed.peer.seen.get(&head.origin);
                // Whoever began at the beginning is told of another one with its first publication.
                let begins = head.offset == 0 && !subscribed.start.contains_key(&head.origin);
                let is_there = subscribed.lane.is_none() || seen == Some(head) || begins;
                assert!(is_there, "{head:?} was not reached: {:?}", subscribed.peer);
            }
        }
    }
}

/// `PROPTEST_CASES` says how many.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 2000;
    }
    config
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn a_peer_gets_all_that_there_is_once_and_in_order_and_is_told_the_rest(sequential 1..60 => Machine);
}

/// What the steps lead to, whatever is under way then being brought to its end.
fn run(history: [usize; CHANNELS], steps: Vec<Step>) {
    let world = World { max_bytes: 4096, regions: history.map(Region::new) };
    Machine::test_sequential(config(), world, steps, None);
}

#[test]
fn what_waits_during_a_replay_is_not_told_as_lost_by_what_history_has_behind_it() {
    let channel = 0;
    let steps = vec![
        Step::Join { channel, from: Start::Head },
        Step::Fill { channel },
        Step::BeginReplay { channel },
        Step::BeginEpoch { channel, origin: OTHER, kept: false },
        Step::Doubt { channel },
        Step::Publish { channel, origin: OTHER, size: 1 },
        Step::Hear { channel, count: 1 },
        Step::Poll,
        Step::Publish { channel, origin: 0, size: 1 },
        Step::Fill { channel },
        Step::Publish { channel, origin: OTHER, size: 1 },
    ];
    run([1, 0], steps);
}

#[test]
fn what_waits_during_a_replay_gives_way_to_what_needs_all_the_room() {
    let (channel, other) = (0, 1);
    let steps = vec![
        Step::Publish { channel: other, origin: OTHER, size: 1 },
        Step::Publish { channel, origin: 0, size: 1 },
        Step::Join { channel, from: Start::Beginning },
        Step::BeginReplay { channel: other },
        Step::Hear { channel: other, count: 1 },
        Step::Join { channel: other, from: Start::Beginning },
        Step::Publish { channel, origin: 0, size: 5000 },
        Step::Publish { channel: other, origin: OTHER, size: 1 },
    ];
    run([1, 0], steps);
}
