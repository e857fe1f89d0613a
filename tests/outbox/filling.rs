//! Live publications and those from history, joined without a hole or a repetition.

use crate::{
    content::{at, changed, gap, history, publication, publication_of},
    reader::{decode, drain, live_lane, outbox, story, task},
};
use skywave::hub::outbox::{Item, Task};
use skywave_protocol::ServerFrame;

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
