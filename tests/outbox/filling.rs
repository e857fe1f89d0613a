//! Live publications and those from history, joined without a hole or a repetition.

use crate::{
    content::{at, changed, gap, history, part, publication, publication_of, whole},
    reader::{decode, drain, fill, live_lane, open_lane, outbox, story, task},
};
use skywave::{broker::Chunk, hub::outbox::Task};
use skywave_protocol::{ServerFrame, Text, frame::GapReason};

#[test]
fn live_publications_wait_until_the_history_is_in() {
    let outbox = outbox();
    let lane = open_lane(&outbox);
    outbox.set_position(lane, at(2));
    outbox.publication(lane, &publication(5));
    assert!(drain(&outbox).is_empty());
    fill(&outbox, lane, &history(3..=4));
    assert_eq!(drain(&outbox), [3, 4, 5]);
}

#[test]
fn what_is_both_in_history_and_live_is_sent_once() {
    let outbox = outbox();
    let lane = open_lane(&outbox);
    outbox.set_position(lane, at(0));
    for offset in 2..=4 {
        outbox.publication(lane, &publication(offset));
    }
    fill(&outbox, lane, &history(1..=3));
    assert_eq!(drain(&outbox), [1, 2, 3, 4]);
}

#[test]
fn history_in_parts_is_asked_for_part_by_part() {
    let outbox = outbox();
    let lane = open_lane(&outbox);
    outbox.set_position(lane, at(0));
    outbox.publication(lane, &publication(5));
    fill(&outbox, lane, &part(&[], (1..=2).map(publication)));
    assert_eq!(drain(&outbox), [1, 2]);
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    assert_eq!(outbox.position(lane), Some(at(2)));
    fill(&outbox, lane, &history(3..=4));
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
    fill(&outbox, lane, &history(3..=5));
    assert_eq!(drain(&outbox), [3, 4, 5]);
}

#[test]
fn a_gap_moves_the_position_in_its_place() {
    let outbox = outbox();
    let lane = open_lane(&outbox);
    outbox.set_position(lane, at(1));
    fill(&outbox, lane, &whole(&[gap("e", 7)], [publication(8)]));
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
    fill(&outbox, lane, &whole(&[gap("x", 2)], []));
    outbox.publication(lane, &publication_of("x", 3, 1));
    assert_eq!(story(&outbox, lane), ["gap to x 0", "x 1", "x 2", "x 3"]);
    assert_eq!(task(&outbox), None);
}

#[test]
fn what_came_live_is_left_out_of_the_gap() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 5);
    for offset in [8, 10, 11] {
        outbox.publication(lane, &publication(offset));
    }
    assert_eq!(story(&outbox, lane), [] as [&str; 0]);
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    fill(&outbox, lane, &whole(&[gap("e", 11)], []));
    assert_eq!(story(&outbox, lane), ["gap to e 7", "e 8", "gap to e 9", "e 10", "e 11"]);
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
    fill(&outbox, lane, &whole(&[gap("x", 0)], [publication_of("x", 1, 1)]));
    outbox.publication(lane, &publication_of("x", 2, 1));
    assert_eq!(story(&outbox, lane), ["gap to x 0", "x 1", "x 2"]);
    assert_eq!(task(&outbox), None);
}

#[test]
fn a_doubt_asks_history_once_what_waits_is_out() {
    let outbox = outbox();
    let (idle, busy, filling) = (live_lane(&outbox, 5), live_lane(&outbox, 5), open_lane(&outbox));
    outbox.set_position(filling, at(5));
    outbox.publication(busy, &publication(6));
    outbox.presence_changed(busy, &changed());
    for lane in [idle, busy, filling] {
        outbox.doubt(lane);
    }
    assert_eq!((task(&outbox), task(&outbox)), (Some(Task::Fill(idle)), None));
    fill(&outbox, idle, &whole(&[gap("x", 0)], []));
    assert_eq!(story(&outbox, idle), ["gap to x 0"]);

    outbox.publication(busy, &publication_of("x", 1, 1));
    assert_eq!(story(&outbox, busy), ["e 6", "presence"]);
    assert_eq!((task(&outbox), task(&outbox)), (Some(Task::Fill(busy)), None));
    fill(&outbox, busy, &whole(&[gap("x", 1)], []));
    assert_eq!(story(&outbox, busy), ["gap to x 0", "x 1"]);

    // What is being read may be from before: it is read again.
    fill(&outbox, filling, &history(6..=6));
    assert_eq!(story(&outbox, filling), ["e 6"]);
    assert_eq!((task(&outbox), task(&outbox)), (Some(Task::Fill(filling)), None));
    fill(&outbox, filling, &whole(&[], []));
    assert_eq!((story(&outbox, filling).len(), task(&outbox)), (0, None));
}

