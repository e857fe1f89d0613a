//! In which order a wire that is one pipe takes what waits.

use crate::{
    content::{event, publication},
    reader::{decode, live_lane, open_lane, outbox},
};
use skywave::hub::outbox::{LANE_TURN, Outbox};
use skywave_protocol::{
    CloseCode, ServerFrame,
    frame::{Drain, Ping},
};
use std::iter;

const TURN: u64 = LANE_TURN as u64;

fn ping(outbox: &Outbox) {
    outbox.latest(&ServerFrame::Ping(Ping { seq: 1, interval_ms: 1, timeout_ms: 1 }));
}

fn answer(outbox: &Outbox) {
    outbox.control(&ServerFrame::Drain(Drain { after_ms: 1, url: None }));
}

/// The next frames, publications by their offsets.
fn next(outbox: &Outbox, count: usize) -> Vec<String> {
    let name = |frame| match decode(frame) {
        ServerFrame::Publication(publication) => publication.offset.to_string(),
        ServerFrame::Drain(_) => "answer".to_owned(),
        ServerFrame::Ping(_) => "ping".to_owned(),
        ServerFrame::Event(_) => "event".to_owned(),
        other => panic!("{other:?}"),
    };
    iter::from_fn(|| outbox.next()).take(count).map(name).collect()
}

fn offsets(offsets: impl IntoIterator<Item = u64>) -> Vec<String> {
    offsets.into_iter().map(|offset| offset.to_string()).collect()
}

#[test]
fn what_is_urgent_and_answers_go_first_and_events_last() {
    let outbox = outbox();
    let lane = live_lane(&outbox, 0);
    outbox.event(&event("a", None, 1));
    outbox.publication(lane, &publication(1));
    answer(&outbox);
    ping(&outbox);
    assert_eq!(next(&outbox, 9), ["ping", "answer", "1", "event"]);
}

#[test]
fn a_busy_channel_lets_a_quiet_one_have_its_turn() {
    let outbox = outbox();
    let (busy, quiet) = (live_lane(&outbox, 0), live_lane(&outbox, 100));
    (1..=TURN + 3).for_each(|offset| outbox.publication(busy, &publication(offset)));
    outbox.publication(quiet, &publication(101));
    assert_eq!(next(&outbox, 99), offsets((1..=TURN).chain([101]).chain(TURN + 1..=TURN + 3)));
}

#[test]
fn an_answer_does_not_wait_for_the_end_of_a_turn_and_does_not_end_it() {
    let outbox = outbox();
    let (busy, quiet) = (live_lane(&outbox, 0), live_lane(&outbox, 100));
    (1..=TURN + 1).for_each(|offset| outbox.publication(busy, &publication(offset)));
    outbox.publication(quiet, &publication(101));
    assert_eq!(next(&outbox, 3), offsets(1..=3));
    answer(&outbox);
    assert_eq!(next(&outbox, 1), ["answer"]);
    assert_eq!(next(&outbox, 99), offsets((4..=TURN).chain([101, TURN + 1])));
}

#[test]
fn a_lane_that_is_closed_in_its_turn_is_given_back_and_leaves_the_turn_to_the_next() {
    let outbox = outbox();
    let (left, other) = (live_lane(&outbox, 0), live_lane(&outbox, 100));
    (1..=3).for_each(|offset| outbox.publication(left, &publication(offset)));
    (101..=102).for_each(|offset| outbox.publication(other, &publication(offset)));
    assert_eq!(next(&outbox, 1), offsets([1]));
    outbox.close_lane(left);
    assert_eq!(next(&outbox, 9), offsets(101..=102));
    assert_eq!(open_lane(&outbox), left);
}

#[test]
fn a_lane_begins_a_turn_of_its_own_where_the_one_before_it_ended_early() {
    let outbox = outbox();
    let (left, empty) = (live_lane(&outbox, 0), live_lane(&outbox, 100));
    let (busy, quiet) = (live_lane(&outbox, 200), live_lane(&outbox, 300));
    (1..=3).for_each(|offset| outbox.publication(left, &publication(offset)));
    outbox.publication(empty, &publication(101));
    (201..=201 + TURN).for_each(|offset| outbox.publication(busy, &publication(offset)));
    outbox.publication(quiet, &publication(301));
    assert_eq!(next(&outbox, 1), offsets([1]));
    outbox.close_lane(left);
    let busy = 201..=200 + TURN;
    assert_eq!(next(&outbox, 99), offsets([101].into_iter().chain(busy).chain([301, 201 + TURN])));
}

#[test]
fn no_answer_comes_behind_the_last_frame() {
    let outbox = outbox();
    outbox.end(CloseCode::Drain.into());
    answer(&outbox);
    let last = iter::from_fn(|| outbox.next()).map(decode).collect::<Vec<_>>();
    assert!(matches!(last[..], [ServerFrame::Disconnect(_)]), "{last:?}");
}
