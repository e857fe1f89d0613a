//! What a session, slow or fast, can rely on from its outbox.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

use proptest::prelude::*;
use skywave::{
    broadcast::{Broadcast, Event, PresenceChanged, Publication},
    hub::outbox::{Item, LaneId, Outbox, Task},
};
use skywave_protocol::{Channel, CloseCode, Encoding, Json, Point, Position, ServerFrame, Text, frame};
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

const LIMIT: usize = 4096;

fn outbox() -> Outbox {
    let outbox = Outbox::new(Encoding::Json, LIMIT);
    outbox.identify(Text::new("me").unwrap());
    outbox
}

fn publication(offset: u64) -> Arc<Publication> {
    sized_publication(offset, 1)
}

fn sized_publication(offset: u64, size: usize) -> Arc<Publication> {
    publication_of("e", offset, size)
}

fn publication_of(epoch: &str, offset: u64, size: usize) -> Arc<Publication> {
    Broadcast::new(frame::Publication {
        channel: Channel::new("chat:1").unwrap(),
        origin: Text::new("eu").unwrap(),
        epoch: Text::new(epoch).unwrap(),
        offset,
        time_ms: 0,
        key: None,
        user: None,
        data: Json::parse(format!("\"{}\"", "x".repeat(size))).unwrap().into(),
    })
}

fn event(session: &str, slot: Option<&str>, number: u64) -> Arc<Event> {
    Broadcast::new(frame::Event {
        channel: Channel::new("chat:1").unwrap(),
        session: Text::new(session).unwrap(),
        user: None,
        slot: slot.map(|slot| Text::new(slot).unwrap()),
        data: Json::parse(number.to_string()).unwrap().into(),
    })
}

fn changed() -> Arc<PresenceChanged> {
    let (joined, left) = (Vec::new(), Vec::new());
    Broadcast::new(frame::PresenceChanged {
        channel: Channel::new("chat:1").unwrap(),
        count: 1,
        joined,
        left,
    })
}

fn at(offset: u64) -> Position {
    let point = Point { epoch: Text::new("e").unwrap(), offset };
    [(Text::new("eu").unwrap(), point)].into_iter().collect()
}

/// A lane that is live from `offset` on.
fn live_lane(outbox: &Outbox, offset: u64) -> LaneId {
    let lane = outbox.open_lane();
    outbox.set_position(lane, at(offset));
    outbox.fill(lane, Vec::new(), true);
    lane
}

fn history(offsets: std::ops::RangeInclusive<u64>) -> Vec<Item> {
    offsets.map(|offset| Item::Publication(publication(offset))).collect()
}

/// What is after the last publication seen is lost, up to this one.
fn gap(epoch: &str, offset: u64) -> Item {
    Item::Gap(Box::new(frame::Gap {
        channel: Channel::new("chat:1").unwrap(),
        origin: Text::new("eu").unwrap(),
        reason: frame::GapReason::Trimmed,
        epoch: Text::new(epoch).unwrap(),
        offset,
    }))
}

fn decode(frame: skywave_protocol::codec::EncodedFrame) -> ServerFrame {
    Encoding::Json.decode_server(&frame.bare()).unwrap()
}

