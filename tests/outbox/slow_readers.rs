//! What is dropped, and made good, when a reader is slow.

use crate::{
    content::{at, changed, changed_to, event, history, part, publication, sized_publication, whole},
    reader::{LIMIT, decode, drain, events, fill, live_lane, open_lane, outbox, story, task},
};
use skywave::{broker::Chunk, hub::outbox::Task};
use skywave_protocol::ServerFrame;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake},
};

/// Whether somebody was called.
#[derive(Default)]
struct Called(AtomicBool);

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
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
        assert!(outbox.bytes() <= LIMIT);
    }
    assert!(outbox.take_counts().queues_dropped > 0);
    let mut seen = drain(&outbox);
    while let Some(Task::Fill(lane)) = task(&outbox) {
        let after = outbox.position(lane).unwrap().get("eu").unwrap().offset;
        let last = published.min(after + 3);
        fill(&outbox, lane, &Chunk { complete: last == published, ..history(after + 1..=last) });
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
            fill(&outbox, lane, &part(&[], [sized_publication(1, 500)]));
        }
        outbox.publication(other, &sized_publication(offset, 500));
        assert!(outbox.bytes() <= LIMIT);
        let frame = outbox.take(other).expect("it was not dropped");
        assert!(matches!(decode(frame), ServerFrame::Publication(one) if one.offset == offset));
    }
}

#[test]
fn other_frames_outlive_a_dropped_queue() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 0);
    outbox.publication(lane, &publication(1));
    outbox.presence_changed(lane, &changed());
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
fn of_changes_of_presence_for_which_there_is_no_room_the_count_is_told_once_there_is() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 0);
    // Alone larger than all that may wait, as where many come at once who tell much of themselves.
    outbox.presence_changed(lane, &changed_to(7, 2 * LIMIT));
    let lists = |count: u64, names: usize| {
        let frame = decode(outbox.take(lane).unwrap());
        let ServerFrame::PresenceChanged(change) = frame else { panic!("{frame:?}") };
        assert_eq!((change.count, change.joined.len()), (count, names));
    };
    assert_eq!(outbox.ready_lane(), Some(lane));
    lists(7, 0);
    assert!(outbox.take(lane).is_none());
    // What comes meanwhile keeps its place, and the count is that of the last one.
    outbox.presence_changed(lane, &changed_to(8, 2 * LIMIT));
    outbox.presence_changed(lane, &changed_to(9, 1));
    outbox.publication(lane, &publication(1));
    assert_eq!(outbox.ready_lane(), Some(lane));
    lists(9, 1);
    assert!(matches!(decode(outbox.take(lane).unwrap()), ServerFrame::Publication(_)));
    lists(9, 0);
    assert!(outbox.take(lane).is_none());
}

#[test]
fn nothing_of_a_channel_goes_out_before_it_is_subscribed_to() {
    let outbox = outbox();
    let lane = open_lane(&outbox);
    outbox.set_position(lane, at(0));
    // So much comes while its history is read that its queue is dropped.
    for offset in 1..=50 {
        outbox.publication(lane, &sized_publication(offset, 500));
        outbox.presence_changed(lane, &changed());
    }
    assert!(outbox.take_counts().queues_dropped > 0);
    assert_eq!(outbox.ready_lane(), None);
    fill(&outbox, lane, &part(&[], [publication(1)]));
    assert_eq!(outbox.ready_lane(), Some(lane));
    assert_eq!(story(&outbox, lane).first().map(String::as_str), Some("presence"));
}

#[test]
fn a_publication_larger_than_the_outbox_goes_alone() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 0);
    outbox.publication(lane, &publication(1));
    outbox.publication(lane, &sized_publication(2, 2 * LIMIT));
    let mut seen = drain(&outbox);
    let rest = |after: u64| {
        let sizes = [(1, 1), (2, 2 * LIMIT), (3, 1)].into_iter().filter(|(offset, _)| *offset > after);
        whole(&[], sizes.map(|(offset, size)| sized_publication(offset, size)))
    };
    while let Some(Task::Fill(lane)) = task(&outbox) {
        let after = outbox.position(lane).unwrap().get("eu").unwrap().offset;
        fill(&outbox, lane, &rest(after));
        seen.extend(drain(&outbox));
    }
    assert_eq!(seen, [1, 2, 3]);
}

#[test]
fn many_recoveries_at_once_keep_within_the_limit() {
    let outbox = outbox();
    let lanes: Vec<_> = (0..100).map(|_| open_lane(&outbox)).collect();
    for lane in &lanes {
        outbox.set_position(*lane, at(0));
        fill(&outbox, *lane, &history(1..=10));
        assert!(outbox.bytes() <= LIMIT);
    }
    let mut seen = drain(&outbox);
    while let Some(Task::Fill(lane)) = task(&outbox) {
        let after = outbox.position(lane).unwrap().get("eu").unwrap().offset;
        fill(&outbox, lane, &history(after + 1..=10));
        assert!(outbox.bytes() <= LIMIT);
        seen.extend(drain(&outbox));
    }
    assert_eq!(seen.len(), 10 * lanes.len());
    assert!(lanes.into_iter().all(|lane| outbox.position(lane) == Some(at(10))));
}

#[test]
fn a_large_publication_waits_for_no_frame_that_waits_for_it() {
    let outbox = outbox();
    let lane = open_lane(&outbox);
    outbox.set_position(lane, at(0));
    outbox.presence_changed(lane, &changed());
    let large = || whole(&[], [sized_publication(1, 2 * LIMIT)]);
    fill(&outbox, lane, &large());
    assert_eq!(task(&outbox), None);
    assert_eq!(story(&outbox, lane), ["presence"]);
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    fill(&outbox, lane, &large());
    assert_eq!(story(&outbox, lane), ["e 1"]);
}

#[test]
fn a_session_is_called_for_the_room_that_was_taken_by_what_its_peer_has() {
    let outbox = outbox();
    let (full, behind) = ([live_lane(&outbox, 99), live_lane(&outbox, 99)], live_lane(&outbox, 0));
    for offset in 1.. {
        outbox.publication(full[offset as usize % 2], &publication(offset));
        if outbox.bytes() > LIMIT - LIMIT / 8 {
            break;
        }
    }
    outbox.doubt(behind);
    let called = Arc::<Called>::default();
    let waker = called.clone().into();
    assert!(outbox.poll_task(&Context::from_waker(&waker), |_| true).is_pending());
    assert_eq!(drain(&outbox), [0; 0]);
    assert!(called.0.load(Ordering::Relaxed));
    assert_eq!(task(&outbox), Some(Task::Fill(behind)));
}