#[test]
fn a_gap_is_told_once_though_more_was_published_than_history_holds() {
    let outbox = outbox();
    let lane = open_lane(&outbox);
    outbox.set_position(lane, at(5));
    for offset in 8..=12 {
        outbox.publication(lane, &publication(offset));
    }
    // All that was retained when history was read is 10.
    let loss = fill(&outbox, lane, &whole(&[gap("e", 9)], [publication(10)]));
    assert_eq!(loss, Some(GapReason::Trimmed));
    assert_eq!(story(&outbox, lane), ["gap to e 7", "e 8", "e 9", "e 10", "e 11", "e 12"]);
    assert_eq!(task(&outbox), None);
}

#[test]
fn nothing_is_told_as_lost_that_comes_live() {
    let outbox = outbox();
    let lane = open_lane(&outbox);
    outbox.set_position(lane, at(15_878));
    // The node hears late: what the peer has from another node comes once more.
    for offset in 15_876..=15_880 {
        outbox.publication(lane, &publication(offset));
    }
    assert_eq!(fill(&outbox, lane, &whole(&[gap("e", 15_880)], [])), None);
    assert_eq!(story(&outbox, lane), ["e 15879", "e 15880"]);
    assert_eq!(task(&outbox), None);
}

#[test]
fn a_lane_never_goes_behind_what_its_peer_holds() {
    let outbox = outbox();
    let lane = open_lane(&outbox);
    outbox.set_position(lane, at(9));
    outbox.publication(lane, &publication(8));
    fill(&outbox, lane, &whole(&[gap("e", 7)], [publication(8), publication(9), publication(10)]));
    assert_eq!(story(&outbox, lane), ["e 10"]);
    assert_eq!(outbox.position(lane), Some(at(10)));
}

#[test]
fn what_came_during_a_replay_is_kept_for_what_may_come_before_it() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 5);
    let coming = Chunk { coming: vec![Text::new("eu").unwrap()], ..whole(&[], []) };
    outbox.publication(lane, &publication(8));
    assert_eq!(story(&outbox, lane), [] as [&str; 0]);
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    fill(&outbox, lane, &coming);
    // Nothing more need be asked until all has come.
    outbox.publication(lane, &publication(9));
    assert_eq!((story(&outbox, lane).len(), task(&outbox)), (0, None));
    outbox.doubt(lane);
    assert_eq!(task(&outbox), Some(Task::Fill(lane)));
    fill(&outbox, lane, &whole(&[gap("e", 9)], []));
    assert_eq!(story(&outbox, lane), ["gap to e 7", "e 8", "e 9"]);
    assert_eq!((outbox.bytes(), task(&outbox)), (0, None));
}

#[test]
fn the_last_of_an_epoch_comes_before_another_is_told() {
    let outbox = outbox();
    let lane = open_lane(&outbox);
    outbox.set_position(lane, at(5));
    outbox.publication(lane, &publication(6));
    fill(&outbox, lane, &whole(&[gap("x", 0)], [publication_of("x", 1, 1)]));
    assert_eq!(story(&outbox, lane), ["e 6", "gap to x 0", "x 1"]);
}

#[test]
fn a_part_of_the_history_that_nobody_asked_for_changes_nothing() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 5);
    fill(&outbox, lane, &whole(&[gap("e", 9)], [publication(10)]));
    assert_eq!((story(&outbox, lane).len(), outbox.position(lane)), (0, Some(at(5))));
}