/// All that a lane's peer gets now, as texts.
fn story(outbox: &Outbox, lane: LaneId) -> Vec<String> {
    let mut story = Vec::new();
    while let Some(frame) = outbox.take(lane) {
        story.push(match decode(frame) {
            ServerFrame::Publication(one) => format!("{} {}", one.epoch, one.offset),
            ServerFrame::Gap(gap) => format!("gap to {} {}", gap.epoch, gap.offset),
            ServerFrame::PresenceChanged(_) => "presence".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    story
}

/// The offsets of all publications that can be taken now.
fn drain(outbox: &Outbox) -> Vec<u64> {
    let mut offsets = Vec::new();
    while let Some(lane) = outbox.ready_lane() {
        while let Some(frame) = outbox.take(lane) {
            match decode(frame) {
                ServerFrame::Publication(publication) => offsets.push(publication.offset),
                other => panic!("{other:?}"),
            }
        }
    }
    offsets
}

fn events(outbox: &Outbox) -> Vec<String> {
    let mut data = Vec::new();
    while let Some(frame) = outbox.take_event() {
        match decode(frame) {
            ServerFrame::Event(event) => data.push(format!("{:?}", event.data)),
            other => panic!("{other:?}"),
        }
    }
    data
}

fn task(outbox: &Outbox) -> Option<Task> {
    match outbox.poll_task(&Context::from_waker(Waker::noop()), true) {
        Poll::Ready(task) => Some(task),
        Poll::Pending => None,
    }
}

#[test]
fn live_publications_wait_until_the_history_is_in() {
    let outbox = outbox();
    let lane = outbox.open_lane();
    outbox.set_position(lane, at(2));
    outbox.publication(lane, &publication(5));
    assert!(drain(&outbox).is_empty());
    outbox.fill(lane, history(3..=4), true);
    assert_eq!(drain(&outbox), [3, 4, 5]);
}

#[test]
fn what_is_both_in_history_and_live_is_sent_once() {
    let outbox = outbox();
    let lane = outbox.open_lane();
    outbox.set_position(lane, at(0));
    for offset in 2..=4 {
        outbox.publication(lane, &publication(offset));
    }
    outbox.fill(lane, history(1..=3), true);
    assert_eq!(drain(&outbox), [1, 2, 3, 4]);
}

#[test]
fn history_in_parts_is_asked_for_part_by_part() {
    let outbox = outbox();
    let lane = outbox.open_lane();
    outbox.set_position(lane, at(0));
    outbox.publication(lane, &publication(5));
    outbox.fill(lane, history(1..=2), false);
    assert_eq!(drain(&outbox), [1, 2]);
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    assert_eq!(outbox.position(lane), Some(at(2)));
    outbox.fill(lane, history(3..=4), true);
    assert_eq!(drain(&outbox), [3, 4, 5]);
}

#[test]
fn a_missing_publication_is_fetched_and_never_skipped() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 1);
    outbox.publication(lane, &publication(2));
    outbox.publication(lane, &publication(4));
    assert_eq!(drain(&outbox), [2]);
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    outbox.publication(lane, &publication(5));
    outbox.fill(lane, history(3..=5), true);
    assert_eq!(drain(&outbox), [3, 4, 5]);
}

#[test]
fn a_gap_moves_the_position_in_its_place() {
    let outbox = outbox();
    let lane = outbox.open_lane();
    outbox.set_position(lane, at(1));
    let mut items = vec![gap("e", 7)];
    items.extend(history(8..=8));
    outbox.fill(lane, items, true);
    assert_eq!(outbox.ready_lane(), Some(lane));
    let told = decode(outbox.take(lane).unwrap());
    assert!(matches!(told, ServerFrame::Gap(gap) if gap.offset == 7));
    assert!(matches!(decode(outbox.take(lane).unwrap()), ServerFrame::Publication(one) if one.offset == 8));
    assert_eq!(outbox.position(lane), Some(at(8)));
}

#[test]
fn what_begins_another_epoch_follows_the_gap_though_there_is_no_history() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 5);
    outbox.publication(lane, &publication_of("x", 1, 1));
    assert_eq!(story(&outbox, lane), [] as [&str; 0]);
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    outbox.publication(lane, &publication_of("x", 2, 1));
    // All that can be read is where the channel stands.
    outbox.fill(lane, vec![gap("x", 2)], true);
    outbox.publication(lane, &publication_of("x", 3, 1));
    assert_eq!(story(&outbox, lane), ["gap to x 0", "x 1", "x 2", "x 3"]);
    assert_eq!(task(&outbox), None);
}

#[test]
fn what_came_behind_a_hole_is_left_out_of_the_gap() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 5);
    for offset in [8, 10, 11] {
        outbox.publication(lane, &publication(offset));
    }
    assert_eq!(story(&outbox, lane), [] as [&str; 0]);
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    outbox.fill(lane, vec![gap("e", 11)], true);
    assert_eq!(story(&outbox, lane), ["gap to e 9", "e 10", "e 11"]);
    assert_eq!(task(&outbox), None);
}

#[test]
fn what_is_left_of_an_earlier_epoch_is_past() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 5);
    outbox.publication(lane, &publication(7));
    outbox.publication(lane, &publication_of("x", 1, 1));
    assert_eq!(story(&outbox, lane), [] as [&str; 0]);
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    outbox.fill(lane, vec![gap("x", 0), Item::Publication(publication_of("x", 1, 1))], true);
    outbox.publication(lane, &publication_of("x", 2, 1));
    assert_eq!(story(&outbox, lane), ["gap to x 0", "x 1", "x 2"]);
    assert_eq!(task(&outbox), None);
}

#[test]
fn a_doubt_asks_history_once_what_waits_is_out() {
    let outbox = outbox();
    let (idle, busy, filling) = (live_lane(&outbox, 5), live_lane(&outbox, 5), outbox.open_lane());
    outbox.set_position(filling, at(5));
    outbox.publication(busy, &publication(6));
    outbox.frame(busy, &changed());
    for lane in [idle, busy, filling] {
        outbox.doubt(lane);
    }
    assert_eq!((task(&outbox), task(&outbox)), (Some(Task::Fill(idle)), None));
    outbox.fill(idle, vec![gap("x", 0)], true);
    assert_eq!(story(&outbox, idle), ["gap to x 0"]);

    outbox.publication(busy, &publication_of("x", 1, 1));
    assert_eq!(story(&outbox, busy), ["e 6", "presence"]);
    assert_eq!((task(&outbox), task(&outbox)), (Some(Task::Fill(busy)), None));
    outbox.fill(busy, vec![gap("x", 1)], true);
    assert_eq!(story(&outbox, busy), ["gap to x 0", "x 1"]);

    // What is being read may be from before: it is read again.
    outbox.fill(filling, history(6..=6), true);
    assert_eq!(story(&outbox, filling), ["e 6"]);
    assert_eq!((task(&outbox), task(&outbox)), (Some(Task::Fill(filling)), None));
    outbox.fill(filling, Vec::new(), true);
    assert_eq!((story(&outbox, filling).len(), task(&outbox)), (0, None));
}

#[test]
fn a_full_outbox_drops_events_first() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 0);
    outbox.event(&event(&"other".repeat(12), None, 1));
    for offset in 1.. {
        outbox.publication(lane, &publication(offset));
        if outbox.take_counts().events_dropped == 1 {
            break;
        }
        assert!(offset < 100, "the event outlived {offset} publications");
    }
    assert_eq!(task(&outbox), None, "the publications stayed");
    assert!(!drain(&outbox).is_empty());
    assert_eq!(events(&outbox), Vec::<String>::new());
}

#[test]
fn a_reader_that_fell_behind_gets_all_from_history() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 0);
    let published = 100;
    for offset in 1..=published {
        outbox.publication(lane, &sized_publication(offset, 500));
        assert!(outbox.progress().0 <= LIMIT);
    }
    assert!(outbox.take_counts().queues_dropped > 0);
    let mut seen = drain(&outbox);
    while let Some(Task::Fill(lane)) = task(&outbox) {
        let after = outbox.position(lane).unwrap().get("eu").unwrap().offset;
        let last = published.min(after + 3);
        outbox.fill(lane, history(after + 1..=last), last == published);
        seen.extend(drain(&outbox));
    }
    assert_eq!(seen, (1..=published).collect::<Vec<_>>());
}

#[test]
fn one_channel_that_is_not_taken_holds_up_no_other() {
    let outbox = outbox();
    let (stuck, other) = (live_lane(&outbox, 0), live_lane(&outbox, 0));
    for offset in 1..=50 {
        outbox.publication(stuck, &sized_publication(offset, 500));
    }
    outbox.publication(other, &publication(1));
    let mut taken = Vec::new();
    while let Some(lane) = outbox.ready_lane() {
        if lane == other {
            while outbox.take(lane).is_some() {
                taken.push(lane);
            }
        }
    }
    assert_eq!(taken, [other]);
}

#[test]
fn a_channel_that_is_not_taken_costs_another_none_of_its_publications() {
    let outbox = outbox();
    let (stuck, other) = (live_lane(&outbox, 0), live_lane(&outbox, 0));
    for offset in 1..=50 {
        outbox.publication(stuck, &sized_publication(offset, 500));
        // That what is dropped is read again makes no difference.
        if let Some(Task::Fill(lane)) = task(&outbox) {
            assert_eq!(lane, stuck);
            outbox.fill(lane, vec![Item::Publication(sized_publication(1, 500))], false);
        }
        outbox.publication(other, &sized_publication(offset, 500));
        assert!(outbox.progress().0 <= LIMIT);
        let frame = outbox.take(other).expect("it was not dropped");
        assert!(matches!(decode(frame), ServerFrame::Publication(one) if one.offset == offset));
    }
}

#[test]
fn other_frames_outlive_a_dropped_queue() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 0);
    outbox.publication(lane, &publication(1));
    outbox.frame(lane, &changed());
    for offset in 2..=50 {
        outbox.publication(lane, &sized_publication(offset, 500));
    }
    assert!(outbox.take_counts().queues_dropped > 0);
    assert_eq!(outbox.ready_lane(), Some(lane));
    assert!(matches!(decode(outbox.take(lane).unwrap()), ServerFrame::PresenceChanged(_)));
    assert!(outbox.take(lane).is_none());
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    assert_eq!(outbox.position(lane), Some(at(0)));
}

#[test]
fn a_publication_larger_than_the_outbox_goes_alone() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 0);
    outbox.publication(lane, &publication(1));
    outbox.publication(lane, &sized_publication(2, 2 * LIMIT));
    let mut seen = drain(&outbox);
    let whole = |after: u64| {
        let sizes = [(1, 1), (2, 2 * LIMIT), (3, 1)].into_iter().filter(|(offset, _)| *offset > after);
        sizes.map(|(offset, size)| Item::Publication(sized_publication(offset, size))).collect()
    };
    while let Some(Task::Fill(lane)) = task(&outbox) {
        let after = outbox.position(lane).unwrap().get("eu").unwrap().offset;
        outbox.fill(lane, whole(after), true);
        seen.extend(drain(&outbox));
    }
    assert_eq!(seen, [1, 2, 3]);
}

#[test]
fn many_recoveries_at_once_keep_within_the_limit() {
    let outbox = outbox();
    let lanes: Vec<_> = (0..100).map(|_| outbox.open_lane()).collect();
    for lane in &lanes {
        outbox.set_position(*lane, at(0));
        outbox.fill(*lane, history(1..=10), true);
        assert!(outbox.progress().0 <= LIMIT);
    }
    let mut seen = drain(&outbox);
    while let Some(Task::Fill(lane)) = task(&outbox) {
        let after = outbox.position(lane).unwrap().get("eu").unwrap().offset;
        outbox.fill(lane, history(after + 1..=10), true);
        assert!(outbox.progress().0 <= LIMIT);
        seen.extend(drain(&outbox));
    }
    assert_eq!(seen.len(), 10 * lanes.len());
    assert!(lanes.into_iter().all(|lane| outbox.position(lane) == Some(at(10))));
}

#[test]
fn events_of_one_slot_are_conflated_and_those_of_others_kept() {
    let outbox = outbox();
    outbox.event(&event("a", Some("cursor"), 1));
    outbox.event(&event("b", Some("cursor"), 2));
    outbox.event(&event("a", Some("cursor"), 3));
    outbox.event(&event("a", None, 4));
    outbox.event(&event("a", None, 5));
    assert_eq!(outbox.take_counts().events_conflated, 1);
    assert_eq!(events(&outbox), ["Json(2)", "Json(3)", "Json(4)", "Json(5)"]);
}

#[test]
fn a_session_does_not_get_its_own_events() {
    let outbox = outbox();
    outbox.event(&event("me", None, 1));
    assert_eq!(events(&outbox), Vec::<String>::new());
}

#[test]
fn the_first_reason_to_close_stands() {
    let outbox = outbox();
    outbox.close(CloseCode::Replaced);
    outbox.close(CloseCode::Shutdown);
    assert_eq!(task(&outbox), Some(Task::Close(CloseCode::Replaced)));
}

#[test]
fn a_closed_lane_is_reused_only_after_the_transport_gave_it_back() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 0);
    outbox.publication(lane, &publication(1));
    outbox.close_lane(lane);
    assert_eq!(outbox.progress().0, 0);
    assert_ne!(outbox.open_lane(), lane);
    assert_eq!(outbox.take_closed_lane(), Some(lane));
    assert_eq!(outbox.open_lane(), lane);
    assert!(drain(&outbox).is_empty());
}

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
                outbox.fill(lane, history(after + 1..=last), last == published);
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
            prop_assert!(outbox.progress().0 <= LIMIT);
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
